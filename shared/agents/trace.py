"""A run as a file: one line of JSON for each thing that happened, written as it happens.

No key gets in: every text is searched for them. A damaged line, as a kill leaves it, is passed
over when reading, and counted.
"""

from __future__ import annotations

import json
import math
import sqlite3
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from shared.frontier.secrets import redact

Listener = Callable[[dict[str, Any]], None]


class Trace:
    """Writes what happens to a new file, and tells a listener of it; both may be missing.

    Raises FileExistsError if the file is there: a trace is one run's.
    """

    def __init__(self, path: Path | None = None, listener: Listener | None = None) -> None:
        self.path, self._listener, self._file = path and Path(path), listener, None
        if self.path:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            self._file = self.path.open("x", encoding="utf-8")

    def write(self, event: str, **said: Any) -> None:
        """Write one event; numbers that are none become null."""
        line = {"event": event, **_clean(said)}
        if self._file:
            self._file.write(json.dumps(line, ensure_ascii=False, allow_nan=False) + "\n")
            self._file.flush()
        if self._listener:
            self._listener(line)

    def close(self) -> None:
        """Close the file."""
        if self._file:
            self._file.close()

    def __enter__(self) -> Trace:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def _clean(value: Any) -> Any:
    if isinstance(value, str):
        return redact(value.encode("utf-8", "replace").decode())
    if isinstance(value, dict):
        return {_clean(str(name)): _clean(each) for name, each in value.items()}
    if isinstance(value, list | tuple):
        return [_clean(each) for each in value]
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return value if value is None or isinstance(value, bool | int | float) else _clean(str(value))


@dataclass(frozen=True)
class Recorded:
    """A trace that was read. ``damaged``: lines that could not be."""

    path: Path
    events: tuple[dict[str, Any], ...]
    damaged: int = 0

    def all(self, event: str) -> Iterator[dict[str, Any]]:
        """Yield the events of a kind, in their order."""
        return (e for e in self.events if e["event"] == event)

    def first(self, event: str) -> dict[str, Any]:
        """Return the first event of a kind, or {} if there is none."""
        return next(self.all(event), {})

    @property
    def finished(self) -> bool:
        """Whether the run came to its end."""
        return bool(self.first("end"))


def read_trace(path: Path) -> Recorded:
    """Read a trace; ValueError if the file is none, or if its beginning is lost."""
    events, damaged = [], 0
    try:
        with Path(path).open("rb") as file:
            for line in file:
                event = _event(line)
                damaged += event is None
                events += [event] if event else []
    except OSError as error:
        raise ValueError(f"{path}: cannot be read ({error})") from error
    if not any(event["event"] == "run" for event in events):
        raise ValueError(f"{path}: no trace of the deal finder, or its beginning is lost")
    return Recorded(Path(path), tuple(events), damaged)


@contextmanager
def readable(trace: Recorded) -> Iterator[None]:
    """Turn whatever a trace of another make breaks in the block into a ValueError naming it."""
    try:
        yield
    except (LookupError, TypeError, ValueError, AttributeError, ArithmeticError,
            sqlite3.Error) as error:  # fmt: skip
        why = f"{type(error).__name__}: {error}"[:200]
        raise ValueError(f"{trace.path}: not as the deal finder writes it ({why})") from error


def _event(line: bytes) -> dict[str, Any] | None:
    try:
        value = json.loads(line)
    except (ValueError, RecursionError):
        return None
    named = isinstance(value, dict) and isinstance(value.get("event"), str)
    return value if named else None
