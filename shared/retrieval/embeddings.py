"""Texts as vectors of length 1: the nearer two directions are, the more alike the texts.

The default needs nothing but the training texts; two more read models that others have trained,
if you install what they need.
"""

from __future__ import annotations

import hashlib
import importlib
import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Protocol

import numpy as np
import pyarrow as pa
from tqdm.auto import tqdm

from shared.data.storage import file_hash, fingerprint, replacing, write_json
from shared.pricers.words import fitted_svd, tfidf

if TYPE_CHECKING:
    from sklearn.feature_extraction.text import TfidfVectorizer

CARD = "embedding.json"
AT_ONCE = 2_048
"""Texts embedded at once: the unit of progress, and what memory holds beside the vectors."""

MOST_FITTED = 50_000
"""Texts that TF-IDF is fitted on at most, drawn by the seed: more move its axes very little."""

NOWHERE = 1e-6
"""Length of a vector below which it points nowhere: its text says nothing that is known."""


class EmbeddingError(ValueError):
    """A saved embedding cannot be used; the message names the file and the remedy."""


class Embedding(Protocol):
    """Anything that places texts. ``fingerprint`` changes where the same text would move.

    One with ``save(folder)`` can be kept beside an index, which is then opened without it.
    """

    name: str
    size: int
    fingerprint: str

    def embed(self, texts: Sequence[str], progress: bool = False) -> np.ndarray:
        """Return the places of n texts, shape (n, size), float32, each row of length 1."""
        ...


def unit(vectors: np.ndarray) -> np.ndarray:
    """Return rows of length 1; a row without a direction becomes the last axis.

    Of a row of zeros the cosine is not defined, and a vector database never returns it.
    """
    vectors = np.ascontiguousarray(vectors, dtype=np.float32)
    lengths = np.linalg.norm(vectors, axis=1, keepdims=True)
    if not np.isfinite(lengths).all():
        raise ValueError("the embedding gave numbers that are not finite: its model is damaged")
    vectors = vectors / np.where(lengths > NOWHERE, lengths, 1.0)
    last = np.eye(1, vectors.shape[1], vectors.shape[1] - 1, dtype=np.float32)
    return np.where(lengths > NOWHERE, vectors, last)


def in_batches(
    texts: Sequence[str], size: int, place: Callable[[list[str]], np.ndarray], progress: bool
) -> np.ndarray:
    """Return ``unit(place(batch))`` of all texts, shape (n, size), with a bar if asked for."""
    found = np.empty((len(texts), size), dtype=np.float32)
    with tqdm(total=len(texts), desc="embed", unit="text", disable=not progress) as bar:
        for start in range(0, len(texts), AT_ONCE):
            batch = list(texts[start : start + AT_ONCE])
            found[start : start + len(batch)] = unit(place(batch))
            bar.update(len(batch))
    return found


class TfidfEmbedding:
    """TF-IDF of words, compressed by a truncated SVD (latent semantic analysis), offline.

    The last axis is kept free for texts without a known word: they are like each other, and like
    nothing else. ``words`` bounds the vocabulary to the most frequent ones.
    """

    kind: ClassVar[str] = "tfidf"

    def __init__(self, size: int = 128, seed: int = 42, words: int = 50_000) -> None:
        if size < 2:
            raise ValueError(f"size={size}: an embedding has at least 2 columns")
        self.name, self.size, self.seed, self.words = "tfidf-svd", size, seed, words
        self._most = size
        self.fitted_on = ""
        self._vectoriser: TfidfVectorizer | None = None

    def fit(self, items: pa.Table) -> TfidfEmbedding:
        """Learn words and axes from training items (ITEM schema) and return self.

        Raises ValueError for items of another split: what is looked up later must not shape the
        space that it is looked up in. With few texts ``size`` shrinks to what they can span.
        """
        others = sorted(
            {s for s in items["split"].unique().to_pylist() if s not in (None, "train")}
        )
        if others:
            raise ValueError(f"an embedding is fitted on training items, not on {others}")
        texts = _drawn(items["text"], self.seed)
        if len(texts) < 3:
            raise ValueError(f"{len(texts)} texts are too few to fit an embedding on")
        vectoriser = tfidf(words=1, most=self.words).set_params(min_df=2 if len(texts) >= 50 else 1)
        sparse = vectoriser.fit_transform(texts)
        columns = max(min(self._most - 1, sparse.shape[1] - 1, len(texts) - 1), 1)
        svd = fitted_svd(sparse, columns, 2, self.seed)
        self._take(vectoriser, svd.components_.astype(np.float32))
        self.fitted_on = fingerprint(items.select(["text"]))
        return self

    @property
    def fingerprint(self) -> str:
        """Hash of the settings and of the texts it was fitted on."""
        return _digest(self.name, self.size, self.seed, self.words, self.fitted_on)

    def embed(self, texts: Sequence[str], progress: bool = False) -> np.ndarray:
        """Return the places of n texts, shape (n, size), float32, each row of length 1."""
        if self._vectoriser is None:
            raise ValueError("this embedding has not been fitted: call .fit(train_items) first")
        return in_batches(texts, self.size, self._place, progress)

    def save(self, folder: Path) -> None:
        """Write it to a folder: words as JSON, numbers as safetensors, and a card, last."""
        from safetensors.numpy import save_file

        if self._vectoriser is None:
            raise ValueError("this embedding has not been fitted: there is nothing to save")
        folder = Path(folder)
        (folder / CARD).unlink(missing_ok=True)
        words = sorted(self._vectoriser.vocabulary_, key=self._vectoriser.vocabulary_.get)
        write_json(words, folder / "words.json")
        numbers = {"idf": self._vectoriser.idf_, "components": self._components}
        numbers = {name: np.ascontiguousarray(v, np.float32) for name, v in numbers.items()}
        with replacing(folder / "numbers.safetensors") as temporary:
            save_file(numbers, temporary)
        settings = {"size": self.size, "seed": self.seed, "words": self.words}
        files = {n: file_hash(folder / n) for n in ("words.json", "numbers.safetensors")}
        card = {"settings": settings, "fitted_on": self.fitted_on, "files": files}
        _write_card(self, folder, card)

    @classmethod
    def load(cls, folder: Path, card: dict) -> TfidfEmbedding:
        """Open what ``save`` wrote; nothing in it is run."""
        from safetensors.numpy import load_file

        found = cls(**card["settings"])
        words = json.loads((folder / "words.json").read_text(encoding="utf-8"))
        numbers = load_file(folder / "numbers.safetensors")
        vectoriser = tfidf(words=1).set_params(vocabulary={w: i for i, w in enumerate(words)})
        vectoriser.idf_ = numbers["idf"]
        found._take(vectoriser, numbers["components"])
        found.fitted_on = card["fitted_on"]
        return found

    def _take(self, vectoriser: TfidfVectorizer, components: np.ndarray) -> None:
        self._vectoriser, self._components = vectoriser, components
        self.size = len(components) + 1

    def _place(self, texts: list[str]) -> np.ndarray:
        dense = self._vectoriser.transform(texts) @ self._components.T
        return np.hstack([dense, np.zeros((len(texts), 1), np.float32)])


class _Pretrained:
    """What the two embeddings by trained models share: a name or a folder, and a card."""

    kind: ClassVar[str]
    library: ClassVar[str]

    def __init__(self, model: str | Path) -> None:
        self.model = str(model)
        self.name = f"{self.kind} {Path(self.model).name}"
        self._encode = self._open(_optional(self.library, type(self).__name__))
        self.size = int(np.asarray(self._encode(["size"])).shape[1])

    @property
    def fingerprint(self) -> str:
        """Hash of the files of a local folder; of a model of the hub, only of its name."""
        folder = Path(self.model)
        files = sorted(p for p in folder.rglob("*") if p.is_file()) if folder.is_dir() else []
        return _digest(self.kind, self.size, *map(file_hash, files) if files else [self.model])

    def embed(self, texts: Sequence[str], progress: bool = False) -> np.ndarray:
        """Return the places of n texts, shape (n, size), float32, each row of length 1."""
        return in_batches(texts, self.size, self._encode, progress)

    def save(self, folder: Path) -> None:
        """Write which model it is; the model itself stays where it is."""
        _write_card(self, folder, {"model": self.model})

    @classmethod
    def load(cls, folder: Path, card: dict) -> _Pretrained:
        """Open the model that ``save`` named."""
        return cls(card["model"])

    def _open(self, library: Any) -> Callable[[list[str]], np.ndarray]:
        raise NotImplementedError


class StaticEmbedding(_Pretrained):
    """The mean of a vector a word, from a model2vec folder or a name of the hub: fast on a CPU."""

    kind, library = "static", "model2vec"

    def _open(self, library: Any) -> Callable[[list[str]], np.ndarray]:
        return library.StaticModel.from_pretrained(self.model).encode


class SentenceEmbedding(_Pretrained):
    """A transformer reads the whole text (sentence-transformers): better, and far slower."""

    kind, library = "sentence", "sentence-transformers"

    def _open(self, library: Any) -> Callable[[list[str]], np.ndarray]:
        model = library.SentenceTransformer(self.model)
        return lambda texts: model.encode(texts, show_progress_bar=False)


KINDS: dict[str, Any] = {e.kind: e for e in (TfidfEmbedding, StaticEmbedding, SentenceEmbedding)}
"""Kind -> class, for what is opened from a folder."""


def load_embedding(folder: Path) -> Embedding:
    """Open an embedding that was saved; raise EmbeddingError if it is not whole, or another."""
    path = Path(folder) / CARD
    try:
        card = json.loads(path.read_text(encoding="utf-8"))
        kind, expected, files = KINDS[card["kind"]], card["fingerprint"], card.get("files", {})
    except FileNotFoundError:
        raise EmbeddingError(f"{folder}: holds no {CARD}; build the index again") from None
    except (ValueError, KeyError, TypeError) as error:
        raise EmbeddingError(f"{path}: damaged ({error!r}); build the index again") from error
    for name, checksum in files.items():
        file = Path(folder) / Path(name).name
        if not file.is_file() or file_hash(file) != checksum:
            raise EmbeddingError(f"{file}: missing or changed since it was saved; build again")
    found = kind.load(Path(folder), card)
    if found.fingerprint != expected:
        raise EmbeddingError(f"{path}: {found.name} is not what the vectors were made with")
    return found


def _write_card(embedding: Any, folder: Path, card: dict) -> None:
    head = {"kind": embedding.kind, "name": embedding.name, "fingerprint": embedding.fingerprint}
    write_json(head | card, Path(folder) / CARD)


def _drawn(texts: pa.ChunkedArray, seed: int) -> list[str]:
    if len(texts) > MOST_FITTED:
        rows = np.random.default_rng(seed).choice(len(texts), MOST_FITTED, replace=False)
        texts = texts.take(np.sort(rows))
    return texts.fill_null("").to_pylist()


def _digest(*parts: Any) -> str:
    return hashlib.sha256("\x00".join(map(str, parts)).encode()).hexdigest()[:16]


def _optional(library: str, wanted: str) -> Any:
    """Import a library that the course does not install, or say how to get it."""
    module = library.replace("-", "_")
    try:
        return importlib.import_module(module)
    except ModuleNotFoundError as error:
        if error.name != module:
            raise
        raise ModuleNotFoundError(
            f"{wanted} needs {library}, which is not installed: pip install {library}", name=module
        ) from None
