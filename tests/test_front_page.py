"""The README's first screen shows what was recorded, and nothing that was typed."""

from pathlib import Path

import nbformat
import notebook_gates as gates
import pytest

from shared.course.front_page import PICTURES, read_recorded, table, with_table


def test_the_table_in_the_readme_is_the_recorded_one(root: Path) -> None:
    """Incident: a number in the README was improved by hand, and nobody could reproduce it."""
    readme = (root / "README.md").read_text(encoding="utf-8")
    assert with_table(readme, read_recorded(root)) == readme, "run: make notebooks"


def test_readmes_show_money_and_no_mathematics(root: Path) -> None:
    for path in (root / "README.md", *root.glob("week*/README.md")):
        page = nbformat.v4.new_notebook(
            cells=[nbformat.v4.new_markdown_cell(path.read_text(encoding="utf-8"))]
        )
        assert gates.mathematics(page) == [], path


def test_the_picture_shows_the_recorded_pricers(root: Path) -> None:
    for name in PICTURES.values():
        picture = (root / name).read_text(encoding="utf-8")
        assert name in (root / "README.md").read_text(encoding="utf-8")
        for row in read_recorded(root)["rows"]:
            assert f"<!-- {row['pricer']} -->" in picture or row["pricer"] in picture


def test_a_changed_figure_is_noticed(root: Path) -> None:
    recorded = read_recorded(root)
    recorded["rows"][0]["mae"] += 1
    readme = (root / "README.md").read_text(encoding="utf-8")
    assert with_table(readme, recorded) != readme


def test_stand_ins_are_labelled() -> None:
    row = {"pricer": "gpt", "label": "stand-in", "n": 9, "failed": 0, "hits": 0.5}
    row |= {"mae": 1.0, "mae_low": 0.5, "mae_high": 1.5}
    recorded = {"rows": [row], "test_set": "abc", "date": "2026-01-01", "python": "3.11"}
    assert "| gpt (stand-in) | 1.00 [0.50, 1.50] | 50% |" in table(recorded | {"perfect_mae": 0.5})


def test_a_readme_without_its_markers_is_refused() -> None:
    with pytest.raises(ValueError, match="put them back"):
        with_table("# Course", {"rows": []})
