"""The products with known prices: those an estimate is shown beside, and those people are asked.

They are the learner's own curated items where there are some, else a sample of the embedded
catalogue. The index over them is built in the background: the page opens without it.
"""

from __future__ import annotations

import threading
from pathlib import Path

import numpy as np
import pyarrow as pa

from shared.data import Items, Product, open_items, products
from shared.evaluation.inputs import reason
from shared.pipeline import prepare
from shared.pricers.human import Answers, asked
from shared.retrieval.found import Neighbour
from shared.settings import Settings

SAMPLE = 4_000
"""Records of the embedded catalogue that are curated where no items are at hand: two seconds."""

MOST = 20_000
"""Training items that are looked through at most, drawn by the seed: all fit in memory."""

ASKED = 100
"""Products of the test split that people are asked about: those of ``python -m shared label``."""

ALIKE = 0.2
"""Cosine below which a neighbour has little more than small words in common with a product."""


class Knowledge:
    """Items, and an index over their training split. ``start`` builds it; ``wait`` waits for it.

    ``said`` is how far that is; ``error`` why it failed, empty while it did not.
    """

    def __init__(self, items: Items, settings: Settings, about: str) -> None:
        self.items, self.settings, self.about = items, settings, about
        self.said, self.error = "The index of known products has not been started.", ""
        self.count = 0
        self._index = None
        self._done, self._one_at_a_time = threading.Event(), threading.Lock()

    @classmethod
    def open(cls, folder: Path | None, settings: Settings) -> Knowledge:
        """Open a folder of items, by default the settings' own, else make a small sample.

        Raises SourceError if a folder is given and holds none.
        """
        if folder is not None:
            return cls(open_items(folder), settings, f"your items in {Path(folder).name}")
        if (settings.data / "manifest.json").is_file():
            return cls(open_items(settings.data), settings, "the course's items")
        sample = settings.runs / "app" / "sample"
        items = prepare("embedded", sample, seed=settings.seed, size=SAMPLE, progress=False)
        return cls(items, settings, "a sample of the embedded catalogue (invented products)")

    def start(self) -> None:
        """Build the index in a thread of its own, or open the one that an earlier run built."""
        threading.Thread(target=self._build, name="index of products", daemon=True).start()

    def wait(self, seconds: float) -> bool:
        """Return whether the index is there, after waiting for so long at most."""
        return self._done.wait(seconds) and not self.error

    def neighbours(self, product: Product, k: int = 6) -> list[Neighbour]:
        """Return the k training items most like a product, compared with every one.

        Raises ValueError while there is no index.
        """
        if self._index is None:
            raise ValueError(self.error or self.said)
        with self._one_at_a_time:
            found = self._index.exact([product], k)[0]
        return [near for near in found if near.similarity > 0]

    def questions(self) -> list[Product]:
        """Return the products that people are asked about, in the order of the label command."""
        return products(asked(self.items.table("test"), ASKED, self.settings.seed))

    def answers(self) -> Answers:
        """Return what people have answered, kept beside the items as the label command does."""
        return Answers(self.items.folder / "answers.jsonl")

    def _build(self) -> None:
        try:
            self._index = self._indexed()
            self.said = f"Nearest of {self.count:,} training items: {self.about}."
        except Exception as error:  # the page works without, and says so
            self.error = f"The index of known products could not be built: {reason(error)}"
        finally:
            self._done.set()

    def _indexed(self):
        from shared.retrieval import ProductIndex, TfidfEmbedding
        from shared.retrieval.building import read_manifest
        from shared.retrieval.found import IndexUnusable

        self.said = "Step 1 of 3: reading items with known prices."
        folder = self.settings.runs / "app" / f"index-{self.items.manifest['fingerprint']}"
        try:
            self.count = read_manifest(folder)["versions"][-1]["rows"]
            return ProductIndex.open(folder)
        except IndexUnusable:
            pass
        rows = _drawn(self.items.table("train"), self.settings.seed)
        self.count = len(rows)
        self.said = f"Step 2 of 3: learning the words of {len(rows):,} products."
        embedding = TfidfEmbedding(seed=self.settings.seed).fit(rows)
        self.said = f"Step 3 of 3: indexing {len(rows):,} products."
        return ProductIndex.build(rows, embedding, folder, progress=False)


def _drawn(rows: pa.Table, seed: int) -> pa.Table:
    if len(rows) <= MOST:
        return rows
    chosen = np.random.default_rng(seed).choice(len(rows), MOST, replace=False)
    return rows.take(np.sort(chosen))
