"""The cell every lesson begins with, word for word, and the one call in it."""

from __future__ import annotations

import platform
import warnings
from importlib import metadata

from shared.settings import Settings

SHOWN = ("numpy", "pyarrow", "polars", "datasets", "scikit-learn", "torch")
"""Libraries whose version explains a result that differs from the one printed in a lesson."""

_TEXT = """\
# On Colab this fetches the course's package; where it is installed, it does nothing.
import importlib.util

REPOSITORY = "{repository}"
if importlib.util.find_spec("shared") is None:
    %pip install -q "price-course[colab] @ git+{{REPOSITORY}}"

from shared.course import welcome

settings = welcome()"""


def setup_cell(repository: str) -> str:
    """Return the source of the setup cell for a course that lives at ``repository``."""
    return _TEXT.format(repository=repository)


def welcome() -> Settings:
    """Read the settings of this run, print them with the versions in use, and return them."""
    # Text progress bars are what we want: they survive in the notebook file.
    warnings.filterwarnings("ignore", message="IProgress not found")
    settings = Settings.from_environment()
    versions = [f"Python {platform.python_version()}"]
    versions += [f"{name} {version}" for name in SHOWN if (version := installed_version(name))]
    print(" · ".join(versions))
    print(f"profile {settings.profile} · records: {_readable(settings.source)}")
    print(f"seed {settings.seed} · results in {settings.runs.name}/{settings.home.name}")
    return settings


def installed_version(name: str) -> str | None:
    """Return the version of an installed package, or None; imports nothing."""
    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:
        return None


def _readable(source: str) -> str:
    """A path says where somebody's files are: a lesson shows only the file's name."""
    return source if source.startswith("amazon:") else source.replace("\\", "/").split("/")[-1]
