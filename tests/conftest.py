"""What every test needs: results of tests and of nbval's notebooks stay away from real ones."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Generator
from pathlib import Path

import pytest
from browsers import BROWSER

_OURS = {"COURSE_SOURCE": "embedded", "COURSE_PROFILE": "tiny", "COURSE_SEED": "42"}


def pytest_configure(config: pytest.Config) -> None:
    """Fix the settings before nbval starts a kernel: what it executes inherits them."""
    # Named `runs`, as at home: lessons print this name.
    config.course_runs = Path(tempfile.mkdtemp(prefix="course-tests-")) / "runs"
    os.environ.update(_OURS, COURSE_RUNS=str(config.course_runs))


def pytest_unconfigure(config: pytest.Config) -> None:
    """Remove what the session stored."""
    shutil.rmtree(config.course_runs.parent, ignore_errors=True)


@pytest.hookimpl(wrapper=True)
def pytest_runtest_call(item: pytest.Item) -> Generator[None, object, object]:
    """Skip what needs a package that this environment is said to lack (``make colab-check``)."""
    try:
        return (yield)
    except ModuleNotFoundError as error:
        if error.name in os.environ.get("COURSE_WITHOUT", "").split():
            pytest.skip(f"{error.name} is not in this environment")
        raise


@pytest.fixture(scope="module")
def browser() -> Generator[object, None, None]:
    """Yield a real browser without a window."""
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        started = playwright.chromium.launch(executable_path=BROWSER, args=["--no-sandbox"])
        yield started
        started.close()


@pytest.fixture(scope="session")
def root() -> Path:
    """The checkout under test."""
    return Path(__file__).resolve().parent.parent
