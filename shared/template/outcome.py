"""What came of it: the table in your unit, what won and whether that is shown, and the release."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa

from shared.data import Items, Product
from shared.data.storage import write_text
from shared.evaluation import Comparison, compare_many
from shared.evaluation.compare import p_text
from shared.reports.tables import aligned, pipes
from shared.template.door import record_of
from shared.template.project import Project, ProjectError
from shared.template.steps import Model, best_of, title
from shared.template.tables import text_of

if TYPE_CHECKING:
    from shared.releases import Release, ReleasedPricer

TITLES = ("model", "error", "95 % interval", "within 20 %", "against the chosen one")


def compare(project: Project, models: Sequence[Model]) -> Model:
    """Print the table of all models on the test items, and return the one to serve.

    It is the one of least error on validation that can be served; whether it is shown to be better
    than the others is tested on test, in pairs and corrected for their number (Holm).
    """
    served = [model for model in models if can_be_served(model)]
    if not served:
        raise ProjectError("none of the models can be served: tune, distil, or add a baseline")
    chosen = best_of(served)
    against = {c.a: c for c in compare_many([m.found["test"] for m in models], chosen.name)}
    title("5. Compare", f"{chosen.found['test'].scores['n']:,} test items, {project.number.unit}")
    rows = [
        _cells(project, model, against.get(model.name))
        for model in sorted(models, key=lambda model: model.error("test"))
    ]
    page = [aligned(TITLES, rows, TITLES[:1]), "", verdict(project, chosen, list(against.values()))]
    print("\n".join(page))
    table = pipes(TITLES, rows, TITLES[:1])
    text = f"# {project.number.column}, {project.number.unit}\n\n{table}\n\n{page[-1]}\n"
    write_text(text, project.runs / "table.md")
    return chosen


def can_be_served(model: Model) -> bool:
    """Say whether a model has a folder, or can be saved to one."""
    from shared.pricers import PRICERS

    return model.opening is not None or model.name in PRICERS


def verdict(project: Project, chosen: Model, against: Sequence[Comparison]) -> str:
    """Return in words what the chosen model is better than, and where that may be luck."""
    shown = {"better than": [], "worse than": [], "not distinguishable from": []}
    for one in against:  # the others, each minus the chosen one
        how = "better than" if one.difference > 0 else "worse than"
        shown[how if one.distinguishable else "not distinguishable from"].append(one.a)
    parts = [f"{how} {', '.join(names)}" for how, names in shown.items() if names]
    return (
        f"Chosen, for the least error on validation of those that can be served: {chosen.name}. "
        f"On test it is {'; '.join(parts) or 'alone'}."
    )


def release(project: Project, items: Items, model: Model) -> Release:
    """Add a model to the registry in ``runs/registry`` and let it answer; return the release.

    It answers in your unit. What is there already is not added again.
    """
    from shared.compression.scaled import write_scaled
    from shared.releases import Registry

    title("6. Serve", model.name)
    registry = Registry(project.runs / "registry")
    folder = write_scaled(
        _opening(project, model), project.runs / "models" / "served", project.number.scale,
        "USD" if project.number.unit == "dollars" else project.number.unit,
    )  # fmt: skip
    tables = {split: _in_unit(items.table(split), project) for split in ("validation", "test")}
    found = _same(registry, folder) or registry.add("scaled", folder, items=tables)
    found = registry.promote(found.version, "least error on validation")
    print(f"  {found.version}: 9 of 10 true values are said to lie between the estimate divided "
          f"and multiplied by {found.factor:.2f}; on test it was "
          f"{found.metrics['test']['coverage']:.0%}")  # fmt: skip
    print(f"  start the service: python -m shared serve --registry {registry.folder}")
    return found


def open_released(project: Project) -> ReleasedPricer:
    """Open the release that answers now. Raises ReleaseError if there is none yet."""
    from shared.releases import Registry

    return Registry(project.runs / "registry").current().open()


def estimate(project: Project, rows: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """Estimate rows with your columns: dicts with estimate, low, high (your unit), and error.

    The number itself need not be there, and is not looked at.
    """
    pricer = open_released(project)
    found = pricer.price(products_of(project, rows))
    return [
        {"estimate": float(price), "low": float(low), "high": float(high), "error": error}
        for price, low, high, error in zip(
            found.price, found.low, found.high, found.error, strict=True
        )
    ]


def products_of(project: Project, rows: Sequence[dict[str, Any]]) -> list[Product]:
    """Return rows with your columns as what a pricer reads, cleaned as the training rows were."""
    from shared.data import assemble, products, records_table

    texts = [{name: text_of(value) for name, value in row.items()} for row in rows]
    records = [record_of(project, row, f"row-{at}") for at, row in enumerate(texts, start=1)]
    return products(assemble(records_table(records)))


def _cells(project: Project, model: Model, against: Comparison | None) -> list[str]:
    scores, shown = model.found["test"].scores, project.shown
    table = model.found["test"].predictions
    true, said = (table[name].to_numpy() for name in ("price_true", "price_estimate"))
    near = float(np.mean(np.abs(said - true) < 0.2 * true))  # a failed one is not near
    worse = "chosen"
    if against is not None:
        worse = f"{'+' if against.difference > 0 else ''}{shown(against.difference)}, "
        worse += p_text(against.p_holm) + ("" if against.distinguishable else " (may be luck)")
    interval = f"{shown(scores['mae_low'])} to {shown(scores['mae_high'])}"
    return [model.name, shown(scores["mae"]), interval, f"{near:.0%}", worse]


def _opening(project: Project, model: Model) -> Any:
    from shared.compression import Opening
    from shared.pricers import save_pricer

    if model.opening is not None:
        return model.opening
    return Opening("fitted", save_pricer(model.pricer, project.runs / "models" / model.name))


def _in_unit(items: pa.Table, project: Project) -> pa.Table:
    prices = pa.array(items["price"].to_numpy() * project.number.scale)
    return items.set_column(items.column_names.index("price"), "price", prices)


def _same(registry: Any, folder: Path) -> Release | None:
    from shared.releases.release import files_of

    files = files_of(folder)
    return next((r for r in reversed(registry.versions()) if r.files == files), None)
