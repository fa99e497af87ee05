"""What rank, learning rate, epochs and replay do to forgetting: a study, recorded, and its charts.

It takes a quarter of an hour a seed, so it was run once: ``studies.recorded("forgetting")``.
"""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, NullFormatter
from tqdm.auto import tqdm

from shared.data import products
from shared.data.storage import fingerprint
from shared.open_models.adapters import add_adapter
from shared.open_models.opening import fingerprint_of, open_model
from shared.open_models.pricer import OpenModelPricer
from shared.pretraining.corpus import documents as read_by_the_base
from shared.pretraining.corpus import other_products
from shared.reports.figures import Chart, Theme, canvas, dollars, legend, plain_text
from shared.training import studies
from shared.training.checkpoints import checkpoints
from shared.training.fine_tuning import Plan, fine_tune
from shared.training.forgetting import Documents, measure, other_documents

NAME = "forgetting"
"""Under which it is recorded, see ``studies.recorded``."""

SIZE, CHOSEN_ON = 3_000, 500
"""Items to learn from; validation items, the first ones, that a checkpoint is chosen on."""

REPLAY_SEED, REPLAY_RECORDS = 6_060, 2_500
"""Of the catalogue that replayed texts come from."""

SETTINGS: dict[str, tuple[dict[str, Any], float]] = {
    "default": ({}, 0.0),
    "rank 4": ({"rank": 4, "alpha": 8}, 0.0),
    "rank 64": ({"rank": 64, "alpha": 128}, 0.0),
    "rate 1e-4": ({"rate": 1e-4}, 0.0),
    "rate 5e-3": ({"rate": 5e-3}, 0.0),
    "replay 10 %": ({}, 0.1),
    "replay 30 %": ({}, 0.3),
    "3 epochs": ({"epochs": 3.0, "evaluations": 6}, 0.0),
}
"""Name -> what changes in the plan, and replayed texts as a share of the items."""


def study(
    train: pa.Table, validation: pa.Table, known: pa.Table, folder: Path,
    seeds: Iterable[int] = (1, 2), *, progress: bool = True,
) -> list[dict[str, Any]]:  # fmt: skip
    """Fine-tune the tiny base in each setting; return what every checkpoint knows, a row a run.

    ``train``, ``validation``: items (ITEM schema); ``known``: items that documents must not be
    like. The first row is the base as it is. Finished runs are lines of a file in ``folder``, and
    are not repeated. ``medians`` are the prices in dollars of all validation items.
    """
    folder.mkdir(parents=True, exist_ok=True)
    journal = folder / "rows.jsonl"
    done = studies.read_rows(journal)
    documents = other_documents(folder / "documents", known)
    about = {
        "items": [fingerprint(train), fingerprint(validation)],
        "documents": hashlib.sha256(json.dumps(asdict(documents)).encode()).hexdigest()[:16],
        "base": fingerprint_of(Plan().base),
    }
    default = Plan(limit=SIZE, epochs=1.0, evaluations=4, validation=100)
    runs = [("base", 0, Plan(), 0.0)]
    runs += [
        (name, seed, replace(default, seed=seed, **change), share)
        for seed in seeds
        for name, (change, share) in SETTINGS.items()
    ]
    rows = []
    for name, seed, plan, share in tqdm(runs, unit="run", disable=not progress):
        key = json.dumps([asdict(plan), share, about], sort_keys=True)
        if key not in done:
            texts = replay_texts(share, SIZE, folder / "replay", known) if share else []
            found = _run(name, plan, texts, train, validation, documents, folder / "work")
            done[key] = {"seed": seed, "replay": share} | found | about
            line = json.dumps({"key": key, "row": done[key]})
            with journal.open("a", encoding="utf-8") as file:
                file.write(f"\n{line}\n")  # what came before may be a line that was cut off
        rows.append({"setting": name, **done[key]})
    return rows


def replay_texts(share: float, count: int, folder: Path, known: pa.Table) -> list[str]:
    """Return texts like those that the tiny base was trained on, prices of their time included.

    They are ``share`` times ``count`` texts, about yet other products than ``known`` (ITEM schema).
    What was curated stays in ``folder``. ValueError if the catalogue has not as many.
    """
    items = other_products(REPLAY_RECORDS, folder, known, seed=REPLAY_SEED)
    wanted = round(share * count)
    if not 0 <= wanted <= len(items):
        raise ValueError(f"{wanted} texts to replay: there are 0 to {len(items)}")
    read = read_by_the_base(items, REPLAY_SEED)
    return [text if price is None else f"{text}{price}" for text, price in read][:wanted]


def _run(
    name: str, plan: Plan, texts: Sequence[str], train: pa.Table, validation: pa.Table,
    documents: Documents, work: Path,
) -> dict[str, Any]:  # fmt: skip
    if name == "base":
        at_0 = _judge(None, 0, plan, validation, documents)
        prices = " ".join(f"{price:g}" for price in validation["price"].to_pylist())
        return {"plan": asdict(plan), "prices": prices, "checkpoints": [at_0]}
    shutil.rmtree(work, ignore_errors=True)
    done = fine_tune(train, validation, work, plan, keep_all=True, progress=False, replay=texts)
    kept = checkpoints(work / "checkpoints")
    return {
        "plan": asdict(plan), "seconds": done["seconds"], "losses": done["losses"],
        "checkpoints": [
            _judge(path, step, plan, validation, documents) for step, path in kept.items()
        ],
    }  # fmt: skip


def _judge(
    adapter: Path | None, step: int, plan: Plan, validation: pa.Table, documents: Documents
) -> dict[str, Any]:
    """Return what a checkpoint is worth: dollars and loss on both parts, and what it remembers."""
    model, tokenizer, _ = open_model(plan.base, plan.bits)
    if adapter:
        model = add_adapter(model, adapter)
    pricer = OpenModelPricer(model, tokenizer, {"text_tokens": plan.text_tokens}, name="")
    found, prices = pricer.distribution(products(validation)), np.asarray(validation["price"])
    misses = np.abs(found.median - prices)
    losses = found.losses(prices)
    return {
        "step": step,
        "dollars": round(float(misses[:CHOSEN_ON].mean()), 3),
        "dollars_elsewhere": round(float(misses[CHOSEN_ON:].mean()), 3),
        "price_loss": round(float(losses[:CHOSEN_ON].mean()), 4),
        **{key: round(value, 4) for key, value in measure(model, tokenizer, documents).items()},
        "medians": " ".join(map(str, found.median.astype(int))),
    }


def curve_chart(
    rows: Sequence[Mapping[str, Any]], settings: Sequence[str], field: str, name: str, *,
    log: bool = False,
) -> Chart:  # fmt: skip
    """Draw ``field`` of the checkpoints over the steps, a line a run, from the base at step 0.

    ``settings``: at most three, to be told apart by colour and mark. ``name`` is that of the axis.
    """
    start = next(row for row in rows if row["setting"] == "base")["checkpoints"][0][field]
    runs = [
        (setting, [(0, start), *((c["step"], c[field]) for c in row["checkpoints"])])
        for setting in settings
        for row in rows
        if row["setting"] == setting
    ]
    ends = {s: np.mean([points[-1][1] for name, points in runs if name == s]) for s in settings}
    title = f"{name[:1].upper()}{name[1:]}: {_short(start)} before; after " + ", ".join(
        f"{setting} {_short(end)}" for setting, end in ends.items()
    )
    alt = f"{title}. By step: " + "; ".join(
        f"{setting}: " + ", ".join(f"{_short(y)} at {x:,}" for x, y in points)
        for setting, points in runs
    )

    def draw(theme: Theme) -> Figure:
        figure, axes = canvas(theme, title, "training step", name, 3.8)
        styles = dict(zip(settings, _styles(theme), strict=False))
        for at, (setting, points) in enumerate(runs):
            label = None if setting in dict(runs[:at]) else plain_text(setting)
            axes.plot(*zip(*points, strict=True), **styles[setting], label=label)
        if log:
            _log_y(axes)
        legend(axes, theme, loc="best")
        return figure

    return Chart(draw, alt)


def tradeoff_chart(rows: Sequence[Mapping[str, Any]]) -> Chart:
    """Draw what was learnt against what was forgotten, at the checkpoint with the least dollars.

    A mark a run: validation error elsewhere than where the checkpoint was chosen, perplexity.
    """
    points = {
        setting: [
            (best["dollars_elsewhere"], best["perplexity"])
            for row in rows
            if row["setting"] == setting
            for best in [min(row["checkpoints"], key=lambda c: c["dollars"])]
        ]
        for setting in dict.fromkeys(row["setting"] for row in rows)
    }
    title = "Learnt and forgotten: down is less forgotten, left is better priced"
    alt = f"{title}. Error in dollars and perplexity: " + "; ".join(
        f"{name} " + ", ".join(f"{dollars(x)} and {_short(y)}" for x, y in found)
        for name, found in points.items()
    )

    def draw(theme: Theme) -> Figure:
        figure, axes = canvas(theme, title, "validation error, dollars", "perplexity of prose", 4.4)
        for (name, found), side in zip(points.items(), _sides(points.values()), strict=True):
            style = _styles(theme)[2 if name == "base" else int("replay" in name)]
            axes.plot(*zip(*found, strict=True), **(style | {"linestyle": "none"}))
            axes.annotate(
                plain_text(name), np.mean(found, axis=0), color=theme.text, fontsize=9,
                textcoords="offset points", **side,
            )  # fmt: skip
        _log_y(axes)
        axes.margins(x=0.14, y=0.1)
        return figure

    return Chart(draw, alt)


def loss_and_dollars_chart(checkpoints: Sequence[Mapping[str, Any]], name: str) -> Chart:
    """Draw the validation loss and the validation error in dollars of one run over its steps."""
    steps = [c["step"] for c in checkpoints]
    series = {"price_loss": "loss of the price, nats", "dollars": "error, dollars"}
    lowest = {field: min(checkpoints, key=lambda c: c[field])["step"] for field in series}
    title = (
        f"{name}: lowest loss at step {lowest['price_loss']:,}, dollars at {lowest['dollars']:,}"
    )
    alt = f"{title}. " + ", ".join(
        f"step {c['step']:,}: loss {c['price_loss']:.2f}, {dollars(c['dollars'])}"
        for c in checkpoints
    )

    def draw(theme: Theme) -> Figure:
        figure, axes = canvas(theme, title, "training step", series["price_loss"], 3.6)
        other = axes.twinx()
        sides = zip((axes, other), series, _styles(theme), strict=False)
        for side, field, style in sides:
            values = [c[field] for c in checkpoints]
            side.plot(steps, values, **style)
            side.plot(lowest[field], min(values), "o", markersize=13, markerfacecolor="none",
                      markeredgecolor=style["color"])  # fmt: skip
            side.set_ylabel(series[field], color=style["color"])
            side.margins(y=0.2)
        other.tick_params(colors=theme.muted, length=0, labelsize=9)
        other.spines[:].set_visible(False)
        return figure

    return Chart(draw, alt)


def _sides(points: Iterable[Sequence[tuple[float, float]]]) -> list[dict[str, Any]]:
    """Return on which side of its mark each label is written, so that neighbours' do not meet."""
    middles = np.array([np.mean(found, axis=0) for found in points])
    places = np.column_stack([middles[:, 0], np.log(middles[:, 1])])
    places = (places - places.min(0)) / np.maximum(np.ptp(places, axis=0), 1e-9)
    near = (np.abs(places[:, None] - places[None]) < [0.25, 0.06]).all(-1)
    sides = [((7, 3), "left"), ((-7, 3), "right"), ((7, -12), "left")]
    chosen = [sides[int(near[at, :at].sum()) % 3] for at in range(len(places))]
    return [{"xytext": offset, "ha": side} for offset, side in chosen]


def _short(value: float) -> str:
    return f"{value:,.0f}" if abs(value) >= 10 else f"{value:.2g}"


def _styles(theme: Theme) -> list[dict[str, Any]]:
    return [
        {"color": color, "marker": mark, "linestyle": line, "linewidth": 1.8, "markersize": 5}
        for color, mark, line in (
            (theme.good, "o", "-"), (theme.bad, "s", "--"), (theme.plain, "^", ":")
        )
    ]  # fmt: skip


def _log_y(axes: Any) -> None:
    axes.set_yscale("log")
    axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:,.10g}"))
    axes.yaxis.set_minor_formatter(NullFormatter())
