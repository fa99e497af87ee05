"""The history of a registry: who changed what, when and why, a line of JSON each.

Only ever appended to (``shared.watching.lines``). A process that is killed while it writes leaves
half a line, which is read over.
"""

from __future__ import annotations

import getpass
import json
from datetime import UTC, datetime
from pathlib import Path
from typing import Any


def read_lines(path: Path, start: int = 0) -> tuple[list[Any], int]:
    """Return the values of a file's whole lines from a position on, and the position behind them.

    A damaged line is left out; half a line at the end is left for the next time.
    """
    try:
        with path.open("rb") as file:
            file.seek(start)
            content = file.read()
    except FileNotFoundError:
        return [], start
    whole = content[: content.rfind(b"\n") + 1]
    found = []
    for line in whole.splitlines():
        try:
            found.append(json.loads(line))
        except ValueError:
            continue
    return [value for value in found if isinstance(value, dict)], start + len(whole)


def event(what: str, version: str, why: str, by: str | None, **more: Any) -> dict[str, Any]:
    """Return an event as it is written: what happened to which version, and by whom."""
    return {
        "time": now(), "by": by or user(), "what": what, "version": version, "why": why, **more,
    }  # fmt: skip


def now() -> str:
    """Return the date and time, UTC. Order goes by the place of a line: clocks are set back."""
    return datetime.now(UTC).isoformat(timespec="seconds")


def user() -> str:
    """Return the name of whoever runs this, or 'unknown' where the system has none."""
    try:
        return getpass.getuser()
    except (OSError, KeyError, ImportError):  # a container's user may have no name
        return "unknown"
