"""Fitted pricers on disk, without pickle: opening a model file must not run somebody's code.

A folder holds ``pricer.json`` (name, settings, versions, a checksum of each file; written last),
and the learnt parts, each in the format of its own kind: scikit-learn models and arrays as skops,
networks as safetensors, boosted trees as LightGBM's text, and members of a stack as folders.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from shared.data.storage import file_hash, replacing_folder, versions, write_json
from shared.pricers.fitted import FittedPricer

CARD = "pricer.json"

_OURS = [
    "shared.pricers.words.TextSpace",
    "shared.pricers.boosting.UsualPrice",
    "shared.pricers.neural.HashedWords",
]
_TRUSTED = ["sklearn.tree._tree.Tree", "scipy.sparse._csr.csr_matrix", *_OURS]
"""What skops may make beyond what it knows itself. Our three classes only hold other parts."""


class ModelError(ValueError):
    """A saved pricer cannot be opened; the message names the file and the remedy."""


def save_pricer(pricer: FittedPricer, folder: Path) -> Path:
    """Write a fitted pricer to a folder, which it replaces if it holds a saved pricer already.

    Raises ValueError if the pricer is not fitted, FileExistsError if the folder holds other files.
    """
    if "fitted_on" not in pricer.settings:
        raise ValueError(f"{pricer.name} has not been fitted: there is nothing to save")
    with replacing_folder(folder, CARD, "saved pricer") as building:
        _write(pricer, building)
    return Path(folder)


def load_pricer(folder: Path) -> FittedPricer:
    """Open a folder written by ``save_pricer``; raise ModelError if it is not whole."""
    from shared.pricers.registry import PRICERS

    folder = Path(folder)
    card = _card(folder)
    if card["name"] not in PRICERS:
        raise ModelError(f"{folder}: {card['name']!r} is not one of: {', '.join(PRICERS)}")
    for name, checksum in card["files"].items():
        path = folder / name
        if not path.is_file() or file_hash(path) != checksum:
            raise ModelError(f"{path}: missing or changed since it was saved; fit and save again")
    pricer = PRICERS[card["name"]](seed=card["settings"]["seed"])
    pricer.settings = card["settings"]
    pricer.restore({name: _read(folder, name, kind) for name, kind in card["parts"].items()})
    return pricer


def _card(folder: Path) -> dict:
    try:
        card = json.loads((folder / CARD).read_text(encoding="utf-8"))
        card["name"], card["settings"]["seed"], card["parts"], card["files"].items()
    except FileNotFoundError:
        raise ModelError(
            f"{folder}: holds no {CARD}; make it with: python -m shared fit --pricer NAME "
            f"--train DIR --out {folder}"
        ) from None
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise ModelError(f"{folder / CARD}: damaged ({error!r}); fit and save again") from error
    return card


def _write(pricer: FittedPricer, folder: Path) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    kinds = {name: _write_part(value, folder, name) for name, value in pricer.parts().items()}
    files = sorted(p.relative_to(folder).as_posix() for p in folder.rglob("*") if p.is_file())
    card = {
        "name": pricer.name,
        "settings": pricer.settings,
        "versions": versions(),
        "parts": kinds,
        "files": {name: file_hash(folder / name) for name in files},
    }
    write_json(card, folder / CARD)


def _write_part(value: Any, folder: Path, name: str) -> str:
    kind = type(value).__module__.partition(".")[0]
    if kind == "lightgbm":
        (folder / f"{name}.txt").write_text(value.model_to_string(), encoding="utf-8")
        return "lightgbm"
    if name == "weights" and isinstance(value, list):
        from safetensors.torch import save_file

        tensors = {f"{i}.{k}": t for i, network in enumerate(value) for k, t in network.items()}
        save_file(tensors, folder / f"{name}.safetensors")
        return "safetensors"
    if name == "members":
        for member, pricer in value.items():
            _write(pricer, folder / name / member)
        return f"members: {' '.join(value)}"  # in their order: weights go by it
    import skops.io

    skops.io.dump(value, folder / f"{name}.skops")
    return "skops"


def _read(folder: Path, name: str, kind: str) -> Any:
    if kind == "lightgbm":
        import lightgbm

        return lightgbm.Booster(model_file=folder / f"{name}.txt")
    if kind == "safetensors":
        return _networks(folder / f"{name}.safetensors")
    if kind.startswith("members: "):
        return {member: load_pricer(folder / name / member) for member in kind.split()[1:]}
    import skops.io

    path = folder / f"{name}.skops"
    foreign = set(skops.io.get_untrusted_types(file=path)) - set(_TRUSTED)
    if foreign:
        raise ModelError(f"{path}: refuses to make {sorted(foreign)}: this file is not ours")
    return skops.io.load(path, trusted=_TRUSTED)


def _networks(path: Path) -> list[dict]:
    from safetensors.torch import load_file

    networks: dict[int, dict] = {}
    for key, tensor in load_file(path).items():
        place, _, name = key.partition(".")
        networks.setdefault(int(place), {})[name] = tensor
    return [networks[i] for i in sorted(networks)]
