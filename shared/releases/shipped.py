"""The release that comes with the course: the shipped student, with its interval and metrics.

``shipped.json`` is its record, and ``shipped_reference.json`` what drift is told from; the model
stays where it is. ``record_shipped`` makes both again when another student is shipped.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path

import pyarrow as pa

from shared.compression.recorded import shipped
from shared.data import Items
from shared.data.storage import versions
from shared.releases.release import Release, files_of, open_model, read_record, write_record

RECORD = Path(__file__).with_name("shipped.json")
VERSION, STUDENT, KIND = "shipped", "small", "student"


def shipped_release() -> Release:
    """Return the shipped student as a release; it opens without PyTorch.

    Raises ReleaseError if its record is damaged, or (on opening) another student was put there.
    """
    return read_record(RECORD, shipped(STUDENT), reference_path(RECORD))


def reference_path(record: Path) -> Path:
    """Return where the reference beside a record is."""
    return record.with_name(f"{record.stem}_reference.json")


def record_shipped(items: Items | Mapping[str, pa.Table], path: Path = RECORD) -> Release:
    """Calibrate the shipped student on items (split -> table), and write its record."""
    from shared.releases.calibrating import calibrate, splits_of

    folder, tables = shipped(STUDENT), splits_of(items)
    found, reference = calibrate(open_model(KIND, folder), tables)
    reference.save(reference_path(path))
    write_record(
        found | {
            "version": VERSION, "kind": KIND, "files": files_of(folder), "versions": versions(),
            "created": datetime.now(UTC).isoformat(timespec="seconds"),
            "note": "comes with the course, measured on embedded items",
        },
        path,
    )  # fmt: skip
    return read_record(path, folder, reference_path(path))
