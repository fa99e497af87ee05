"""Alerts: one for each incident, to whom it concerns, and a record of them that survives a crash.

The record is a file of JSON lines, written before anything is sent. So an incident is recorded
once; a message is sent once, too, unless the process is killed between sending and writing that
it was sent: then once more, since an alert twice is better than none.
"""

from __future__ import annotations

import contextlib
import logging
import os
import time as clock
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import orjson

from shared.frontier.secrets import get_secret
from shared.watching.lines import append_lines, wait_for_others, whole_lines

if TYPE_CHECKING:
    from apprise import Apprise

    from shared.watching.watch import Signal

VARIABLE = "PRICE_ALERTS"
"""Environment variable with addresses, divided by spaces."""


@dataclass
class Incident:
    """What is wrong since ``opened`` (Unix seconds), in words; ``told``: messengers that know."""

    name: str
    said: str
    opened: float
    told: set[int] = field(default_factory=set)


class Alerts:
    """Tells of incidents: to the addresses, or to the console alone where there are none.

    ``addresses`` are Apprise's URLs, such as ``mailto://…`` or ``ntfy://…``. They hold tokens:
    they are never shown or written, a messenger is known by its place in the list. Raises
    ValueError for one that Apprise does not know.
    """

    def __init__(self, addresses: Sequence[str], log: Path, console: bool = True) -> None:
        self.log, self.console = Path(log), console
        self._messengers = [
            messenger(address, f"{number} of {len(addresses)}")
            for number, address in enumerate(addresses, 1)
        ]

    def take(self, signals: Sequence[Signal], time: float | None = None) -> list[Incident]:
        """Open, tell and clear incidents by what signals say now; return the newly opened.

        An incident stays open, and is told once, until its signal is quiet again. A messenger
        that fails is asked again at the next call. Signals without a value change nothing.
        """
        now = clock.time() if time is None else time
        with self._alone():
            before = self.open()
            alarms, quiet = _by_incident(signals)
            opened = [n for n in alarms if n not in before]
            cleared = [n for n in quiet if n in before]
            rows = [{"time": now, "event": "opened", "incident": n, "said": alarms[n]}
                    for n in opened]  # fmt: skip
            rows += [{"time": now, "event": "cleared", "incident": n} for n in cleared]
            append_lines(self.log, rows)
            self._print(*(f"ALERT {n}: {alarms[n]}" for n in opened))
            self._print(*(f"cleared: {n}" for n in cleared))
            standing = self.open()
            for incident in standing.values():
                self._tell(incident, now)
            return [standing[name] for name in opened]

    def open(self) -> dict[str, Incident]:
        """Return the incidents that have not cleared, by name, the oldest first."""
        found: dict[str, Incident] = {}
        for block in whole_lines(self.log):
            for line in block.splitlines():
                with contextlib.suppress(ValueError, KeyError, TypeError, AttributeError):
                    _replay(orjson.loads(line), found)
        return found

    def _tell(self, incident: Incident, now: float) -> None:
        for number, messenger in enumerate(self._messengers, 1):
            if number in incident.told:
                continue
            took = sent(messenger, f"Price watch: {incident.name}", incident.said)
            event = "told" if took else "failed"
            row = {"time": now, "event": event, "incident": incident.name, "messenger": number}
            append_lines(self.log, [row])
            if event == "failed":
                self._print(f"messenger {number} failed; it is asked again at the next look")

    def _print(self, *lines: str) -> None:
        if self.console:
            print(*lines, sep="\n", flush=True) if lines else None

    @contextlib.contextmanager
    def _alone(self) -> Iterator[None]:
        """Keep a second watch from telling of the same incident meanwhile."""
        self.log.parent.mkdir(parents=True, exist_ok=True)
        with self.log.with_name(f"{self.log.name}.lock").open("ab") as file:
            wait_for_others(file)
            yield


def addresses(file: Path | None = None, variable: str = VARIABLE) -> list[str]:
    """Return the addresses of a file, one a line, or else of an environment variable.

    Raises ValueError if the file cannot be read, or if others than its owner can read it.
    """
    if file is None:
        secret = get_secret(variable)
        return secret.reveal().split() if secret else []
    try:
        if os.name == "posix" and Path(file).stat().st_mode & 0o077:
            raise ValueError(f"{file} holds tokens, and others can read it: chmod 600 {file}")
        lines = Path(file).read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        reason = getattr(error, "strerror", None) or "it is no text"
        raise ValueError(f"{file}: cannot be read ({reason})") from None
    return [line.strip() for line in lines if line.strip() and not line.lstrip().startswith("#")]


def incident_of(name: str) -> str:
    """Return the incident that a signal belongs to: both tests of a column tell of the same."""
    return name.removesuffix(" KS").removesuffix(" PSI")


def _by_incident(signals: Sequence[Signal]) -> tuple[dict[str, str], list[str]]:
    """Return what is said of each incident, and which signals found nothing."""
    tested = [signal for signal in signals if signal.value == signal.value]
    loud = sorted((s for s in tested if s.alarm), key=lambda s: s.p if s.p == s.p else 0.0)
    alarms = {incident_of(s.name): s.said for s in reversed(loud)}
    quiet = dict.fromkeys(incident_of(s.name) for s in tested)
    return alarms, [name for name in quiet if name not in alarms]


def _replay(row: dict[str, Any], found: dict[str, Incident]) -> None:
    name, event = row["incident"], row["event"]
    if event == "opened":
        found.setdefault(name, Incident(name, str(row["said"]), float(row["time"])))
    elif event == "cleared":
        found.pop(name, None)
    elif event == "told" and name in found:
        found[name].told.add(int(row["messenger"]))


def messenger(address: str, place: str) -> Apprise:
    """Return what sends to an address, in silence. Raises ValueError, without it, if it is none.

    ``place``: how it is called instead, such as "1 of 2".
    """
    import apprise

    one = apprise.Apprise()
    with _silent():
        known = one.add(address)
    if not known:
        raise ValueError(
            f"address {place} is none that Apprise knows; see its list of services. It is not "
            "shown here, since it may hold a token"
        )
    return one


def sent(messenger: Apprise, title: str, body: str, kind: str = "warning") -> bool:
    """Send plain text and return whether it was taken; whatever a messenger raises, it was not."""
    with _silent():
        try:
            return bool(messenger.notify(body, title, kind, body_format="text"))
        except Exception:  # its plugins are other people's, and so are their servers
            return False


_TALKATIVE = ("apprise", "urllib3", "urllib3.connectionpool", "httpx", "httpcore")


@contextlib.contextmanager
def _silent() -> Iterator[None]:
    """Keep what handles addresses from logging: they would be in it, tokens and all."""
    logs = [logging.getLogger(name) for name in _TALKATIVE]
    before = [log.disabled for log in logs]
    try:
        for log in logs:
            log.disabled = True
        yield
    finally:
        for log, was in zip(logs, before, strict=True):
            log.disabled = was
