"""The benchmarks' figures in the README are those of the recorded runs."""

import importlib.util
from pathlib import Path

import pytest


@pytest.fixture(scope="module")
def report(root: Path):
    """The module that writes the README's tables; it is a script, not part of a package."""
    path = root / "tests" / "benchmarks" / "report.py"
    spec = importlib.util.spec_from_file_location("report", path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_the_readme_shows_the_recorded_benchmarks(root: Path, report) -> None:
    readme = (root / "README.md").read_text(encoding="utf-8")
    assert report.with_figures(readme) == readme, "run: python tests/benchmarks/report.py"


def test_a_changed_figure_is_noticed(root: Path, report) -> None:
    readme = (root / "README.md").read_text(encoding="utf-8")
    start = readme.index("<!-- benchmarks:")
    changed = readme[:start] + readme[start:].replace("1", "2", 5)
    assert report.with_figures(changed) != changed


def test_a_readme_without_its_markers_is_refused(report) -> None:
    with pytest.raises(ValueError, match="put them back"):
        report.with_figures("# Course")
