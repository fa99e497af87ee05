"""Settings of a run, read once from the environment and then passed on explicitly."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

PROFILES = {"tiny": 24_000, "colab": 60_000, "full": 400_000}
"""Profile name -> how many records the embedded catalogue makes, or Amazon is asked for."""


def repository_root() -> Path:
    """Return the checkout this package runs from, or the working folder if it was installed."""
    root = Path(__file__).resolve().parent.parent
    return root if (root / "pyproject.toml").is_file() else Path.cwd()


@dataclass(frozen=True)
class Settings:
    """What a run needs to know: how big, on which records, where results go, which seed.

    ``source`` is ``embedded``, the path of a JSONL(.gz) file or of a folder of them, or
    ``amazon:CATEGORY[,CATEGORY…]``. ``runs`` is the git-ignored folder that holds all output.
    ``amazon`` is the address of a mirror of the Amazon files, with ``{category}`` in it.
    """

    profile: str = "tiny"
    source: str = "embedded"
    runs: Path = Path("runs")
    seed: int = 42
    amazon: str | None = None

    def __post_init__(self) -> None:
        """Refuse a profile that does not exist before anything runs in it."""
        if self.profile not in PROFILES:
            raise ValueError(f"profile {self.profile!r} is not one of {', '.join(PROFILES)}")

    @classmethod
    def from_environment(cls, environ: Mapping[str, str] = os.environ) -> Settings:
        """Read ``COURSE_PROFILE``, ``_SOURCE``, ``_RUNS``, ``_SEED`` and ``_AMAZON``."""
        seed = environ.get("COURSE_SEED", "42")
        if not seed.isdigit():
            raise ValueError(f"COURSE_SEED={seed!r} is not a whole number of 0 or more")
        return cls(
            profile=environ.get("COURSE_PROFILE") or "tiny",
            source=environ.get("COURSE_SOURCE") or "embedded",
            runs=Path(environ.get("COURSE_RUNS") or repository_root() / "runs").absolute(),
            seed=int(seed),
            amazon=environ.get("COURSE_AMAZON") or None,
        )

    @property
    def size(self) -> int:
        """Records of the embedded catalogue, or of an Amazon stream, that this profile uses."""
        return PROFILES[self.profile]

    @property
    def home(self) -> Path:
        """Folder of everything computed from this source with this seed."""
        return self.runs / f"{self._source_slug()}-seed{self.seed}"

    @property
    def data(self) -> Path:
        """Folder of the curated items."""
        return self.home / "data"

    @property
    def results(self) -> Path:
        """Folder of stored predictions, from which the leaderboard is built."""
        return self.home / "results"

    @property
    def notebooks(self) -> Path:
        """Folder of executed copies of the notebooks."""
        return self.home / "notebooks"

    def _source_slug(self) -> str:
        if self.source == "embedded":
            return f"embedded-{self.size}"
        name = (
            self.source.removeprefix("amazon:")
            if self.source.startswith("amazon:")
            else (Path(self.source).name.split(".")[0])
        )
        readable = "".join(c if c.isalnum() else "-" for c in name)[:40]
        return f"{readable}-{hashlib.sha256(self._identity().encode()).hexdigest()[:8]}"

    def _identity(self) -> str:
        """Same file, same folder of results; a file that changed gets a new one."""
        path = Path(self.source)
        if not path.exists():
            return self.source
        files = sorted(path.iterdir()) if path.is_dir() else [path]
        stats = [(f.name, f.stat().st_size, f.stat().st_mtime_ns) for f in files]
        return f"{path.resolve()}|{stats}"
