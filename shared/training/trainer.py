"""TRL's trainer, taught to measure in dollars and to compute only the logits that are needed.

What stays TRL's: data, optimizer, schedule, mixed precision, several devices, resuming. What is
ours: padding on the left, so that all labels lie at the end of a batch and the head of the model,
often its largest matrix, is computed there only; and validation in dollars.
"""

from __future__ import annotations

import contextlib
import io
import json
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch.nn.functional import cross_entropy
from transformers import Trainer, TrainerCallback
from trl import SFTTrainer

from shared.open_models.reading import read_prices
from shared.pretraining.base_model import price_targets, price_tokens
from shared.training import checkpoints

IGNORED = -100
"""The label of a token whose loss is not computed."""


@dataclass(frozen=True)
class Validation:
    """Products to measure on during training: prompts, and what they cost in dollars."""

    prompts: Sequence[str]
    dollars: np.ndarray


@dataclass
class Collator:
    """Makes a batch of TRL's rows, padded on the left."""

    pad: int
    completion_only: bool

    def __call__(self, rows: list[dict[str, list[int]]]) -> dict[str, torch.Tensor]:
        """Return ``input_ids``, ``attention_mask`` and ``labels``, each (rows, longest)."""
        width = max(len(row["input_ids"]) for row in rows)
        ids = torch.full((len(rows), width), self.pad)
        mask, labels = torch.zeros_like(ids), torch.full_like(ids, IGNORED)
        for at, row in enumerate(rows):
            tokens = torch.tensor(row["input_ids"])
            start = width - len(tokens)
            ids[at, start:], mask[at, start:] = tokens, 1
            labels[at, start:] = self._labels(row, tokens)
        return {"input_ids": ids, "attention_mask": mask, "labels": labels}

    def _labels(self, row: dict[str, list[int]], tokens: torch.Tensor) -> torch.Tensor:
        if not self.completion_only:
            return tokens
        if "labels" in row:  # TRL from 1.0 on
            return torch.tensor(row["labels"])
        return torch.where(torch.tensor(row["completion_mask"]) == 1, tokens, IGNORED)


class PriceTrainer(SFTTrainer):
    """An SFTTrainer whose ``evaluate`` reads prices, and whose checkpoints can be trusted."""

    def __init__(self, *args: Any, validation: Validation, width: float = 0.0, **more: Any) -> None:
        """Take TRL's arguments; ``width`` above 0 teaches a price as a bell (price_targets)."""
        super().__init__(*args, **more)
        self._validation = validation
        self._bell = self._numbers = None
        if width:
            self._numbers = price_tokens(self.processing_class).to(self.args.device)
            self._bell = price_targets(width).to(self.args.device)

    def compute_loss(
        self, model: Any, inputs: dict[str, Any], return_outputs: bool = False,
        num_items_in_batch: Any = None,
    ) -> Any:  # fmt: skip
        """Return the mean loss of the labelled tokens; the head is computed for no others."""
        labels = inputs.pop("labels")
        first = int((labels != IGNORED).any(0).nonzero()[0])
        keep = labels.shape[1] - max(first, 1) + 1  # the token before the first label predicts it
        outputs = model(**inputs, use_cache=False, logits_to_keep=keep)
        logits, wanted = outputs.logits[:, :-1].float(), labels[:, 1 - keep :]
        total = self._total_loss(logits, wanted)
        count = (wanted != IGNORED).sum() if num_items_in_batch is None else num_items_in_batch
        loss = total / count
        if num_items_in_batch is not None and self.args.average_tokens_across_devices:
            loss = loss * self.accelerator.num_processes  # gradients are averaged over processes
        return (loss, outputs) if return_outputs else loss

    def _total_loss(self, logits: torch.Tensor, wanted: torch.Tensor) -> torch.Tensor:
        if self._bell is None:
            return cross_entropy(
                logits.flatten(0, 1), wanted.flatten(), ignore_index=IGNORED, reduction="sum"
            )
        logs = torch.log_softmax(logits, -1)[wanted != IGNORED]
        wanted = wanted[wanted != IGNORED]
        is_price, price = (wanted[:, None] == self._numbers[None, :]).max(1)
        plain = -logs.gather(1, wanted[:, None])[:, 0]
        soft = -(self._bell[price] * logs[:, self._numbers]).sum(1)
        return torch.where(is_price, soft, plain).sum()

    def evaluate(self, *args: Any, metric_key_prefix: str = "eval", **more: Any) -> dict:
        """Read the validation prices; log the mean error of the median, and the price's loss.

        Of several processes each reads all of them: where weights are sharded, a forward pass
        takes all processes, and the same batches.
        """
        found = read_prices(
            self.model, self.processing_class, self._validation.prompts,
            batch=self.args.per_device_eval_batch_size,
        )  # fmt: skip
        wanted = self._validation.dollars
        metrics = {
            f"{metric_key_prefix}_dollars": float(np.abs(found.median - wanted).mean()),
            f"{metric_key_prefix}_greedy_dollars": float(np.abs(found.mode - wanted).mean()),
            f"{metric_key_prefix}_price_loss": float(found.losses(wanted).mean()),
        }
        self.log(metrics)
        self.control = self.callback_handler.on_evaluate(
            self.args, self.state, self.control, metrics
        )
        return metrics

    def save_model(self, output_dir: str | None = None, _internal_call: bool = False) -> None:
        """Write the adapter. Where weights are sharded, gather it, and not the base beside it."""
        if not self.is_fsdp_enabled:
            super().save_model(output_dir, _internal_call)
            return
        gathered = {
            name: getattr(weight, "full_tensor", lambda own=weight: own)().detach().cpu()
            for name, weight in self.model.named_parameters()
            if weight.requires_grad
        }
        self._save(output_dir, state_dict=gathered)  # by the first process only

    def _save_checkpoint(self, model: Any, trial: Any) -> None:
        # Not TRL's, which writes a model card into every checkpoint first.
        Trainer._save_checkpoint(self, model, trial)
        self.accelerator.wait_for_everyone()  # each process writes the state of its random numbers
        if self.args.should_save:
            folder = Path(self.args.output_dir) / f"checkpoint-{self.state.global_step}"
            checkpoints.vouch(folder)


class Journal(TrainerCallback):
    """Appends all that is logged to a file of JSON lines, and hands the whole history on."""

    def __init__(self, path: Path, watch: Callable[[list[dict[str, Any]]], None] | None) -> None:
        self._path, self._watch, self._start = path, watch, time.perf_counter()

    def on_log(self, args: Any, state: Any, control: Any, logs: Any = None, **more: Any) -> None:
        """Write what was logged: step, epoch, losses, dollars, seconds since the start."""
        if not state.is_world_process_zero or not logs:
            return
        entry = {"step": state.global_step, **logs}
        entry["seconds"] = round(time.perf_counter() - self._start, 2)
        with self._path.open("a", encoding="utf-8") as file:
            file.write(json.dumps(entry) + "\n")
        if self._watch:
            self._watch(state.log_history)


def seconds_logged(log: Path) -> float:
    """Return how long the parts of a run took that a log tells of; each began at 0 again."""
    parts = [0.0]
    for line in log.read_text(encoding="utf-8").splitlines() if log.exists() else ():
        with contextlib.suppress(ValueError, KeyError, TypeError):  # a kill may cut a line short
            seconds = json.loads(line)["seconds"]
            parts += [seconds] if seconds < parts[-1] else []
            parts[-1] = seconds
    return sum(parts)


class Tracker(TrainerCallback):
    """Sends what is logged to a tracker with the calls that trackio and W&B have in common.

    trackio keeps it on this machine (`trackio show` opens its page); W&B sends it to an account.
    """

    def __init__(self, library: Any, settings: dict[str, Any], name: str) -> None:
        self._library, self._settings, self._name = library, settings, name

    def on_train_begin(self, args: Any, state: Any, control: Any, **more: Any) -> None:
        """Open a run."""
        if state.is_world_process_zero:
            with contextlib.redirect_stdout(io.StringIO()):  # five lines about itself
                self._library.init(project="price-course", name=self._name, config=self._settings)

    def on_log(self, args: Any, state: Any, control: Any, logs: Any = None, **more: Any) -> None:
        """Send the numbers."""
        if state.is_world_process_zero and logs:
            numbers = {name: v for name, v in logs.items() if isinstance(v, int | float)}
            self._library.log(numbers, step=state.global_step)

    def on_train_end(self, args: Any, state: Any, control: Any, **more: Any) -> None:
        """Close the run."""
        if state.is_world_process_zero:
            with contextlib.redirect_stdout(io.StringIO()):
                self._library.finish()
