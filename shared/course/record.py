"""``make notebooks``: execute the lessons where they lie, and record what the run took."""

from __future__ import annotations

import datetime
import hashlib
import os
import platform
import shutil
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

from nbformat import NotebookNode

from shared.course.front_page import write_front_page
from shared.course.notebooks import Lesson, environment, execute, write_notebook
from shared.settings import Settings

KEPT_METADATA = {"tags", "jupyter"}
"""What a cell's metadata may say; editors add timings, scroll states and worse."""


def record_lessons(root: Path, lessons: list[Lesson], tell: Callable[[str], None]) -> None:
    """Execute lessons on the embedded data in place; one that fails keeps its old outputs.

    With all of them done, their leaderboard goes on the README's first screen.

    They run from nothing, in an empty results folder: the recorded time is a newcomer's.
    """
    with tempfile.TemporaryDirectory() as folder:
        settings = Settings(runs=Path(folder) / "runs")
        for lesson in lessons:
            began = time.monotonic()
            notebook = execute(lesson.path, environment(settings))
            recorded = describe_run(time.monotonic() - began)
            write_notebook(normalise(notebook, recorded), lesson.path)
            tell(f"{lesson.name}: {recorded_line(recorded)}")
        if settings.results.is_dir():
            write_front_page(root, settings)


def describe_run(seconds: float) -> dict:
    """Return what a recorded run says of itself: when, how long, on what, at what price."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    return {
        "seconds": round(seconds),
        "date": datetime.date.today().isoformat(),
        "python": platform.python_version(),
        "hardware": f"{cores} CPU cores",
        "gpu": shutil.which("nvidia-smi") is not None,
        "cost_usd": 0.0,  # the recorded run uses the embedded data and the local server
    }


def recorded_line(recorded: dict) -> str:
    """Return the line under a lesson's goals: time, hardware and cost of its recorded run."""
    seconds, gpu = recorded["seconds"], "with a GPU" if recorded["gpu"] else "no GPU"
    took = f"{seconds} s" if seconds < 100 else f"{seconds / 60:.0f} min"
    return (
        f"*Recorded run: {took} on {recorded['hardware']}, {gpu}, "
        f"${recorded['cost_usd']:.2f} of API calls (Python {recorded['python']}, "
        f"{recorded['date']}).*"
    )


def normalise(notebook: NotebookNode, recorded: dict | None = None) -> NotebookNode:
    """Strip a notebook of all that depends on who executed it, and enter the recorded run."""
    told = dict(notebook.metadata.get("course", {}))
    recorded = recorded or told.get("recorded")
    notebook.metadata = NotebookNode(
        kernelspec={"display_name": "Python 3", "language": "python", "name": "python3"},
        language_info={"name": "python"},
    )
    notebook.nbformat, notebook.nbformat_minor = 4, 5
    for cell in notebook.cells:
        cell.metadata = NotebookNode({k: v for k, v in cell.metadata.items() if k in KEPT_METADATA})
    _name_cells(notebook)
    course = {"needs": told.get("needs"), "recorded": recorded}
    if course := {name: value for name, value in course.items() if value is not None}:
        notebook.metadata["course"] = course
    if recorded:
        for cell in notebook.cells:
            if "recorded-run" in cell.metadata.get("tags", []):
                cell.source = recorded_line(recorded)
    return notebook


def _name_cells(notebook: NotebookNode) -> None:
    """Keep ids that are unique; derive the others from content, so that a re-run changes none."""
    taken: set[str] = set()
    for cell in notebook.cells:
        name = cell.get("id") or hashlib.sha256(cell.source.encode()).hexdigest()[:8]
        suffix = 1
        while name in taken:
            suffix += 1
            name = f"{hashlib.sha256(cell.source.encode()).hexdigest()[:8]}-{suffix}"
        cell["id"] = name
        taken.add(name)
