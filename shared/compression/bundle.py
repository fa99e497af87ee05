"""An ensemble with all its members in one folder: what a teacher of this kind takes on disk."""

from __future__ import annotations

import json
import shutil
from collections.abc import Mapping
from pathlib import Path

from shared.compression.exported import ExportError
from shared.compression.measuring import Opening
from shared.compression.probe import OPENERS, open_pricer
from shared.data.storage import replacing_folder, write_json
from shared.ensembles import Ensemble, EnsemblePricer, open_ensemble

ENSEMBLE, MEMBERS = "ensemble.json", "members.json"


def bundle(ensemble: Ensemble, members: Mapping[str, Opening], folder: Path) -> Path:
    """Copy an ensemble and its members, by their names, to a folder; an older bundle is replaced.

    Raises ValueError for a member that has no folder here, FileExistsError if ``folder`` holds
    anything else.
    """
    if lacking := [name for name in ensemble.names if name not in members]:
        raise ValueError(f"{ensemble.name}: no folder is given for {', '.join(lacking)}")
    with replacing_folder(folder, MEMBERS, "ensemble") as building:
        kinds = {}
        for number, name in enumerate(ensemble.names, start=1):
            place = f"member-{number}"
            shutil.copytree(members[name].folder, building / place)
            kinds[name] = {"kind": members[name].kind, "folder": place}
        ensemble.save(building / ENSEMBLE)
        write_json(kinds, building / MEMBERS)
    return Path(folder)


def open_bundle(folder: Path, threads: int = 1) -> EnsemblePricer:
    """Open what ``bundle`` wrote, with all its members, to price with no time limit.

    Raises ExportError for a folder that is none, and what the members raise if they are damaged.
    """
    path = Path(folder) / MEMBERS
    try:
        kinds = json.loads(path.read_text(encoding="utf-8"))
        places = {name: (str(one["kind"]), str(one["folder"])) for name, one in kinds.items()}
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise ExportError(f"{path}: is no list of members ({error!r}); bundle it again") from error
    for kind, place in places.values():
        if kind not in OPENERS:  # "room.module:name" would run what a file says
            raise ExportError(f"{path}: kind {kind!r} is not one of: {', '.join(OPENERS)}")
        if Path(place).name != place or place in ("", ".."):
            raise ExportError(f"{path}: names {place!r}, which is outside of this folder")
    ensemble = open_ensemble(Path(folder) / ENSEMBLE)
    pricers = [open_pricer(kind, Path(folder) / place, threads) for kind, place in places.values()]
    return EnsemblePricer(ensemble, pricers, time_limit=None)
