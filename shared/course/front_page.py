"""The picture and the table on the README's first screen, from the recorded run of the lessons."""

from __future__ import annotations

import datetime
import json
import platform
import re
from pathlib import Path

from shared.data.storage import replacing, write_json
from shared.settings import Settings

PICTURES = {"light": "week6/leaderboard-light.svg", "dark": "week6/leaderboard-dark.svg"}
RECORDED = "week6/leaderboard.json"
_BLOCK = re.compile(r"(<!-- leaderboard: [^>]*-->\n).*?(<!-- end of leaderboard -->)", re.DOTALL)
_KEPT = ("pricer", "label", "n", "failed", "mae", "mae_low", "mae_high", "hits")


def write_front_page(root: Path, settings: Settings) -> None:
    """Record the leaderboard of ``settings.results``; draw it and write its table to the README."""
    from shared.embedded import irreducible_error
    from shared.reports import leaderboard
    from shared.reports.charts import leaderboard_bars

    rows = leaderboard.collect(settings.results)
    recorded = {
        "date": datetime.date.today().isoformat(),
        "python": platform.python_version(),
        "test_set": rows[0]["items"],
        "perfect_mae": irreducible_error(seed=settings.seed)["mae"],
        "rows": [{key: row[key] for key in _KEPT} for row in rows],
    }
    for theme, name in PICTURES.items():
        leaderboard_bars(rows).save(root / name, dark=theme == "dark")
    write_json(recorded, root / RECORDED)
    with replacing(root / "README.md") as temporary:
        text = (root / "README.md").read_text(encoding="utf-8")
        temporary.write_text(with_table(text, recorded), encoding="utf-8")


def with_table(readme: str, recorded: dict) -> str:
    """Return the README's text with the table of a recorded run between its two markers."""
    if not _BLOCK.search(readme):
        raise ValueError("README.md has lost the two leaderboard comments: put them back")
    return _BLOCK.sub(lambda block: block[1] + table(recorded) + block[2], readme)


def read_recorded(root: Path) -> dict:
    """Return the recorded leaderboard."""
    return json.loads((root / RECORDED).read_text(encoding="utf-8"))


def table(recorded: dict) -> str:
    """Return the table, and what it was computed on, as Markdown."""
    lines = ["", "| pricer | mean absolute error, dollars | hits |", "|---|---|---|"]
    for row in recorded["rows"]:
        name = f"{row['pricer']} ({row['label']})" if row["label"] else row["pricer"]
        error = f"{row['mae']:.2f} [{row['mae_low']:.2f}, {row['mae_high']:.2f}]"
        lines.append(f"| {name} | {error} | {row['hits']:.0%} |")
    n = recorded["rows"][0]["n"]
    note = (
        f"So far, on {n:,} test products of the embedded catalogue (items "
        f"{recorded['test_set'][:8]}; recorded {recorded['date']}, Python {recorded['python']}). "
        f"Brackets: 95 % intervals. A hit is off by less than 40 dollars or 20 %. Nobody can be "
        f"off by less than {recorded['perfect_mae']:.2f} dollars there: that much is noise by "
        "construction."
    )
    return "\n".join([*lines, "", note, ""])
