"""From a plan to a trainer: adapters, TRL's settings, and where progress is shown."""

from __future__ import annotations

import contextlib
import importlib
import math
import os
from collections.abc import Iterator, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa

from shared.open_models.adapters import in_32_bits
from shared.open_models.examples import examples
from shared.open_models.opening import Opened, nothing_to_act_on
from shared.training.trainer import Collator, Journal, PriceTrainer, Tracker, Validation

if TYPE_CHECKING:
    from peft import PeftModel
    from transformers import PreTrainedModel, PreTrainedTokenizerBase, TrainerCallback
    from trl import SFTConfig

    from shared.training.fine_tuning import Plan

LOG = "log.jsonl"
TRACKERS = ("trackio", "wandb")

LOGGED = 60
"""How often a run says its loss."""


def with_adapters(model: PreTrainedModel, plan: Plan) -> PeftModel:
    """Return the model with new adapters, drawn by the plan's seed; B is zero, so nothing changes.

    Adapters are 32 bits on every device: what they learn in a step is less than 16 bits can add.
    """
    import torch
    from peft import LoraConfig, get_peft_model

    targets: Any = plan.targets
    if targets != "all-linear":
        targets = [name.strip() for name in targets.split(",")]
        _check_targets(model, targets)
    for parameter in model.parameters():
        parameter.requires_grad_(False)
    with torch.random.fork_rng(devices=[]), nothing_to_act_on():
        torch.manual_seed(plan.seed)
        tuned = get_peft_model(
            model,
            LoraConfig(
                r=plan.rank, lora_alpha=plan.alpha, lora_dropout=plan.dropout,
                target_modules=targets, task_type="CAUSAL_LM",
            ),
        )  # fmt: skip
    return in_32_bits(tuned)


def _check_targets(model: PreTrainedModel, targets: Sequence[str]) -> None:
    """Refuse names that no matrix has; peft leaves one out in silence if another one is there."""
    linear = [name for name, part in model.named_modules() if "Linear" in type(part).__name__]
    for target in targets:
        if not any(name == target or name.endswith(f".{target}") for name in linear):
            there = sorted({name.rpartition(".")[2] for name in linear} - {"lm_head"})
            raise ValueError(f"targets: no {target!r} in this base, which has {', '.join(there)}")


def steps_of(rows: int, plan: Plan, devices: int = 1) -> int:
    """Return how many steps a plan takes on so many examples."""
    return max(math.ceil(rows * plan.epochs / (plan.batch * plan.accumulate * devices)), 1)


def build_trainer(
    model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, train: pa.Table,
    validation: pa.Table, out: Path, plan: Plan, opened: Opened, *, watch: Any, track: str,
    progress: bool, fresh: bool, replay: Sequence[str] = (),
) -> PriceTrainer:  # fmt: skip
    """Return a trainer that is ready to go. ``fresh``: measure before the first step, too."""
    from transformers import PrinterCallback, ProgressCallback

    tokenizer.padding_side = "left"
    tuned = with_adapters(model, plan)
    measured = examples(validation, tokenizer, plan.text_tokens)
    trainer = PriceTrainer(
        model=tuned,
        args=training_settings(
            plan, opened, len(train) + len(replay), out, progress=progress, fresh=fresh
        ),
        data_collator=Collator(tokenizer.pad_token_id, plan.completion_only),
        train_dataset=examples(train, tokenizer, plan.text_tokens, replay),
        eval_dataset=measured,
        processing_class=tokenizer,
        validation=Validation(measured["prompt"], np.asarray(validation["price"])),
        width=plan.width,
        callbacks=[Journal(out / LOG, watch), *trackers(track, plan, out)],
    )
    trainer.remove_callback(PrinterCallback)
    if watch:  # whoever watches draws, too
        trainer.remove_callback(ProgressCallback)
    in_32_bits(trainer.model)
    return trainer


def training_settings(
    plan: Plan, opened: Opened, rows: int, out: Path, *, progress: bool, fresh: bool
) -> SFTConfig:
    """Return TRL's settings for a plan on a device."""
    from trl import SFTConfig

    on_gpu = opened.device.startswith("cuda")
    steps = steps_of(rows, plan, int(os.environ.get("WORLD_SIZE", "1")))
    every = max(math.ceil(steps / plan.evaluations), 1)
    checkpointing = on_gpu if plan.checkpointing is None else plan.checkpointing
    return SFTConfig(
        output_dir=str(out / "checkpoints"),
        max_steps=steps,
        per_device_train_batch_size=plan.batch,
        per_device_eval_batch_size=max(plan.batch, 32),
        gradient_accumulation_steps=plan.accumulate,
        learning_rate=plan.rate,
        lr_scheduler_type="cosine",
        warmup_steps=max(round(steps * plan.warm_up), 1),
        weight_decay=0.0,
        max_grad_norm=1.0,
        # The states of eight-bit AdamW take a quarter; paged ones move out when memory is short.
        # FSDP shards them instead, and bitsandbytes' do not know sharded weights (its issue 1633).
        optim="paged_adamw_8bit" if on_gpu and not sharded() else "adamw_torch",
        bf16=on_gpu and opened.dtype == "bfloat16",
        fp16=on_gpu and opened.dtype == "float16",
        use_cpu=not on_gpu,
        gradient_checkpointing=checkpointing,  # TRL's default is on
        gradient_checkpointing_kwargs={"use_reentrant": False} if checkpointing else None,
        ddp_find_unused_parameters=False,  # each step uses all adapters
        completion_only_loss=plan.completion_only,
        max_length=None,
        eval_strategy="steps",
        eval_steps=every,
        eval_on_start=fresh,
        save_strategy="steps",
        save_steps=every,
        metric_for_best_model="eval_dollars",
        greater_is_better=False,
        logging_steps=max(steps // LOGGED, 1),
        seed=plan.seed,
        data_seed=plan.seed,
        dataloader_pin_memory=on_gpu,
        disable_tqdm=not progress,
        report_to="none",
        run_name=out.name,
    )


def sharded() -> bool:
    """Say whether ``accelerate launch`` was told to spread the weights over devices by FSDP."""
    return os.environ.get("ACCELERATE_USE_FSDP", "false").lower() == "true"


def trackers(track: str, plan: Plan, out: Path) -> list[TrainerCallback]:
    """Return what sends the log to a tracker, too: "none", "trackio" (on this machine), "wandb".

    Raises ValueError for another name, or if the tracker is not installed.
    """
    if track == "none":
        return []
    if track not in TRACKERS:
        raise ValueError(f"track={track!r}: choose one of none, {', '.join(TRACKERS)}")
    # Beside the run, so that all runs of a folder are on one page, and nothing lies elsewhere.
    os.environ.setdefault("TRACKIO_DIR", str(out.absolute().parent / "trackio"))
    try:
        library = importlib.import_module(track)
    except ModuleNotFoundError:
        raise ValueError(f"{track} is not installed: pip install {track}") from None
    return [Tracker(library, asdict(plan), out.name)]


@contextlib.contextmanager
def quietly() -> Iterator[None]:
    """Keep away what nobody can act on.

    Preparing the data takes a second and has five bars; TRL asks transformers by old names.
    """
    import datasets

    shown = datasets.is_progress_bar_enabled()
    datasets.disable_progress_bars()
    try:
        with nothing_to_act_on():
            yield
    finally:
        if shown:
            datasets.enable_progress_bars()
