"""Who tells people of a deal: a log file offline, and whatever apprise can reach.

Every message has a key. A messenger that ``deduplicates`` sends a key once however often it is
asked to; with any other, who crashed between sending and writing that down has to choose.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from shared.frontier.secrets import Secret
from shared.watching.alerts import messenger, sent


class MessengerError(RuntimeError):
    """A message was not sent; it stays in the outbox, and the next run tries again."""


@dataclass(frozen=True)
class Message:
    """What people are told. ``key`` is the same whenever the same offer is meant."""

    key: str
    title: str
    body: str


class Messenger(Protocol):
    """Whoever sends messages."""

    deduplicates: bool

    def send(self, message: Message) -> None:
        """Send a message, or raise MessengerError."""
        ...


class LogMessenger:
    """Writes messages to a file, a line of JSON each, and a key only once: exactly-once, offline.

    A line that a killed process left unfinished is not a message, and is written again.
    """

    deduplicates = True

    def __init__(self, path: Path) -> None:
        self.path = Path(path)

    def send(self, message: Message) -> None:
        """Append the message, unless one of its key is there; raise MessengerError if it fails."""
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            if any(kept["key"] == message.key for kept in self.messages()):
                return
            line = json.dumps(vars(message), ensure_ascii=False)
            torn = self.path.exists() and self.path.read_bytes()[-1:] not in (b"\n", b"")
            with self.path.open("ab") as file:
                file.write(("\n" * torn + line + "\n").encode())
                file.flush()
                os.fsync(file.fileno())
        except OSError as error:
            raise MessengerError(f"{self.path}: cannot be written ({error})") from error

    def messages(self) -> Iterator[dict[str, Any]]:
        """Yield the messages that were sent, the oldest first; damaged lines are passed over."""
        if not self.path.exists():
            return
        with self.path.open("rb") as file:
            for line in file:
                try:
                    value = json.loads(line)
                except ValueError:
                    continue
                if line.endswith(b"\n") and isinstance(value, dict) and "key" in value:
                    yield value


class AppriseMessenger:
    """Sends messages to addresses of apprise ("mailto://…", "ntfys://…"), which are secrets.

    A message counts as sent once one address took it. Receivers know nothing of keys, so after a
    crash at the wrong moment a message may come twice. Raises ValueError for an address that
    apprise does not know; it is not shown, since it holds a password.
    """

    deduplicates = False

    def __init__(self, addresses: Sequence[str]) -> None:
        if not addresses:
            raise ValueError("no address to send to: give at least one, or use a log file")
        self._services = [
            messenger(Secret(address).reveal(), f"{number} of {len(addresses)}")
            for number, address in enumerate(addresses, start=1)
        ]

    def send(self, message: Message) -> None:
        """Send the message as plain text, or raise MessengerError if no address took it."""
        took = [sent(one, message.title, message.body, "info") for one in self._services]
        if not any(took):
            raise MessengerError(f"none of {len(self._services)} addresses took the message")
