"""Fine-tune a language model to price products, by QLoRA: one function, from items to adapter.

The base stays as it is, in four bits; beside each of its matrices W two thin ones are learnt, and
what is computed is W x + (alpha / rank) B A x (Hu et al., 2021; Dettmers et al., 2023).

On several GPUs of a machine, with the same plan and code, ``batch`` examples on each:

    accelerate launch --config_file shared/training/fsdp2.yaml -m shared tune --train DIR --out DIR
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import math
import os
import shutil
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from shared.data.storage import file_hash, fingerprint, replacing, versions, write_json
from shared.open_models.adapters import ADAPTER, CONFIG, MANIFEST
from shared.open_models.opening import Opened, about, fingerprint_of, open_model
from shared.training import checkpoints
from shared.training.failures import TrainingError, explained

PLAN = "plan.json"


@dataclass(frozen=True)
class Plan:
    """How a base is tuned.

    ``bits``: of a weight of the base (4, 8, 16). ``targets``: which matrices get adapters,
    "all-linear" or names with commas. ``rate``: the highest learning rate; it rises in the first
    ``warm_up`` of the steps and falls along a cosine. ``batch``: examples a step on one device,
    times ``accumulate``. ``text_tokens``: of a description. ``completion_only``: compute the loss
    on the price only, not on the text before it. ``width``: of soft price targets, on the log
    scale; 0 for none. ``limit``: train on so many items, drawn by ``seed``; None for all.
    ``evaluations``: how often validation is priced, on ``validation`` items, and a checkpoint kept.
    ``checkpointing``: compute activations twice instead of keeping them; None: on a GPU only.
    """

    base: str = "tiny"
    bits: int = 4
    rank: int = 32
    alpha: int = 64
    dropout: float = 0.0
    targets: str = "all-linear"
    rate: float = 1e-3
    epochs: float = 2.0
    batch: int = 16
    accumulate: int = 1
    warm_up: float = 0.03
    text_tokens: int = 100
    completion_only: bool = True
    width: float = 0.0
    limit: int | None = None
    evaluations: int = 8
    validation: int = 500
    checkpointing: bool | None = None
    seed: int = 42

    def __post_init__(self) -> None:
        """Refuse settings that cannot be trained with."""
        whole = ("rank", "alpha", "batch", "accumulate", "text_tokens", "evaluations", "validation")
        for name in (*whole, "rate", "epochs"):
            if not 0 < getattr(self, name) < math.inf:
                raise ValueError(f"{name}={getattr(self, name)!r}: a number above 0 is needed")
        if self.limit is not None and self.limit < 1:
            raise ValueError(f"limit={self.limit}: at least 1 item is needed")


def plan_for(profile: str, **changes: Any) -> Plan:
    """Return the plan of a profile (tiny, colab, full), with some settings changed.

    Colab's free T4 trains a base of 1.7 billion weights, a large GPU one of eight; both are open
    to everybody. Whoever has access to Llama says ``base="meta-llama/Llama-3.1-8B"``.
    """
    plans = {
        "tiny": Plan(),
        "colab": Plan(
            base="Qwen/Qwen3-1.7B-Base", epochs=1.0, rate=2e-4, text_tokens=180, batch=4,
            accumulate=4, limit=10_000, validation=200, evaluations=5,
        ),
        "full": Plan(
            base="Qwen/Qwen3-8B-Base", epochs=1.0, rate=1e-4, text_tokens=180, batch=16,
            validation=1_000,
        ),
    }  # fmt: skip
    if profile not in plans:
        raise ValueError(f"profile {profile!r} is not one of {', '.join(plans)}")
    return replace(plans[profile], **changes)


def fine_tune(
    train: pa.Table, validation: pa.Table, out: Path, plan: Plan | None = None, *,
    watch: Callable[[list[dict[str, Any]]], None] | None = None, track: str = "none",
    keep_all: bool = False, progress: bool = True, replay: Sequence[str] = (),
) -> dict[str, Any]:  # fmt: skip
    """Tune a base on items (ITEM schema), write the best adapter to ``out``, return its manifest.

    Best is the checkpoint with the least error in dollars on ``validation``. A finished run of the
    same plan and items is opened, an interrupted one goes on behind its last checkpoint, to the
    same adapter. ``watch`` gets the history whenever something was logged; ``track`` is "none",
    "trackio" or "wandb"; ``keep_all`` keeps the adapters of all checkpoints; ``replay``: texts
    that are learnt along with the items (see ``examples``).

    Raises TrainingError: another run's folder, a full disk, too little memory.
    """
    plan, out = plan or Plan(), Path(out)
    for name, items in (("training", train), ("validation", validation)):
        if not len(items):
            raise TrainingError(
                f"there are no {name} items: checkpoints are chosen on validation, and a curated "
                "source has all three splits from some dozens of products on"
            )
    try:
        out.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise TrainingError(f"{out}: no folder to write to ({error.strerror})") from error
    with _alone(out):
        order = np.random.default_rng(plan.seed).permutation(len(train))[: plan.limit]
        train = train.take(order)
        validation = validation.slice(0, plan.validation)
        request = {
            "plan": asdict(plan), "train": fingerprint(train), "validation": fingerprint(validation)
        }  # fmt: skip
        if replay:
            request["replay"] = hashlib.sha256("\n".join(replay).encode()).hexdigest()[:16]
        if found := _finished(out, request):
            return found
        with explained(plan, out):
            return _run(
                train, validation, out, plan, request, replay,
                watch=watch, track=track, keep_all=keep_all, progress=progress,
            )  # fmt: skip


def _run(
    train: pa.Table, validation: pa.Table, out: Path, plan: Plan, request: dict[str, Any],
    replay: Sequence[str], *, watch: Any, track: str, keep_all: bool, progress: bool,
) -> dict[str, Any]:  # fmt: skip
    from accelerate import PartialState

    from shared.training.building import LOG, build_trainer, quietly
    from shared.training.trainer import seconds_logged

    model, tokenizer, opened = open_model(plan.base, plan.bits)
    work = out / "checkpoints"
    processes = PartialState(cpu=opened.device == "cpu")
    with processes.main_process_first():  # it writes and tidies, the others find it done
        if processes.is_main_process:
            write_json(request | {"base": about(opened)}, out / PLAN)
        done = checkpoints.checkpoints(work)
    last = max(done, default=None)
    start, before = time.perf_counter(), seconds_logged(out / LOG)
    with quietly():
        trainer = build_trainer(
            model, tokenizer, train, validation, out, plan, opened,
            watch=watch, track=track, progress=progress, fresh=last is None, replay=replay,
        )  # fmt: skip
        trainer.train(resume_from_checkpoint=str(done[last]) if last else None)
    seconds = before + time.perf_counter() - start
    with trainer.accelerator.main_process_first():
        if trainer.is_world_process_zero():
            return _finish(trainer, out, request, opened, keep_all, seconds)
    return json.loads((out / MANIFEST).read_text(encoding="utf-8"))


def _finish(
    trainer: Any, out: Path, request: dict[str, Any], opened: Opened, keep_all: bool,
    seconds: float,
) -> dict[str, Any]:  # fmt: skip
    """Copy the best adapter, then say so in the manifest, then tidy up."""
    work = out / "checkpoints"
    kept = checkpoints.checkpoints(work)
    logged = trainer.state.log_history
    best = checkpoints.best_step(logged, list(kept))
    with replacing(out / ADAPTER) as temporary:
        shutil.copyfile(kept[best] / ADAPTER, temporary)
    found = json.loads((kept[best] / CONFIG).read_text(encoding="utf-8"))
    # An older peft warns of settings that it does not know, though they are not set.
    config = {name: value for name, value in found.items() if value is not None}
    # By name, not by where the base lies on this machine; and a set has another order each time.
    config["base_model_name_or_path"] = opened.base
    config["target_modules"] = sorted(config["target_modules"])
    write_json(config, out / CONFIG)
    trainable = sum(p.numel() for p in trainer.model.parameters() if p.requires_grad)
    manifest = request | {
        "base": about(opened),
        "best_step": best,
        "steps": trainer.state.global_step,
        "trainable_parameters": trainable,
        "curve": [_rounded(entry) for entry in logged if "eval_dollars" in entry],
        "losses": [_rounded(entry) for entry in logged if "loss" in entry],
        "seconds": round(seconds, 1),
        "sha256": {name: file_hash(out / name) for name in (ADAPTER, CONFIG)},
        "versions": versions(),
    }
    write_json(manifest, out / MANIFEST)
    if not keep_all:
        checkpoints.keep_only(work, {best})
    return manifest


def _rounded(entry: dict[str, Any]) -> dict[str, Any]:
    names = ("step", "loss", "eval_dollars", "eval_greedy_dollars", "eval_price_loss")
    return {name: round(entry[name], 4) for name in names if name in entry}


def _finished(out: Path, request: dict[str, Any]) -> dict[str, Any] | None:
    """Return the manifest of a finished run; raise TrainingError if the folder is another's."""
    for name in (MANIFEST, PLAN):
        path = out / name
        if not path.exists():
            continue
        try:
            found = json.loads(path.read_text(encoding="utf-8"))
            if isinstance(found, dict) and "plan" not in found:
                raise TrainingError(f"{out} holds something else ({name}): use another folder")
            keys = ("plan", "train", "validation", "replay")
            changed = [key for key in keys if found.get(key) != request.get(key)]
            if "plan" in changed:
                old, new = found["plan"], request["plan"]
                changed = [f"{key} {old.get(key)!r}" for key in new if old.get(key) != new[key]]
        except (ValueError, KeyError, AttributeError) as error:
            raise TrainingError(f"{path} is damaged ({error!r}): delete {out}") from error
        here = fingerprint_of(request["plan"]["base"])  # of a base on the hub: its name
        if here not in (request["plan"]["base"], found.get("base", {}).get("fingerprint")):
            changed.append("other weights of the base")
        if changed:
            raise TrainingError(
                f"{out} holds another run ({', '.join(changed)}): use another folder"
            )
        if name == MANIFEST:
            return found
    return None


@contextlib.contextmanager
def _alone(out: Path) -> Iterator[None]:
    """Let one process at a time train in a folder; those of one launch are one."""
    from filelock import FileLock, Timeout

    if int(os.environ.get("RANK", "0")) > 0:
        yield
        return
    try:
        with FileLock(out / ".lock", timeout=0):
            yield
    except Timeout:
        raise TrainingError(f"another process trains in {out}: wait for it") from None
