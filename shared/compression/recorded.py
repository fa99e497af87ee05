"""The recorded run of compression, and the students that are shipped with the course.

``tests/benchmarks/compression.py --write`` makes both.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

from shared.compression.measuring import Measured, Spent
from shared.evaluation import Comparison

if TYPE_CHECKING:
    from shared.compression.pruning import Pruned

FILE = Path(__file__).with_name("recorded") / "compression.json"
SHIPPED = Path(__file__).with_name("shipped")
EXPECTED = "expected.json"
"""In that folder: products, and what the originals of the shipped students say they cost."""


def shipped(name: str = "small") -> Path:
    """Return the folder of a shipped student, for ``StudentPricer``.

    Raises ValueError naming those that there are.
    """
    there = sorted(path.name for path in SHIPPED.iterdir() if path.is_dir())
    if name not in there:
        raise ValueError(f"there is no shipped student {name!r}, only: {', '.join(there)}")
    return SHIPPED / name


def recorded() -> dict[str, Any]:
    """Return the recorded run: its date, versions, items, seconds, and what was tried."""
    return json.loads(FILE.read_text(encoding="utf-8"))


def recorded_rows(teacher: str) -> list[Measured]:
    """Return what was measured of a teacher, "tuned" or "ensemble", and of its students."""
    return [
        Measured(**row | {
            "against": row["against"] and Comparison(**row["against"]),
            "spent": Spent(**row["spent"]),
        })
        for row in recorded()["rows"][teacher]
    ]  # fmt: skip


def recorded_pruning() -> list[Pruned]:
    """Return what leaving out rows, weights and columns cost a student of the ensemble."""
    from shared.compression.pruning import Pruned  # which needs PyTorch

    return [Pruned(**row) for row in recorded()["pruning"]]
