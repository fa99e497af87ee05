"""The commands that train open models: base, tune."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import Annotated

import typer

from shared.commands.options import AsJson, Seed, app, settings_for
from shared.commands.printing import print_json


@app.command()
def base(
    out: Annotated[Path, typer.Option(help="Folder for the model, its tokenizer and manifest.")],
    records: Annotated[
        int | None, typer.Option(min=1_000, help="Of the other catalogue [default: 200000].")
    ] = None,
    steps: Annotated[int | None, typer.Option(min=1, help="Of training [default: 3800].")] = None,
    as_json: AsJson = False,
) -> None:
    """Make the tiny base model of week 7, in about a quarter of an hour on two cores.

    After a kill, the same command goes on behind the last checkpoint.
    """
    from dataclasses import replace

    from shared.pretraining.base_model import Recipe
    from shared.pretraining.making import make_base

    said = {name: v for name, v in (("records", records), ("steps", steps)) if v is not None}
    manifest = make_base(out, replace(Recipe(), **said), progress=sys.stderr.isatty())
    if as_json:
        print_json(manifest)
    else:
        print(
            f"{manifest['parameters']:,} parameters, {manifest['corpus']['documents']:,} documents "
            f"of other products, {manifest['seconds']:,} s. Median price after documents that "
            f"were not read: off by ${manifest['held_out_dollars']:.2f}. In {out}"
        )


@app.command()
def tune(
    train: Annotated[Path, typer.Option(help="Folder of curated items (see curate).")],
    out: Annotated[Path, typer.Option(help="Folder for the adapter, its log and manifest.")],
    base: Annotated[
        str, typer.Option(help="`tiny`, a folder, or a model of the hub, as Qwen/Qwen3-1.7B-Base.")
    ] = "tiny",
    bits: Annotated[int, typer.Option(help="Of a weight of the base: 4, 8 or 16.")] = 4,
    rank: Annotated[int, typer.Option(min=1, help="Of the adapters; alpha is twice as much.")] = 32,
    targets: Annotated[
        str, typer.Option(help="`all-linear`, or names as q_proj,v_proj.")
    ] = "all-linear",
    rate: Annotated[
        float | None,
        typer.Option(help="Highest learning rate [default: 1e-3 for tiny, else 1e-4]."),
    ] = None,
    epochs: Annotated[
        float | None,
        typer.Option(help="How often an item is seen [default: 2 for tiny, else 1]."),
    ] = None,
    batch: Annotated[int, typer.Option(min=1, help="Items a step on one device.")] = 16,
    accumulate: Annotated[int, typer.Option(min=1, help="Batches a step.")] = 1,
    tokens: Annotated[
        int | None,
        typer.Option(min=1, help="Of a description [default: 100 for tiny, else 180]."),
    ] = None,
    limit: Annotated[int | None, typer.Option(min=1, help="Train on so many items.")] = None,
    seed: Seed = None,
    track: Annotated[
        str, typer.Option(help="trackio (on this machine), wandb or none.")
    ] = "trackio",
    merged: Annotated[
        Path | None, typer.Option(help="Folder for base and adapter as one model.")
    ] = None,
    push_to: Annotated[
        str | None, typer.Option(help="Name of a private repository on the hub to upload to.")
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Fine-tune an open model by QLoRA on the training split; keep the best checkpoint.

    Best is the one with the least error in dollars on the validation split. Stopped or killed,
    the same command goes on behind the last checkpoint. `price --model` then prices with it.
    """
    from dataclasses import replace

    from shared.data import open_items
    from shared.open_models.adapters import merge, push
    from shared.training.fine_tuning import fine_tune, plan_for

    usual = plan_for("tiny" if base == "tiny" else "full")
    said = {"rate": rate, "epochs": epochs, "text_tokens": tokens}
    plan = replace(
        usual, base=base, bits=bits, rank=rank, alpha=2 * rank, targets=targets, batch=batch,
        accumulate=accumulate, limit=limit, seed=settings_for(None, seed=seed).seed,
        **{name: value for name, value in said.items() if value is not None},
    )  # fmt: skip
    items = open_items(train)
    manifest = fine_tune(
        items.table("train"), items.table("validation"), out, plan, track=track,
        progress=sys.stderr.isatty(),
    )  # fmt: skip
    if int(os.environ.get("RANK", "0")):  # of several processes the first one tells
        return
    if merged:
        merge(out, merged)
    address = push(out, push_to) if push_to else None
    if as_json:
        print_json(manifest)
        return
    curve = {entry["step"]: entry for entry in manifest["curve"]}
    before, best = curve.get(0), curve[manifest["best_step"]]
    was = f"${before['eval_dollars']:.2f} before, " if before else ""
    print(
        f"{manifest['trainable_parameters']:,} parameters tuned in {manifest['steps']:,} steps, "
        f"{manifest['seconds']:.0f} s. Error on validation: {was}${best['eval_dollars']:.2f} at "
        f"step {manifest['best_step']:,}. In {out}" + (f", and at {address}" if address else "")
    )
