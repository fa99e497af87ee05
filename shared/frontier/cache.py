"""Replies that were paid for, kept in SQLite: a second run makes no call.

JSON only: a cache of pickles runs whatever is in it. A reply is stored when it arrives, so a
process that is killed has bought nothing twice.
"""

from __future__ import annotations

import sqlite3
import threading
from pathlib import Path

from shared.frontier.messages import Reply

_SCHEMA = "CREATE TABLE IF NOT EXISTS replies (key TEXT PRIMARY KEY, reply TEXT NOT NULL)"


class Cache:
    """Key of a request -> its reply, in a file that several processes may use. Thread-safe."""

    def __init__(self, path: Path) -> None:
        self.path = Path(path)
        self.path.parent.mkdir(parents=True, exist_ok=True)
        self._lock = threading.Lock()
        try:
            self._database = sqlite3.connect(self.path, timeout=30, check_same_thread=False)
            self._database.execute("PRAGMA journal_mode=WAL")
            self._database.execute("PRAGMA synchronous=NORMAL")  # survives kill -9
            self._database.execute(_SCHEMA)
            self._database.execute("SELECT key, reply FROM replies LIMIT 0")
        except sqlite3.Error as error:
            other = "not a database" in str(error) or "no such column" in str(error)
            remedy = (
                "is not a cache of replies; move it away, and what it held is asked again"
                if other
                else "cannot be opened for writing; look at its rights and at the disk"
            )
            raise ValueError(f"{self.path} {remedy} ({error})") from error

    def get(self, key: str) -> Reply | None:
        """Return the stored reply, or None; one that cannot be read counts as none."""
        with self._lock:
            row = self._database.execute(
                "SELECT reply FROM replies WHERE key = ?", (key,)
            ).fetchone()
        try:
            return Reply.from_json(row[0]) if row else None
        except (ValueError, KeyError, TypeError):
            return None

    def put(self, key: str, reply: Reply) -> None:
        """Store a reply; when this returns, it outlives the process."""
        with self._lock, self._database:
            self._database.execute(
                "INSERT OR REPLACE INTO replies VALUES (?, ?)", (key, reply.to_json())
            )

    def __len__(self) -> int:
        with self._lock:
            return self._database.execute("SELECT count(*) FROM replies").fetchone()[0]

    def close(self) -> None:
        """Close the file."""
        with self._lock:
            self._database.close()
