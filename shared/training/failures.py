"""What a machine lacks for training, said with numbers and a remedy: memory, room on its disk."""

from __future__ import annotations

import contextlib
import errno
import re
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from shared.pretraining.making import TINY

if TYPE_CHECKING:
    from shared.training.fine_tuning import Plan

FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
"""A disk without room, an account at its limit, a file larger than is allowed."""

PROMPT_TOKENS = 30
"""About how many tokens the question and the answer have, beside the description."""


class TrainingError(RuntimeError):
    """Training that cannot start, go on or finish; the message says why, and what to do."""


@contextlib.contextmanager
def explained(plan: Plan, out: Path) -> Iterator[None]:
    """Turn what a machine lacks into an error that says what to do about it."""
    import torch

    try:
        yield
    except torch.OutOfMemoryError as error:
        raise TrainingError(_memory_advice(plan, str(error))) from error
    except Exception as error:
        said = str(error)
        code = re.search(r"os error (\d+)", said)  # safetensors names it in its message
        number = int(code[1]) if code else getattr(error, "errno", None)
        if number in FULL or "PytorchStreamWriter" in said:
            free = shutil.disk_usage(out).free / 1e6
            raise TrainingError(
                f"{out}: the disk is full ({free:,.0f} MB are free). Earlier checkpoints are "
                "whole: make room, and the same call goes on behind the last one"
            ) from error
        if "can't allocate memory" in said:
            raise TrainingError(_memory_advice(plan, said)) from error
        raise


def _memory_advice(plan: Plan, said: str) -> str:
    """Say with numbers what would take less memory."""
    import torch
    from transformers import AutoConfig

    from shared.open_models.memory import Device, MemoryPlan, Shape

    lines = [f"out of memory: {said.splitlines()[0][:200]}"]
    try:
        config = AutoConfig.from_pretrained(TINY if plan.base == "tiny" else plan.base)
        memory = MemoryPlan(
            Shape.of(config), batch=plan.batch, length=plan.text_tokens + PROMPT_TOKENS,
            bits=plan.bits, rank=plan.rank, labelled_tokens=2, targets=plan.targets,
            compute_bits=16 if torch.cuda.is_available() else 32,
        )  # fmt: skip
        lines.append(f"what this plan takes, computed:\n{memory}")
        if torch.cuda.is_available():
            found = torch.cuda.get_device_properties(0)
            card = Device(found.name, found.total_memory / 2**30, (found.major, found.minor))
            lines += memory.advice(card)
    except (OSError, ValueError) as error:
        lines.append(f"its parts could not be computed ({error})")
    lines.append(
        f"halve --batch ({plan.batch}) and double --accumulate ({plan.accumulate}): the same steps "
        "in half of the activations; the same call goes on behind its last checkpoint only with "
        "the same plan, so use a new folder"
    )
    return "\n".join(lines)
