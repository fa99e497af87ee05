"""Price raw records with a pricer trained on curated items: the command line's ``price``."""

from __future__ import annotations

from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc

from shared.data import open_items
from shared.evaluation import Pricer, evaluate
from shared.evaluation.store import save_as
from shared.pipeline import read_products
from shared.pricers.registry import make_pricer


def price_records(
    source: str,
    pricer: str | Pricer,
    train: Path | None,
    out: Path,
    *,
    seed: int = 42,
    size: int = 24_000,
    amazon: str | None = None,
    limit: int | None = None,
    progress: bool = True,
) -> dict:
    """Price every record of ``source``, or the first ``limit``, with ``pricer``.

    A name is a new pricer, fitted on the training split of ``train``; else it is ready.
    Known prices are kept for scoring and never shown to the pricer. Writes the predictions to
    ``out`` (Parquet) and their manifest beside it, and returns the manifest. It counts the
    ``failed`` estimates, the ``malformed`` lines, and the products ``seen_in_training``, by id or
    text, on which a score would flatter (None without ``train``). Raises SourceError for bad
    input and ValueError for an unknown pricer.
    """
    model = make_pricer(pricer, seed) if isinstance(pricer, str) else pricer
    items, malformed = read_products(source, size=size, seed=seed, amazon=amazon, limit=limit)
    learnt_from = None if train is None else open_items(train).table("train")
    if isinstance(pricer, str):
        model.fit(learnt_from)
    evaluation = evaluate(model, items, seed=seed, progress=progress)
    manifest = evaluation.manifest | {
        "failed": evaluation.predictions["price_estimate"].null_count,
        "malformed": malformed.count,
        "malformed_examples": malformed.examples,
        "seen_in_training": None if learnt_from is None else _seen(items, learnt_from),
    }
    return save_as(Path(out), evaluation.predictions, manifest)


def _seen(items: pa.Table, learnt_from: pa.Table) -> int:
    known = [pc.is_in(items[name], learnt_from[name]) for name in ("id", "text")]
    return pc.sum(pc.or_(*known)).as_py() or 0
