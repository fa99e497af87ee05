"""``make check``: is everything here that the course needs?"""

from __future__ import annotations

import os
import platform
import shutil
import sys
from dataclasses import dataclass
from pathlib import Path

from packaging.requirements import Requirement

from shared.course.setup_cell import installed_version

KEYS = ("OPENAI_API_KEY", "ANTHROPIC_API_KEY", "HF_TOKEN")
DISK_NEEDED_GB = 2.0


@dataclass(frozen=True)
class Check:
    """One thing looked at. ``status`` is OK, FAIL (the course will not run) or -- (optional)."""

    name: str
    status: str
    detail: str

    def __str__(self) -> str:
        return f"{f'[{self.status}]':<7}{self.name}: {self.detail}"


def all_checks(root: Path) -> list[Check]:
    """Look at Python, every requirement, the torch device, the disk and the keys."""
    return [
        check_python(),
        *check_requirements(root / "requirements.txt"),
        check_device(),
        check_disk(root),
        *(check_key(name, root) for name in KEYS),
    ]


def check_python(version: tuple[int, ...] = sys.version_info[:3]) -> Check:
    """Python 3.11 or newer."""
    text = ".".join(map(str, version))
    if version < (3, 11):
        return Check("Python", "FAIL", f"{text}, but the course needs 3.11 or newer")
    return Check("Python", "OK", f"{text} ({platform.system()} {platform.machine()})")


def check_requirements(path: Path) -> list[Check]:
    """Each line of requirements.txt against what is installed, without importing anything."""
    if not path.is_file():
        return [Check("requirements", "--", "no requirements.txt here: not run from a checkout")]
    lines = [line.split("#")[0].strip() for line in path.read_text(encoding="utf-8").splitlines()]
    return [_check_requirement(Requirement(line)) for line in lines if line]


def _check_requirement(wanted: Requirement) -> Check:
    version = installed_version(wanted.name)
    if version is None:
        return Check(wanted.name, "FAIL", f"not installed ({wanted}); run: make run")
    if not wanted.specifier.contains(version, prereleases=True):
        return Check(wanted.name, "FAIL", f"{version}, but the course needs {wanted.specifier}")
    return Check(wanted.name, "OK", version)


def check_device() -> Check:
    """Where torch would compute. Importing it is also the test that its libraries load."""
    try:
        import torch
    except Exception as error:
        return Check("torch device", "FAIL", f"torch does not import: {error}")
    if torch.cuda.is_available():
        return Check("torch device", "OK", f"cuda ({torch.cuda.get_device_name()})")
    if torch.backends.mps.is_available():
        return Check("torch device", "OK", "mps")
    return Check("torch device", "OK", "cpu (enough for the tiny profile)")


def check_disk(folder: Path, needed: float = DISK_NEEDED_GB) -> Check:
    """Free space where the results go, in GB."""
    free = shutil.disk_usage(folder).free / 1e9
    if free < needed:
        return Check("disk", "FAIL", f"{free:.1f} GB free, but the course needs {needed:.0f} GB")
    return Check("disk", "OK", f"{free:.0f} GB free")


def check_key(name: str, root: Path) -> Check:
    """Whether a key is there; what it is, is nobody's business."""
    if os.environ.get(name):
        return Check(name, "OK", "set")
    dotenv = root / ".env"
    lines = dotenv.read_text(encoding="utf-8").splitlines() if dotenv.is_file() else []
    if any(line.removeprefix("export ").partition("=")[0].strip() == name for line in lines):
        return Check(name, "OK", "set in .env")
    return Check(name, "--", "not set (not needed to start)")
