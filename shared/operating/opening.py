"""What is served: a shipped model, a folder, or a version of a registry, by name."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from shared.serving.service import Observe, Router

if TYPE_CHECKING:
    from shared.watching import Reference

SHIPPED = ("small", "smallest", "tuned")
"""Models that come with the course: two students, and the tuned language model."""


class Served(NamedTuple):
    """What a service needs of a model: the pricer, its version, and what drift is told from."""

    pricer: Any
    version: str
    reference: Reference | None = None
    router: Router | None = None


def open_served(
    pricer: str | Path | None = None, *, registry: Path | None = None, version: str | None = None
) -> Served:
    """Open a model. Without arguments: the release that is shipped with the course.

    ``pricer`` is one of ``SHIPPED``, or a folder that ``fit``, ``fine_tune``, an export or a
    bundle of an ensemble left. ``registry``: a folder of releases; its ``version``, or the
    current one, and then a canary release that is under way takes its share of the requests.
    Raises ValueError naming what there is.
    """
    if registry is None and version is not None:
        raise ValueError("--model names a version of a registry: say which, with --registry FOLDER")
    if registry is not None and pricer is not None:
        raise ValueError("a version of a registry, or a pricer: leave one of them out")
    if registry is not None:
        return _of_registry(Path(registry), version)
    if pricer is None:
        return _released(_shipped())
    opened = _named(str(pricer)) if str(pricer) in SHIPPED else _of_folder(Path(pricer))
    return Served(*opened)


def observer(served: Served, file: Path) -> Observe:
    """Return what keeps observations of a service in a file of JSON lines.

    Raises ValueError if the model came without a reference (then nobody knows its vocabulary), and
    OSError if the file cannot be written.
    """
    from shared.watching import ObservationLog, observe

    if served.reference is None:
        raise ValueError(
            f"{served.version} has no reference to watch it by; serve a release of a registry"
        )
    file.parent.mkdir(parents=True, exist_ok=True)
    file.open("ab").close()  # said now: later, who watches must not disturb
    log, vocabulary = ObservationLog(file), served.reference.vocabulary

    def keep(products: Any, estimates: Any, *, version: str, request: str) -> None:
        log.append(
            observe(products, estimates, vocabulary=vocabulary, version=version, request=request)
        )

    return keep


def _shipped() -> Any:
    from shared.releases import shipped_release

    return shipped_release()


def _of_registry(folder: Path, version: str | None) -> Served:
    from shared.releases import Registry
    from shared.releases.rollout import Rollout

    registry = Registry(folder)
    router = None if version else Rollout.under_way(registry)
    release = registry.release(version) if version else registry.current()
    if router and router.summary()["old"] != release.version:  # promoted by hand meanwhile
        router.look({})
        router = None
    return _released(release)._replace(router=router)


def _released(release: Any) -> Served:
    pricer = release.open()
    return Served(pricer, pricer.version, release.reference())


def _named(name: str) -> tuple[Any, str]:
    if name == "tuned":
        from shared.open_models.adapters import TUNED

        return _tuned(TUNED)
    from shared.compression.recorded import shipped

    return _of_folder(shipped(name))


def _of_folder(folder: Path) -> tuple[Any, str]:
    if not folder.is_dir():
        from shared.pricers import PRICERS

        if str(folder) in PRICERS:
            raise ValueError(
                f"{str(folder)!r} has to learn first: python -m shared fit --pricer '{folder}' "
                "--train ITEMS --out FOLDER, and then serve --pricer FOLDER"
            )
        raise ValueError(f"no folder {folder}; there are also: {', '.join(SHIPPED)}")
    return _opener(folder)(folder)


def _opener(folder: Path) -> Callable[[Path], tuple[Any, str]]:
    """Return what opens a folder, by the file that it is known by."""
    if (folder / "members.json").is_file():
        return lambda place: (_bundle(place), _version(place, "members.json"))
    if (folder / "adapter_config.json").is_file():
        return _tuned
    if (folder / "scaled.json").is_file():
        return _scaled
    kind = _kind(folder)
    if kind is not None:
        from shared.compression.probe import open_pricer

        return lambda place: (open_pricer(kind, place), _version(place, "manifest.json"))
    return _fitted


def _kind(folder: Path) -> str | None:
    try:
        kind = json.loads((folder / "manifest.json").read_text(encoding="utf-8"))["kind"]
    except (OSError, ValueError, KeyError, TypeError):
        return None
    return kind if kind in ("student", "language model") else None


def _bundle(folder: Path) -> Any:
    from shared.compression.bundle import open_bundle

    return open_bundle(folder)


def _tuned(folder: Path) -> tuple[Any, str]:
    from shared.open_models.pricer import tuned_pricer

    return tuned_pricer(folder), _version(folder, "adapter_config.json")


def _scaled(folder: Path) -> tuple[Any, str]:
    from shared.compression.scaled import open_scaled

    return open_scaled(folder), _version(folder, *sorted(folder.glob("**/*.json")))


def _fitted(folder: Path) -> tuple[Any, str]:
    from shared.pricers import load_pricer

    return load_pricer(folder), folder.resolve().name


def _version(folder: Path, *files: str | Path) -> str:
    """Return a name by which a model is told from others: its folder, and a hash."""
    content = b"".join((folder / file).read_bytes() for file in files)
    return f"{folder.resolve().name}-{hashlib.sha256(content).hexdigest()[:8]}"
