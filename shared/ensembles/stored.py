"""What members said about the same items, from stored evaluation runs; other items are refused."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from shared.data.storage import fingerprint
from shared.evaluation.inputs import item_table
from shared.evaluation.predictions import CONTRACT, STAND_IN, TOKENS, scored, with_label
from shared.evaluation.store import load

if TYPE_CHECKING:
    from shared.ensembles.model import Ensemble


@dataclass(frozen=True)
class Recorded:
    """Estimates of several members for the same n items, whose prices are known.

    ``estimates`` in dollars, (n, members), NaN where a member failed; ``prices`` (n,) in dollars.
    ``tables`` and ``manifests`` are those of the runs, in the order of ``names``, with the rows of
    all tables in the order of ``ids``. ``clusters``: near-duplicate groups, where they are known.
    """

    names: tuple[str, ...]
    ids: np.ndarray
    prices: np.ndarray
    estimates: np.ndarray
    tables: tuple[pa.Table, ...]
    manifests: tuple[dict, ...]
    clusters: pa.Array

    @property
    def items(self) -> dict:
        """What the manifests say about the items: fingerprint, n, splits."""
        return self.manifests[0]["items"]

    @property
    def label(self) -> str:
        """'stand-in' if one of the members is one."""
        return STAND_IN if any(m.get("label") for m in self.manifests) else ""

    def without(self, name: str) -> Recorded:
        """Return the same without one member."""
        kept = [i for i, other in enumerate(self.names) if other != name]
        pick = lambda values: tuple(values[i] for i in kept)  # noqa: E731
        estimates = self.estimates[:, kept]
        return Recorded(pick(self.names), self.ids, self.prices, estimates, pick(self.tables),
                        pick(self.manifests), self.clusters)  # fmt: skip


def recorded(
    sources: Recorded | Sequence[Any], *, split: str = "validation", items: Any = None
) -> Recorded:
    """Open stored runs, a member each, of one split: Parquet paths of a store, or Evaluations.

    ``items``: the items of that split, if they are at hand; then it is checked that the runs are
    of these, and near-duplicates are kept together where the estimates are divided into folds.
    What was opened already is returned as it is, if it is of that split.

    Raises ValueError naming the run if it is unfinished, of another split or of other items.
    """
    if isinstance(sources, Recorded):
        _refuse_other_split(sources.manifests[0], split)
        return sources
    if not len(sources):
        raise ValueError("there are no runs: give the stored predictions of one pricer or more")
    runs = [_run(source) for source in sources]
    for _, manifest in runs:
        _refuse_other_split(manifest, split)
    _refuse_other_items(runs)
    first = scored(runs[0][0])
    ids = first.ids.astype(str)
    names = tuple(manifest["pricer"] for _, manifest in runs)
    if len(set(names)) < len(names):
        raise ValueError(f"two runs have the same pricer: {', '.join(sorted(names))}")
    tables = tuple(_rows(table, ids) for table, _ in runs)
    estimates = np.column_stack([scored(table).estimate for table in tables])
    clusters = pa.nulls(len(ids), pa.string())
    if items is not None:
        clusters = _clusters(items, runs[0][1]["items"], ids, split)
    manifests = tuple(manifest for _, manifest in runs)
    return Recorded(names, ids, first.true, estimates, tables, manifests, clusters)


def price_stored(ensemble: Ensemble, runs: Recorded) -> pa.Table:
    """Return the ensemble's predictions from its members' stored ones; no member is asked.

    The members are asked at the same time, so ``seconds`` are those of the slowest; ``cost_usd``
    and tokens are those of all together. Raises ValueError if a member of the ensemble has no run
    here, or was another one: fitted on other items, or set otherwise.
    """
    chosen = [runs.tables[_place(member, runs)] for member in ensemble.members]
    price, low, high = ensemble.mix(np.column_stack([_column(t, "price_estimate") for t in chosen]))
    reasons = [
        joined(zip(ensemble.names, errors, strict=True)) if np.isnan(p) else None
        for p, errors in zip(price, zip(*(t["error"].to_pylist() for t in chosen), strict=True),
                             strict=True)
    ]  # fmt: skip
    seconds = np.column_stack([_column(t, "seconds") for t in chosen])
    return predictions_table(
        ensemble.name, chosen[0], label=ensemble.label,
        price_estimate=price, low=low, high=high, error=reasons,
        seconds=nan_or(np.fmax.reduce, seconds), **_spent(chosen),
    )  # fmt: skip


def predictions_table(name: str, like: pa.Table, *, label: str = "", **columns: Any) -> pa.Table:
    """Return a predictions table about the items of ``like``, with these columns and no others."""
    kept = ("item_id", "price_true", "category")
    values = {"pricer": pa.array([name] * len(like), pa.string())}
    values |= {k: pa.array(v, CONTRACT.field(k).type, from_pandas=True) for k, v in columns.items()}
    found = [
        like[f.name] if f.name in kept else values.get(f.name, pa.nulls(len(like), f.type))
        for f in CONTRACT
    ]
    return with_label(pa.table(found, schema=CONTRACT), label)


def joined(reasons: Any) -> str:
    """Return (member, reason) pairs as one reason."""
    return "; ".join(f"{name}: {reason or 'no price'}" for name, reason in reasons)


def nan_or(combine: Any, values: np.ndarray) -> np.ndarray:
    """Combine the known values of each row of (n, members); NaN where none is known."""
    known = np.isfinite(values)
    found = combine(np.where(known, values, 0.0), axis=1)
    return np.where(known.any(axis=1), found, np.nan)


def _spent(tables: Sequence[pa.Table]) -> dict[str, np.ndarray]:
    names = ("cost_usd", *(f"{token}_tokens" for token in TOKENS))
    columns = {n: np.column_stack([_column(t, n) for t in tables]) for n in names}
    return {name: nan_or(np.sum, values) for name, values in columns.items()}


def _column(table: pa.Table, name: str) -> np.ndarray:
    values = pc.cast(table[name], pa.float64())
    return np.asarray(values.to_numpy(zero_copy_only=False), dtype=float)


def _run(source: Any) -> tuple[pa.Table, dict]:
    if isinstance(source, str | Path):
        found = load(Path(source))
        if found is None:
            raise ValueError(
                f"{source}: no finished run is there; evaluate the pricer again, with store=…"
            )
        return found
    manifest = getattr(source, "manifest", None)
    if not manifest:
        raise TypeError(
            f"{type(source).__name__} does not say of which split its items are: give the Parquet "
            "path of a stored run, or what evaluate(...) returned"
        )
    return source.predictions, manifest


def _refuse_other_split(manifest: dict, split: str) -> None:
    splits = manifest["items"].get("splits") or []
    if splits != [split]:
        held = f"the {' and '.join(splits)} split" if splits else "items of no named split"
        why = {
            "validation": "weights are fitted on validation, so that test stays untouched",
            "test": "what is gained is tested on test, which nothing was fitted on",
        }.get(split, "")
        raise ValueError(
            f"{manifest['pricer']}: these are predictions of {held}, and {split} is needed "
            f"({why}). Evaluate it on the {split} items, with a store of their own"
        )


def _refuse_other_items(runs: Sequence[tuple[pa.Table, dict]]) -> None:
    (first, told), *others = runs
    ids = set(first["item_id"].to_pylist())
    for table, manifest in others:
        same = manifest["items"]["fingerprint"] == told["items"]["fingerprint"]
        common = len(ids & set(table["item_id"].to_pylist()))
        if not same or not common == len(ids) == len(table):
            raise ValueError(
                f"{told['pricer']} and {manifest['pricer']} priced different items "
                f"({told['items']['fingerprint'][:8]} and "
                f"{manifest['items']['fingerprint'][:8]}; {common:,} ids in common of {len(ids):,} "
                f"and {len(table):,}). Evaluate all members on the same items"
            )


def _clusters(items: Any, told: dict, ids: np.ndarray, split: str) -> pa.Array:
    table = item_table(items)
    if set(table["split"].to_pylist()) != {split}:
        raise ValueError(f"items: they are not all of the {split} split")
    # As in a manifest: cluster and split do not change what is priced.
    identity = fingerprint(table.drop_columns(["cluster", "split"]))
    if identity != told["fingerprint"]:
        raise ValueError(
            f"items: the runs are of other items ({told['fingerprint'][:8]}, not {identity[:8]})"
        )
    rows = pc.index_in(pa.array(ids, pa.string()), table["id"])
    return table["cluster"].take(rows).combine_chunks()


def _rows(table: pa.Table, ids: np.ndarray) -> pa.Table:
    return table.take(pc.index_in(pa.array(ids, pa.string()), table["item_id"])).combine_chunks()


def _place(member: Any, runs: Recorded) -> int:
    if member.name not in runs.names:
        raise ValueError(
            f"the ensemble has the member {member.name!r}, and there is no run of it among: "
            f"{', '.join(runs.names)}"
        )
    place = runs.names.index(member.name)
    member.refuse_another(runs.manifests[place].get("settings"))
    return place
