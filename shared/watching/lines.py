"""Files of JSON lines that several processes append to, and that survive being killed."""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any, BinaryIO

BLOCK = 1 << 22
"""Bytes that are read at once: a long log is never in memory as text."""


def append_lines(path: Path, rows: Iterable[Mapping[str, Any]]) -> None:
    """Append a line a row, all in one write, while other processes wait.

    When this returns, a killed process loses nothing of it. What another one had written of a
    line when it was killed becomes a line of its own, which readers leave out.
    """
    lines = b"".join(json.dumps(row, allow_nan=False).encode() + b"\n" for row in rows)
    if not lines:
        return
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("ab+") as file:
        wait_for_others(file)
        end = file.seek(0, os.SEEK_END)
        if end:
            file.seek(end - 1)
            lines = lines if file.read(1) == b"\n" else b"\n" + lines
        file.write(lines)


def whole_lines(path: Path) -> Iterator[bytes]:
    """Yield a file's lines in blocks of many, without a last one that is still being written.

    A file that is not there has no lines.
    """
    try:
        file = path.open("rb")
    except FileNotFoundError:
        return
    with file:
        rest = b""
        while block := file.read(BLOCK):
            whole, end, rest = (rest + block).rpartition(b"\n")
            if end:
                yield whole + end


def wait_for_others(file: BinaryIO) -> None:
    """Lock a file until it is closed; where the system cannot (Windows), use one process."""
    try:
        import fcntl

        fcntl.flock(file, fcntl.LOCK_EX)
    except (ImportError, OSError):
        return
