"""A pricer that answers in a unit of its own: what a model says, times a factor.

The models of the course give numbers from 0.5 to 999.49. Whoever estimates rents of 300 to 5,000
EUR a month lets a model say tens of EUR, and puts it into such a folder.
"""

from __future__ import annotations

import json
import math
import shutil
from collections.abc import Sequence
from pathlib import Path

from shared.compression import probe
from shared.compression.exported import ExportError
from shared.compression.measuring import Opening
from shared.data.schema import Product
from shared.data.storage import replacing_folder, write_json
from shared.evaluation.protocol import Estimates

SCALED, MODEL = "scaled.json", "model"


class ScaledPricer:
    """A pricer times ``scale``, whose estimates are in ``unit`` instead of dollars."""

    def __init__(self, pricer, scale: float, unit: str) -> None:
        self.pricer, self.scale, self.unit = pricer, scale, unit
        self.name, self.label = pricer.name, getattr(pricer, "label", "")
        self.settings = dict(getattr(pricer, "settings", None) or {}) | {
            "scale": scale, "unit": unit,
        }  # fmt: skip

    def price(self, products: Sequence[Product]) -> Estimates:
        """Estimate the number of each product, in ``unit``; NaN with its reason where it failed."""
        found = self.pricer.price(products)
        bounds = (None if b is None else b * self.scale for b in (found.low, found.high))
        found.price = found.price * self.scale
        found.low, found.high = bounds
        return found


def write_scaled(model: Opening, folder: Path, scale: float, unit: str) -> Path:
    """Copy a model to a folder that ``open_scaled`` opens; an older one of its kind is replaced.

    Raises ValueError for a scale that is no number above 0, FileExistsError if ``folder`` holds
    anything else.
    """
    if not 0 < scale < math.inf:
        raise ValueError(f"scale {scale!r} is no number above 0")
    with replacing_folder(folder, SCALED, "scaled model") as building:
        shutil.copytree(model.folder, building / MODEL)
        write_json({"kind": model.kind, "scale": scale, "unit": unit}, building / SCALED)
    return Path(folder)


def open_scaled(folder: Path, threads: int = 1) -> ScaledPricer:
    """Open what ``write_scaled`` wrote. Raises ExportError, and what the model inside raises."""
    path = Path(folder) / SCALED
    try:
        said = json.loads(path.read_text(encoding="utf-8"))
        kind, scale, unit = str(said["kind"]), float(said["scale"]), str(said["unit"])
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise ExportError(f"{path}: is no scaled model ({error!r}); write it again") from error
    # "room.module:name" would run what a file says, and a scaled one could hold itself.
    if kind not in probe.OPENERS or kind == "scaled" or not 0 < scale < math.inf:
        raise ExportError(f"{path}: names the kind {kind!r} and the scale {scale!r}")
    return ScaledPricer(probe.open_pricer(kind, Path(folder) / MODEL, threads), scale, unit)
