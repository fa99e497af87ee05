"""A release: one version of a model, all that is known of it, and how it is opened.

A record in JSON vouches for every file of the model. It guards against accidents, such as a
half-copied file; somebody who may write to the folder can change file and record together.
"""

from __future__ import annotations

import hashlib
import json
import math
import os
import shutil
import stat
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from shared.compression.probe import OPENERS, open_pricer
from shared.data.schema import Product
from shared.data.storage import file_hash, write_json
from shared.evaluation.protocol import Estimates

if TYPE_CHECKING:
    from shared.watching import Reference

ENSEMBLE = "ensemble"
KINDS = (*OPENERS, ENSEMBLE)
"""Kinds of models that are opened, a closed list: exported, tuned, fitted, and bundles of them."""

_REMEDY = {
    "shipped": "record it anew: python -m shared release shipped --items DIR",
}

DIGEST = "digest"
"""In a record: a hash of all that it says itself."""


class ReleaseError(ValueError):
    """A release or registry cannot be used; the message names the file and the remedy."""


@dataclass(frozen=True)
class Release:
    """One version of a model.

    ``kind`` is one of ``KINDS``, ``folder`` holds the model's own files, and ``files`` their
    SHA-256. An interval runs from price / ``factor`` to price * ``factor``, which is to cover a
    share ``coverage`` of new products. ``metrics``: for "validation" and "test", where they were
    measured, what ``shared.evaluation.score`` returns (errors in dollars, 95 % intervals, and the
    share that the intervals did cover). ``items``: split -> fingerprint. ``created``: UTC.
    ``pruned``: when the model was deleted, "" if it is there. ``reference_file``: what drift is
    told from, if it was kept.
    """

    version: str
    name: str
    kind: str
    folder: Path
    factor: float
    coverage: float
    metrics: dict[str, dict[str, Any]]
    items: dict[str, str]
    created: str
    label: str = ""
    files: dict[str, str] = field(default_factory=dict, repr=False)
    settings: dict[str, Any] | None = field(default=None, repr=False)
    versions: dict[str, str] = field(default_factory=dict, repr=False)
    seed: int = 42
    note: str = ""
    pruned: str = ""
    reference_file: Path | None = field(default=None, repr=False)

    def check(self) -> None:
        """Compare the model's files with the record.

        Raises ReleaseError naming a file that is missing, changed, or more than was recorded.
        """
        if self.pruned:
            raise ReleaseError(f"{self.version} was pruned on {self.pruned}: choose another")
        there = files_of(self.folder)
        for name in sorted(set(there) | set(self.files)):
            if there.get(name) != self.files.get(name):
                how = "changed" if name in there and name in self.files else "missing"
                how = how if name in self.files else "not part of this version"
                raise ReleaseError(
                    f"{self.folder / name}: {how}, so {self.version} is not what was released; "
                    f"{_REMEDY.get(self.version, 'promote another version, and add this one anew')}"
                )

    def open(self, threads: int = 1) -> ReleasedPricer:
        """Check and open the model. Raises ReleaseError, and what the model's own room raises."""
        self.check()
        return ReleasedPricer(self, open_model(self.kind, self.folder, threads))

    def reference(self) -> Reference | None:
        """Return what drift is told from, or None if none was kept with this version.

        Raises ValueError naming the file if it is damaged.
        """
        if self.reference_file is None or not self.reference_file.is_file():
            return None
        from shared.watching import Reference

        return Reference.open(self.reference_file)


class ReleasedPricer:
    """A pricer that gives its interval with each price, and says which version it is."""

    def __init__(self, release: Release, pricer: Any) -> None:
        self.pricer, self.factor = pricer, release.factor
        self.name, self.version, self.label = release.name, release.version, release.label
        self.unit = getattr(pricer, "unit", "USD")  # of a model in another domain, such as rents
        self.settings = {"version": release.version, "files": release.files}

    def price(self, products: Sequence[Product]) -> Estimates:
        """Estimate the price of each product in dollars, with its interval.

        A failed estimate is NaN with its reason. Raises ValueError if the model returns another
        number of prices than it got products.
        """
        found = self.pricer.price(products)
        found = found if isinstance(found, Estimates) else Estimates(found)
        if len(found.price) != len(products):
            raise ValueError(
                f"{self.name} ({self.version}) returned {len(found.price)} prices for "
                f"{len(products)} products"
            )
        return widened(found, self.factor)


def widened(found: Estimates, factor: float) -> Estimates:
    """Give estimates their intervals: from price / factor to price * factor, in dollars."""
    found.low, found.high = found.price / factor, found.price * factor
    return found


def open_model(kind: str, folder: Path, threads: int = 1) -> Any:
    """Open a model's folder; ReleaseError for a kind that is none of ``KINDS``."""
    refuse_kind(kind)
    if kind != ENSEMBLE:
        return open_pricer(kind, folder, threads)
    from shared.compression.bundle import open_bundle

    return open_bundle(folder, threads)


def refuse_kind(kind: Any) -> None:
    """Raise ReleaseError unless ``kind`` is one of ``KINDS``: a record must not choose code."""
    if kind not in KINDS:
        raise ReleaseError(f"kind {kind!r} is not one of: {', '.join(KINDS)}")


def files_of(folder: Path) -> dict[str, str]:
    """Return the SHA-256 of each file below a folder, by its path in it.

    Raises ReleaseError if there is none, and naming a link, pipe or device: only plain files and
    folders can be copied and vouched for.
    """
    folder = Path(folder)
    if folder.is_symlink() or not folder.is_dir():
        raise ReleaseError(f"{folder}: is a link or no folder, and a folder is needed")
    found = {}
    for place, folders, names in os.walk(folder):
        for path in (Path(place) / name for name in [*folders, *names]):
            mode = path.lstat().st_mode
            if stat.S_ISREG(mode):
                found[path.relative_to(folder).as_posix()] = file_hash(path)
            elif not stat.S_ISDIR(mode):
                raise ReleaseError(f"{path}: is a link or no plain file; put the file itself there")
    if not found:
        raise ReleaseError(f"{folder}: is empty, and a model is needed")
    return found


def copy_files(source: Path, target: Path) -> dict[str, str]:
    """Copy the files of a folder, and return their hashes.

    Raises ReleaseError as ``files_of`` does, and if they change meanwhile; OSError if the disk is
    full.
    """
    files = files_of(source)
    for name in files:
        (target / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(source / name, target / name)
    if files_of(target) != files:
        raise ReleaseError(f"{source}: changed while it was copied; add it again")
    return files


def write_record(record: Mapping[str, Any], path: Path) -> None:
    """Write a release's record with its own hash; NaN is refused."""
    write_json({**record, DIGEST: _digest(record)}, path)


def read_record(path: Path, folder: Path, reference: Path | None = None) -> Release:
    """Return the release that a record describes, whose model is in ``folder``.

    Raises ReleaseError if the record is missing, damaged or changed, or of an unknown kind.
    """
    try:
        record = json.loads(path.read_text(encoding="utf-8"))
        own = record.pop(DIGEST)
    except FileNotFoundError:
        raise ReleaseError(f"{path}: missing, so there is no whole release") from None
    except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise ReleaseError(f"{path}: damaged ({error!r}); promote another version") from error
    if own != _digest(record):
        raise ReleaseError(f"{path}: changed since it was written; promote another version")
    try:
        release = Release(**record, folder=folder, reference_file=reference)
        _refuse_nonsense(release)
    except (TypeError, AttributeError) as error:
        raise ReleaseError(f"{path}: is no record of a release ({error})") from error
    return release


def _refuse_nonsense(release: Release) -> None:
    refuse_kind(release.kind)
    if not (isinstance(release.factor, float) and 1 <= release.factor < math.inf):
        raise ReleaseError(f"{release.version}: factor {release.factor!r} is no number from 1")
    if any(not isinstance(one, dict) for one in (release.metrics, release.items, release.files)):
        raise TypeError("metrics, items and files map names to values")


def _digest(record: Mapping[str, Any]) -> str:
    return hashlib.sha256(json.dumps(record, sort_keys=True).encode()).hexdigest()
