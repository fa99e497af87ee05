"""Words as numbers: TF-IDF vectors of texts and titles, and their compression (LSA)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from shared.data import Product

if TYPE_CHECKING:
    from scipy.sparse import csr_matrix
    from sklearn.decomposition import TruncatedSVD
    from sklearn.feature_extraction.text import TfidfVectorizer

TOKEN = r"(?u)\b\w[\w.]*\b"
"""A word, or a number with its decimals: "1.5" is one token, and so is the "x" of a size."""


def tfidf(*, words: int = 2, most: int | None = None) -> TfidfVectorizer:
    """Return an unfitted vectoriser of words, and of up to ``words`` in a row, in at least 2 texts.

    ``most`` bounds the vocabulary to the most frequent ones. The fifth mention of a word says
    little more than the first, hence the sublinear counts.
    """
    from sklearn.feature_extraction.text import TfidfVectorizer

    return TfidfVectorizer(
        ngram_range=(1, words),
        min_df=2,
        max_features=most,
        sublinear_tf=True,
        token_pattern=TOKEN,
        dtype=np.float32,
    )


class TextSpace:
    """TF-IDF of whole texts, and its compression to a few dense columns (LSA).

    LSA (Deerwester et al., 1990) keeps the directions in which texts differ most, so that a forest
    or a boosted tree gets a hundred columns instead of a hundred thousand. ``words`` bounds the
    vocabulary to the most frequent words and pairs.
    """

    def __init__(self, columns: int = 100, seed: int = 42, words: int | None = None) -> None:
        self.columns, self.seed, self.words = columns, seed, words

    def fit(self, products: Sequence[Product]) -> csr_matrix:
        """Learn the space from n products and return their TF-IDF vectors, shape (n, words)."""
        self.vectoriser = vectoriser_for(products, self.words)
        sparse = self.vectoriser.fit_transform(p.text for p in products)
        columns = max(min(self.columns, sparse.shape[1] - 1, sparse.shape[0] - 1), 1)
        self.svd = fitted_svd(sparse, columns, 1, self.seed)
        return sparse

    def compress(self, sparse: csr_matrix) -> np.ndarray:
        """Return the places of n TF-IDF vectors in the space, shape (n, columns)."""
        return self.svd.transform(sparse).astype(np.float32)

    def transform(self, products: Sequence[Product]) -> np.ndarray:
        """Return the places of n products in the space, shape (n, columns)."""
        return self.compress(self.sparse(products))

    def sparse(self, products: Sequence[Product]) -> csr_matrix:
        """Return the TF-IDF vectors of n products, shape (n, words)."""
        return self.vectoriser.transform(p.text for p in products)


def fitted_svd(sparse: csr_matrix, columns: int, rounds: int, seed: int) -> TruncatedSVD:
    """Return the ``columns`` directions in which n sparse vectors differ most.

    ``rounds`` of the power iteration: more are more exact. On one thread, since more of them add
    numbers up in another order: boosted trees on such columns were off by 51.95 dollars on one
    core and by 52.38 on two.
    """
    from sklearn.decomposition import TruncatedSVD
    from threadpoolctl import threadpool_limits

    with threadpool_limits(1):
        return TruncatedSVD(columns, n_iter=rounds, random_state=seed).fit(sparse)


def vectoriser_for(products: Sequence[Product], most: int | None = None) -> TfidfVectorizer:
    """Return a vectoriser fit for so many products: a handful needs words that occur once, too."""
    return tfidf(most=most).set_params(min_df=2 if len(products) >= 50 else 1)
