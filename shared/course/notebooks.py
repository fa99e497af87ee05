"""The lessons in order, and executing them without a browser."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import re
import signal
import sys
import tempfile
from collections.abc import Callable, Coroutine
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import nbformat
from jupyter_client import AsyncKernelManager
from jupyter_client.kernelspec import KernelSpec
from nbclient import NotebookClient
from nbclient.exceptions import CellExecutionError, DeadKernelError
from nbformat import NotebookNode

from shared.settings import Settings

T = TypeVar("T")


@dataclass(frozen=True)
class Lesson:
    """One notebook of the course: ``week6/1_explore.ipynb`` is lesson 1 of week 6.

    Any lesson opens cold; ``needs`` says after which others its results are those of the course.
    It stands in the notebook's metadata: ``{"course": {"needs": ["week6/2_curate"]}}``.
    """

    path: Path
    week: int
    number: int
    needs: tuple[str, ...] | None = None
    """Lessons that have to be done before it, by name; None: all earlier ones."""
    seconds: float = 0.0
    """What its recorded run took."""

    @property
    def name(self) -> str:
        """How the course calls it: ``week6/1_explore``."""
        return f"{self.path.parent.name}/{self.path.stem}"


class LessonFailed(RuntimeError):
    """A cell failed. The message says which, and how; ``notebook`` is the half-executed copy."""

    def __init__(self, message: str, notebook: NotebookNode) -> None:
        super().__init__(message)
        self.notebook = notebook


def find_lessons(root: Path) -> list[Lesson]:
    """Return the notebooks under ``root`` named ``weekN/M_topic.ipynb``, in course order."""
    pattern = re.compile(r"week(\d+)/(\d+)_[^/]+\.ipynb")
    lessons = []
    for path in root.glob("week*/*.ipynb"):
        if match := pattern.fullmatch(f"{path.parent.name}/{path.name}"):
            told = _told(path)
            needs = None if told.get("needs") is None else tuple(told["needs"])
            seconds = told.get("recorded", {}).get("seconds", 0.0)
            lessons.append(Lesson(path, *map(int, match.groups()), needs, seconds))
    return sorted(lessons, key=lambda lesson: (lesson.week, lesson.number))


def _told(path: Path) -> dict[str, Any]:
    """Return what a notebook's metadata says of it as a lesson; a damaged one fails later."""
    try:
        told = json.loads(path.read_text(encoding="utf-8"))["metadata"].get("course", {})
    except (OSError, ValueError, KeyError, AttributeError):
        return {}
    return told if isinstance(told, dict) else {}


def environment(settings: Settings) -> dict[str, str]:
    """Return the environment a kernel starts in: ours, and the settings of this run."""
    source = Path(settings.source)
    return os.environ | {
        # Kernels start in the lesson's folder, where a relative path means something else.
        "COURSE_SOURCE": str(source.resolve()) if source.exists() else settings.source,
        "COURSE_PROFILE": settings.profile,
        "COURSE_RUNS": str(settings.runs.absolute()),
        "COURSE_SEED": str(settings.seed),
    }


def execute(
    path: Path, environ: dict[str, str], on_cell: Callable[[int, int], None] = lambda i, n: None
) -> NotebookNode:
    """Execute a notebook in a fresh kernel of this Python, in its own folder, and return it.

    ``on_cell(number, cells)`` is called as each code cell starts. Raises LessonFailed when a cell
    fails; on Ctrl-C the kernel is gone before KeyboardInterrupt reaches the caller.
    """
    return until_stopped(executing(path, environ, on_cell))


async def executing(
    path: Path, environ: dict[str, str], on_cell: Callable[[int, int], None] = lambda i, n: None
) -> NotebookNode:
    """Execute a notebook as ``execute`` does, beside others; when cancelled, its kernel goes."""
    notebook = nbformat.read(path, as_version=4)
    _forget_outputs(notebook)
    await _Run(notebook, path, on_cell).all_cells(environ)
    return notebook


def until_stopped(work: Coroutine[Any, Any, T]) -> T:
    """Run ``work`` to its end; SIGTERM and Ctrl-C cancel it, and KeyboardInterrupt follows."""

    async def watched() -> T:
        with contextlib.suppress(NotImplementedError):  # Windows has no such handlers
            asyncio.get_running_loop().add_signal_handler(
                signal.SIGTERM, asyncio.current_task().cancel
            )
        return await work

    try:
        return asyncio.run(watched())
    except asyncio.CancelledError:  # asked to stop by SIGTERM
        raise KeyboardInterrupt from None


def write_notebook(notebook: NotebookNode, path: Path) -> None:
    """Write a notebook so that ``path`` holds either the old file or all of the new one."""
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, temporary = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    try:
        with os.fdopen(handle, "w", encoding="utf-8") as file:
            nbformat.write(notebook, file)
        Path(temporary).chmod(0o644)
        Path(temporary).replace(path)
    except BaseException:
        Path(temporary).unlink(missing_ok=True)
        raise


class _ThisPython(AsyncKernelManager):
    """Starts kernels of this very Python, whatever else the user has registered as python3."""

    @property
    def kernel_spec(self) -> KernelSpec:
        python = [sys.executable, "-Xfrozen_modules=off"]  # as ipykernel does: else debugpy warns
        launch = ["-m", "ipykernel_launcher", "-f", "{connection_file}"]
        return KernelSpec(argv=python + launch, display_name="Python 3", language="python")


class _Run:
    """One execution: the kernel, and which cell it is at."""

    def __init__(self, notebook: NotebookNode, path: Path, on_cell: Callable) -> None:
        self.notebook, self.path, self.on_cell = notebook, path, on_cell
        self.code_cells = [cell for cell in notebook.cells if cell.cell_type == "code"]
        self.number = 0
        self.client = NotebookClient(
            notebook,
            timeout=None,
            coalesce_streams=True,
            record_timing=False,
            extra_arguments=["--log-level=40"],  # the kernel talks to us over loopback: we know
            kernel_manager_class=_ThisPython,
            resources={"metadata": {"path": str(path.parent)}},
        )

    async def all_cells(self, environ: dict[str, str]) -> None:
        """Execute every cell; whatever happens, leave no kernel behind."""
        self.client.km = self.client.create_kernel_manager()
        try:
            await self.client.async_start_new_kernel(env=environ)
            await self.client.async_start_new_kernel_client()
            for index, cell in enumerate(self.notebook.cells):
                await self._cell(cell, index)
        finally:
            await self._stop_kernel()

    async def _cell(self, cell: NotebookNode, index: int) -> None:
        if cell.cell_type != "code":
            return
        self.number += 1
        self.on_cell(self.number, len(self.code_cells))
        try:
            await self.client.async_execute_cell(cell, index, execution_count=self.number)
        except CellExecutionError as error:
            raise self._failed(cell, f"{error.ename}: {error.evalue}") from None
        except DeadKernelError:
            # nbclient also says so when the cell was cancelled, that is, on Ctrl-C.
            if asyncio.current_task().cancelling():
                raise asyncio.CancelledError from None
            raise self._failed(cell, "its Python died (out of memory?)") from None

    def _failed(self, cell: NotebookNode, reason: str) -> LessonFailed:
        where = f"{self.path.parent.name}/{self.path.name}, code cell {self.number}"
        source = next((line for line in cell.source.splitlines() if line.strip()), "")
        return LessonFailed(f"{where}\n  {source}\n  {reason}", self.notebook)

    async def _stop_kernel(self) -> None:
        if self.client.kc is not None:
            self.client.kc.stop_channels()
        if self.client.km.has_kernel:
            await self.client.km.shutdown_kernel(now=True)  # now: it may be in the middle of a cell


def _forget_outputs(notebook: NotebookNode) -> None:
    """A run that stops half-way must not show yesterday's outputs below the failed cell."""
    for cell in notebook.cells:
        if cell.cell_type == "code":
            cell.outputs, cell.execution_count = [], None
