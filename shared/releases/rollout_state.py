"""What a rollout keeps between processes: one file, replaced as a whole, and read when it changed.

Attempts and pairs are not in it: they are appended to a log, by all processes.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from shared.data.storage import write_json
from shared.releases.release import ReleaseError
from shared.releases.sequential import Look, Plan

FILE = "rollout.json"
UNDER_WAY, PROMOTED, ROLLED_BACK, GIVEN_UP = "under way", "promoted", "rolled back", "given up"

_TEXTS = ("id", "status", "why", "candidate", "old")
_NUMBERS = ("share", "seconds", "days", "started", "latest")


class StateFile:
    """The state of a registry's rollout, under way or the last one that ended."""

    def __init__(self, folder: Path) -> None:
        self.path, self._seen = folder / FILE, None

    def read(self) -> dict[str, Any] | None:
        """Return the state, None if there is none; ReleaseError if it is damaged."""
        try:
            state = json.loads(self.path.read_text(encoding="utf-8"))
            Plan(**state["plan"]), [Look(**one) for one in state["looks"]]
            if not all(isinstance(state[name], str) for name in _TEXTS):
                raise TypeError(f"{', '.join(_TEXTS)} are texts")
            if not all(isinstance(state[name], int | float) for name in _NUMBERS):
                raise TypeError(f"{', '.join(_NUMBERS)} are numbers")
            if Path(state["id"]).name != state["id"]:
                raise ValueError(f"{state['id']!r} is a path")
        except FileNotFoundError:
            return None
        except (OSError, ValueError, KeyError, TypeError, RecursionError) as error:
            raise ReleaseError(
                f"{self.path}: damaged ({error!r}); delete it to end the rollout"
            ) from error
        return state

    def write(self, state: dict[str, Any]) -> dict[str, Any]:
        """Replace the state, and return it."""
        write_json(state, self.path)
        return state

    def latest(self, state: dict[str, Any]) -> dict[str, Any]:
        """Return the state as another process may have left it; without a file it is given up."""
        try:
            found = self.path.stat()
            mark = (found.st_mtime_ns, found.st_ino, found.st_size)
        except FileNotFoundError:
            mark = None
        if mark is not None and mark == self._seen:
            return state
        there, self._seen = self.read(), mark
        if there is not None and there["id"] == state["id"]:
            return there
        gone = {"status": GIVEN_UP, "why": f"{FILE} was deleted, or is that of another rollout"}
        return state | gone if state["status"] == UNDER_WAY else state
