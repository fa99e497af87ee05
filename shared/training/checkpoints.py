"""Checkpoints that can be trusted: one counts once its list of files has been written, last.

A process may be killed at any moment, in the middle of writing a checkpoint too. What lies in the
folder then may be half of one; it has no list, and is deleted. One whose files no longer are what
the list says (a bad disk, a helpful hand) is passed over, with a warning that names the file.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import warnings
from pathlib import Path
from typing import Any

from shared.data.storage import file_hash, write_json

LIST = "files.json"
"""Written last: names and SHA-256 of all other files of a checkpoint."""


def vouch(folder: Path) -> None:
    """Say that a checkpoint is whole: bring its files to the disk, then list them."""
    files = sorted(path for path in Path(folder).rglob("*") if path.is_file() and path.name != LIST)
    for path in files:
        with path.open("rb") as opened:
            os.fsync(opened.fileno())
    write_json(
        {path.relative_to(folder).as_posix(): file_hash(path) for path in files}, folder / LIST
    )


def whole(folder: Path) -> bool:
    """Say whether a checkpoint has its list and all files are as listed; warn if some are not."""
    try:
        listed = json.loads((folder / LIST).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return False
    for name, wanted in listed.items():
        path = folder / name
        if not path.is_file() or file_hash(path) != wanted:
            warnings.warn(
                f"{path} is missing or damaged: training goes on from an earlier checkpoint",
                stacklevel=2,
            )
            return False
    return True


def checkpoints(folder: Path) -> dict[int, Path]:
    """Return the whole checkpoints in a folder by their step, ascending; delete all others."""
    found = {}
    for path in Path(folder).glob("checkpoint-*"):
        if match := re.fullmatch(r"checkpoint-(\d+)", path.name):
            if whole(path):
                found[int(match[1])] = path
            else:
                shutil.rmtree(path)
    return dict(sorted(found.items()))


def history(checkpoint: Path) -> list[dict[str, Any]]:
    """Return what had been logged when a checkpoint was written, oldest first."""
    state = json.loads((checkpoint / "trainer_state.json").read_text(encoding="utf-8"))
    return state["log_history"]


def best_step(logged: list[dict[str, Any]], steps: list[int]) -> int:
    """Return which of these steps has the least validation dollars; the earlier one of two."""
    dollars = {entry["step"]: entry["eval_dollars"] for entry in logged if "eval_dollars" in entry}
    return min((step for step in steps if step in dollars), key=lambda step: (dollars[step], step))


def keep_only(folder: Path, steps: set[int]) -> None:
    """Delete the checkpoints of other steps."""
    for step, path in checkpoints(folder).items():
        if step not in steps:
            (path / LIST).unlink()  # first: a deletion that is cut off leaves no half checkpoint
            shutil.rmtree(path)
