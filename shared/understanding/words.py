"""The rival that every classifier has to beat: a logistic regression on the words of a text.

Which words there are, not in which order. Where it does as well as anything else, the category
hangs on single words, and no understanding was needed.
"""

from __future__ import annotations

import io
import json
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from shared.compression.exported import MANIFEST, ExportError, read_exported, write_exported
from shared.understanding.exported import WORDS, said_of
from shared.understanding.labels import TextClassifier

LIST, WEIGHTS = "words.json", "weights.npy"


class BagOfWords(TextClassifier):
    """A logistic regression on which of its ``words`` a text has.

    ``weights``: float32, (words + 1, categories); the last row is what holds for every text.
    """

    def __init__(
        self, words: Sequence[str], weights: np.ndarray, categories: Sequence[str],
        name: str = "bag of words",
    ) -> None:  # fmt: skip
        from sklearn.feature_extraction.text import CountVectorizer

        if weights.shape != (len(words) + 1, len(categories)):
            raise ValueError(f"weights {weights.shape} for {len(words)} words")
        self.words, self.weights = list(words), weights
        self.categories, self.name = tuple(categories), name
        self._count = CountVectorizer(binary=True, dtype=np.float32, vocabulary=self.words)

    @classmethod
    def fit(cls, texts: Sequence[str], labels: np.ndarray, categories: Sequence[str]) -> BagOfWords:
        """Fit one to n texts and labels (places in ``categories``, each of them there)."""
        from sklearn.feature_extraction.text import CountVectorizer
        from sklearn.linear_model import LogisticRegression

        if missing := set(range(len(categories))) - set(np.unique(labels).tolist()):
            names = ", ".join(categories[at] for at in sorted(missing))
            raise ValueError(f"no text is of {names}: give at least one of each category")
        count = CountVectorizer(binary=True, dtype=np.float32)
        model = LogisticRegression(max_iter=1_000).fit(count.fit_transform(texts), labels)
        weights = np.column_stack([model.coef_, model.intercept_]).T
        if len(categories) == 2:  # of two, scikit-learn has the weights of the second alone
            weights = np.column_stack([np.zeros(len(weights)), weights])
        words = count.get_feature_names_out().tolist()
        return cls(words, weights.astype(np.float32), categories)

    def logits(self, texts: Sequence[str]) -> np.ndarray:
        """Return the outputs for n texts, float64, (n, categories)."""
        if not len(texts):
            return np.empty((0, len(self.categories)))
        found = self._count.transform(texts) @ self.weights[:-1] + self.weights[-1]
        return found.astype(float)

    def save(self, folder: Path) -> Path:
        """Write words and weights to a folder that ``open_classifier`` opens; return the folder."""
        stored = io.BytesIO()
        np.save(stored, self.weights, allow_pickle=False)
        facts = {"kind": WORDS, "name": self.name, "categories": list(self.categories)}
        files = {LIST: json.dumps(self.words).encode(), WEIGHTS: stored.getvalue()}
        return write_exported(folder, files, facts)

    @classmethod
    def load(cls, folder: Path, threads: int = 1) -> BagOfWords:
        """Open what ``save`` wrote. Raises ExportError if it is not whole, or holds other things.

        It computes on one thread, whatever ``threads`` says.
        """
        manifest, files = read_exported(folder, WORDS)
        name, categories = said_of(manifest, folder)
        try:
            weights = np.load(io.BytesIO(files[WEIGHTS]), allow_pickle=False)
            return cls(json.loads(files[LIST]), weights, categories, name)
        except (KeyError, ValueError, TypeError, EOFError) as error:
            raise ExportError(f"{Path(folder) / MANIFEST}: damaged ({error!r})") from error
