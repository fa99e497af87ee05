"""A model registry in a folder: versions that never change, and a pointer to the current one.

    registry.json      says that the folder is a registry
    v1/release.json    the record of a version, written last; v1/model/ the model's own files
    current.json       which version answers, and those before it; replaced as a whole
    history.jsonl      who added, promoted and rolled back what, when and why

A process may be killed anywhere: a version is whole or not there, and so is a promotion.
"""

from __future__ import annotations

import contextlib
import json
import re
import shutil
import tempfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pyarrow as pa
from filelock import FileLock, Timeout

from shared.data import Items
from shared.data.storage import versions as library_versions
from shared.data.storage import write_json
from shared.releases.calibrating import calibrate, splits_of
from shared.releases.history import now
from shared.releases.pointer import Pointer
from shared.releases.release import (
    DIGEST,
    Release,
    ReleaseError,
    copy_files,
    open_model,
    read_record,
    refuse_kind,
    write_record,
)

MARK, FORMAT = "registry.json", 1
RECORD, MODEL, REFERENCE = "release.json", "model", "reference.json"
BUILDING = ".adding-"
PATIENCE = 60.0
"""Seconds to wait for another process that changes the pointer, which takes it milliseconds."""

_VERSION = re.compile(r"v[1-9][0-9]{0,8}")


class Registry:
    """Versions of models in a folder. Several processes may use it at once.

    The folder is made when the first version is added. Raises ReleaseError if it holds anything
    else.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = Path(folder).absolute()
        self._pointer = Pointer(self.folder)
        if self.folder.exists() and not self.folder.is_dir():
            raise ReleaseError(f"{folder} is a file, and a registry is a folder: choose another")
        if not (self.folder / MARK).is_file() and _others(self.folder):
            raise ReleaseError(f"{folder} holds files that are no registry: choose another folder")
        self._refuse_other_format()

    def add(
        self, kind: str, folder: Path, *, items: Items | Mapping[str, pa.Table],
        coverage: float = 0.9, note: str = "", seed: int = 42, by: str | None = None,
    ) -> Release:  # fmt: skip
        """Copy a model into the registry as a new version, calibrated and measured on items.

        ``items``: curated items, or split -> table; the interval comes from "validation", which
        the model must not have learnt from, and "test" is measured where it is there. The new
        version answers nothing until it is promoted. Raises ReleaseError for an unknown kind, for
        links in the folder and for too few items, OSError if the disk is full.
        """
        refuse_kind(kind)
        tables, source = splits_of(items), Path(folder)
        if self.folder.is_relative_to(source.absolute()):
            raise ReleaseError(f"{folder} contains the registry itself: give the model's folder")
        with self._adding() as building:
            files = copy_files(source, building / MODEL)
            opened = open_model(kind, building / MODEL)  # what is measured is what was copied
            found, reference = calibrate(opened, tables, coverage, seed)
            reference.save(building / REFERENCE)
            version = f"v{self._last() + 1}"
            write_record(
                found | {
                    "version": version, "kind": kind, "files": files,
                    "versions": library_versions(), "created": now(), "note": note,
                },
                building / RECORD,
            )  # fmt: skip
            building.chmod(0o755)  # mkdtemp makes it private; versions are meant to be shared
            building.rename(self.folder / version)  # which fails if the name is taken
        with self._changing():
            self._pointer.tell("added", version, note, by)
        return self.release(version)

    def versions(self) -> list[Release]:
        """Return all versions whose model is there, oldest first; see ``damaged`` for others."""
        whole = [r for r in self._records().values() if isinstance(r, Release)]
        return [release for release in whole if not release.pruned]

    def damaged(self) -> dict[str, str]:
        """Return the versions whose record cannot be read, and why."""
        return {v: str(r) for v, r in self._records().items() if not isinstance(r, Release)}

    def release(self, version: str) -> Release:
        """Return a version by its name, such as "v3".

        Raises ReleaseError if there is none, if its model was pruned, or its record is damaged.
        """
        if not isinstance(version, str) or not _VERSION.fullmatch(version):
            raise ReleaseError(f"{version!r} is no name of a version: it is as v3")
        folder = self.folder / version
        if any(path.is_symlink() for path in (folder, folder / MODEL, folder / RECORD)):
            raise ReleaseError(f"{folder}: is a link, or holds one; a registry keeps files alone")
        if not folder.is_dir():
            there = ", ".join(f"v{n}" for n in self._numbers()) or "none yet"
            raise ReleaseError(f"{self.folder}: there is no {version}; there are: {there}")
        release = read_record(folder / RECORD, folder / MODEL, folder / REFERENCE)
        if release.version != version:
            raise ReleaseError(f"{folder}: holds the record of {release.version}: it was renamed")
        return release

    def current(self) -> Release:
        """Return the version that answers; ReleaseError if none was promoted yet."""
        if (version := self.current_version) is None:
            raise ReleaseError(
                f"{self.folder}: no version was promoted yet; add one, and promote it: "
                "python -m shared release promote VERSION"
            )
        return self.release(version)

    @property
    def current_version(self) -> str | None:
        """The name of the version that answers, None if none was promoted yet."""
        return self._pointer.version

    def before(self) -> list[str]:
        """Return the versions that answered before the current one and are still there."""
        there = {release.version for release in self.versions()}
        return [version for version in self._pointer.before if version in there]

    def promote(
        self, version: str, why: str, *, by: str | None = None, expected: str | None = None,
        **numbers: Any,
    ) -> Release:  # fmt: skip
        """Let a version answer from now on. ``numbers`` go into the history with the reason.

        Nothing happens if it does already. ``expected``: the version that should be current now;
        raises ReleaseError if another one is, and if a file of the model is not as it was.
        """
        release = self.release(version)
        release.check()
        with self._changing():
            current, before = self._expect(expected), self._pointer.before
            if (again := self.release(version)).pruned:  # meanwhile
                again.check()
            if current != version:
                before += [current] if current else []
                self._pointer.move("promoted", version, before, why, by, **numbers)
        return release

    def rollback(
        self, why: str, *, by: str | None = None, expected: str | None = None
    ) -> Release:  # fmt: skip
        """Let the version before the current one answer again, and return it.

        ``expected``: the version to go back from, so that two who see the same trouble do not go
        back twice. Raises ReleaseError if there is none before, or it is not what it was.
        """
        with self._changing():
            self._expect(expected)
            if not (before := self.before()):
                raise ReleaseError(f"{self.folder}: there is no version to go back to")
            release = self.release(before[-1])
            release.check()
            self._pointer.move("rolled back", release.version, before[:-1], why, by)
        return release

    def note(self, what: str, version: str, why: str, by: str | None = None, **more: Any) -> None:
        """Write something else about a version into the history, with its numbers."""
        with self._changing():
            self._pointer.tell(what, version, why, by, **more)

    def history(self) -> list[dict[str, Any]]:
        """Return what was done, in its order: dicts with time, by, what, version and why."""
        return self._pointer.events()

    def prune(self, keep: int = 3, *, spare: str | None = None, by: str | None = None) -> list[str]:
        """Delete the models of all versions but the newest ``keep``; return which.

        The current one, the one before it and ``spare`` stay. Records stay, too: they say what
        answered when, and their names are not given again. Raises ValueError if ``keep`` is < 0.
        """
        if keep < 0:
            raise ValueError(f"keep {keep} versions: it is 0 or more")
        with self._adding(), self._changing():
            there = [release.version for release in self.versions()]
            newest = there[-keep:] if keep else []
            kept = {self._pointer.version, *self.before()[-1:], spare, *newest}
            gone = [version for version in there if version not in kept]
            for version in gone:
                self._mark_pruned(self.folder / version / RECORD)
                self._pointer.tell("pruned", version, "", by)
            for release in self._records().values():  # those of a process that was killed, too
                if isinstance(release, Release) and release.pruned:
                    shutil.rmtree(release.folder, ignore_errors=True)
            return gone

    def _mark_pruned(self, path: Path) -> None:
        record = json.loads(path.read_text(encoding="utf-8"))
        del record[DIGEST]
        write_record(record | {"pruned": now()}, path)

    def _numbers(self) -> list[int]:
        if not self.folder.is_dir():
            return []
        names = [path.name for path in self.folder.iterdir()]
        return sorted(int(name[1:]) for name in names if _VERSION.fullmatch(name))

    def _last(self) -> int:
        """Return the highest number ever given, though somebody deleted that version's folder."""
        told = [str(e.get("version")) for e in self.history() if e.get("what") == "added"]
        told = [int(version[1:]) for version in told if _VERSION.fullmatch(version)]
        return max([*self._numbers(), *told], default=0)

    def _records(self) -> dict[str, Release | ReleaseError]:
        found: dict[str, Release | ReleaseError] = {}
        for version in (f"v{number}" for number in self._numbers()):
            try:
                found[version] = self.release(version)
            except ReleaseError as error:
                found[version] = error
        return found

    def _refuse_other_format(self) -> None:
        path = self.folder / MARK
        try:
            if json.loads(path.read_text(encoding="utf-8"))["format"] != FORMAT:
                raise ValueError("another format")
        except (FileNotFoundError, NotADirectoryError):
            return
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise ReleaseError(f"{path}: is no mark of a registry of ours ({error!r})") from error

    def _expect(self, expected: str | None) -> str | None:
        """Return the current version; ReleaseError if it is not the expected one."""
        current = self._pointer.version
        if expected is not None and current != expected:
            raise ReleaseError(f"{self.folder}: {current} is current by now, and not {expected}")
        return current

    def _make(self) -> None:
        self.folder.mkdir(parents=True, exist_ok=True)
        if not (self.folder / MARK).is_file():
            write_json({"holds": "versions of models", "format": FORMAT}, self.folder / MARK)

    @contextlib.contextmanager
    def _changing(self) -> Iterator[None]:
        """Hold the registry's lock, which is gone with the process that holds it."""
        self._make()
        try:
            with FileLock(self.folder / ".changing.lock", timeout=PATIENCE):
                yield
        except Timeout:
            raise ReleaseError(
                f"{self.folder}: another process has been changing it for {PATIENCE:g} s"
            ) from None

    @contextlib.contextmanager
    def _adding(self) -> Iterator[Path]:
        """Yield an empty folder in the registry, one process at a time; the second one waits."""
        self._make()
        with FileLock(self.folder / ".adding.lock"):
            for rest in self.folder.glob(f"{BUILDING}*"):  # of a process that was killed
                shutil.rmtree(rest, ignore_errors=True)
            building = Path(tempfile.mkdtemp(prefix=BUILDING, dir=self.folder))
            try:
                yield building
            finally:
                shutil.rmtree(building, ignore_errors=True)


def _others(folder: Path) -> bool:
    """Whether a folder holds anything but the beginnings of a registry."""
    names = [path.name for path in folder.iterdir()] if folder.is_dir() else []
    return any(not name.startswith((f".{MARK}", ".adding", ".changing")) for name in names)
