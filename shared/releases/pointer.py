"""Which version answers: a pointer that is replaced as a whole, and the history beside it.

The pointer holds the event that set it. If a process is killed between writing the pointer and
writing the history, the event is told from the pointer, and written with the next change.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from shared.data.storage import write_json
from shared.releases.history import event, read_lines
from shared.releases.release import ReleaseError
from shared.watching.lines import append_lines

CURRENT, HISTORY = "current.json", "history.jsonl"
REMEMBERED = 100
"""Versions before the current one that the pointer keeps."""


class Pointer:
    """The current version of a registry's folder, those before it, and the history.

    Whoever changes something holds the registry's lock.
    """

    def __init__(self, folder: Path) -> None:
        self._path, self._history = folder / CURRENT, folder / HISTORY

    @property
    def version(self) -> str | None:
        """The current version, None if none was promoted yet. Raises ReleaseError if damaged."""
        found = self._read()
        return found and found["version"]

    @property
    def before(self) -> list[str]:
        """The versions that were current before, the last one last."""
        found = self._read()
        return list(found["before"]) if found else []

    def events(self) -> list[dict[str, Any]]:
        """Return what was done, in its order."""
        found, _ = read_lines(self._history)
        pointer = self._read()
        return found if pointer is None or _told(found, pointer) else [*found, pointer["event"]]

    def tell(self, what: str, version: str, why: str, by: str | None, **more: Any) -> None:
        """Add an event to the history."""
        append_lines(self._history, [event(what, version, why, by, **more)])

    def move(
        self, what: str, version: str, before: list[str], why: str, by: str | None, **more: Any
    ) -> None:
        """Let another version be the current one; ``before`` are those to go back to."""
        written, _ = read_lines(self._history)
        events = self.events()
        changes = [e["change"] for e in events if isinstance(e.get("change"), int)]
        told = event(what, version, why, by, **more) | {"change": max(changes, default=0) + 1}
        append_lines(self._history, events[len(written) :])
        pointer = {"version": version, "before": before[-REMEMBERED:], "event": told}
        write_json(pointer, self._path)
        append_lines(self._history, [told])

    def _read(self) -> dict[str, Any] | None:
        try:
            pointer = json.loads(self._path.read_text(encoding="utf-8"))
            texts = [pointer["version"], *pointer["before"], pointer["event"]["what"]]
            if not all(isinstance(text, str) for text in texts):
                raise TypeError("names are texts")
            pointer["event"]["change"] + 0
        except FileNotFoundError:
            return None
        except (OSError, ValueError, KeyError, TypeError, RecursionError) as error:
            raise ReleaseError(
                f"{self._path}: damaged ({error!r}); delete it, and promote a version again"
            ) from error
        return pointer


def _told(events: list[dict[str, Any]], pointer: dict[str, Any]) -> bool:
    return any(one.get("change") == pointer["event"]["change"] for one in events)
