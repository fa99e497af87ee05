"""Price raw records with a pricer trained on curated items: the command line's ``price``."""

from __future__ import annotations

from pathlib import Path

from shared.data import open_items, read_products
from shared.evaluation import evaluate
from shared.evaluation.store import save_as
from shared.pricers.registry import make_pricer


def price_records(
    source: str,
    pricer: str,
    train: Path,
    out: Path,
    *,
    seed: int = 42,
    size: int = 24_000,
    amazon: str | None = None,
    progress: bool = True,
) -> dict:
    """Price every record of ``source`` with ``pricer``, fitted on the training split of ``train``.

    Known prices are kept for scoring and never shown to the pricer. Writes the predictions to
    ``out`` (Parquet) and their manifest beside it, and returns the manifest, with ``malformed``
    lines counted. Raises SourceError for bad input and ValueError for an unknown pricer.
    """
    model = make_pricer(pricer, seed)
    items, malformed = read_products(source, size=size, seed=seed, amazon=amazon)
    model.fit(open_items(train).table("train"))
    evaluation = evaluate(model, items, seed=seed, progress=progress)
    manifest = evaluation.manifest | {
        "malformed": malformed.count,
        "malformed_examples": malformed.examples,
    }
    return save_as(Path(out), evaluation.predictions, manifest)
