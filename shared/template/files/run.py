"""From your table to a service: python run.py (after a kill, the same command goes on)."""

import sys
from pathlib import Path

from shared.template import (
    baselines,
    compare,
    distil,
    explained,
    open_project,
    prepare,
    release,
    tune,
)


def main() -> None:
    """Do all steps; those that are done already are opened."""
    project = open_project(Path(__file__).parent)
    items = prepare(project)
    models = baselines(project, items)
    models += tune(project, items)
    models += distil(project, items, models)
    chosen = compare(project, models)
    release(project, items, chosen)


if __name__ == "__main__":
    sys.exit(explained(main))
