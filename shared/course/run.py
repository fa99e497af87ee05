"""``make run``: the lessons, each after those that it needs, then the leaderboard they fill."""

from __future__ import annotations

import asyncio
import functools
import os
import shutil
import sys
import time
from pathlib import Path
from typing import TextIO

from shared.course.notebooks import (
    Lesson,
    LessonFailed,
    environment,
    executing,
    until_stopped,
    write_notebook,
)
from shared.settings import Settings

AT_ONCE = 2
"""Lessons that run side by side, where the machine has as many cores."""


class Progress:
    """A line as each lesson begins and one as it ends; a terminal also shows the running cells."""

    def __init__(self, stream: TextIO, lessons: list[Lesson]) -> None:
        self.stream = stream
        self._number = {lesson.name: i for i, lesson in enumerate(lessons, start=1)}
        self._began: dict[str, float] = {}
        self._at: dict[str, str] = {}

    def start(self, lesson: Lesson) -> None:
        """Say that a lesson begins."""
        self._began[lesson.name], self._at[lesson.name] = time.monotonic(), "starts"
        if not self._live():
            self._write(f"{self._label(lesson)} …\n")

    def cell(self, lesson: Lesson, number: int, cells: int) -> None:
        """Show which cell runs, where the line can be rewritten."""
        self._at[lesson.name] = f"cell {number}/{cells}"
        self._live()

    def end(self, lesson: Lesson, outcome: str = "") -> None:
        """Say how a lesson ended, or how many seconds it took."""
        outcome = outcome or f"{time.monotonic() - self._began[lesson.name]:.0f} s"
        del self._at[lesson.name]
        clear = "\r\x1b[K" if self.stream.isatty() else ""
        self._write(f"{clear}{self._label(lesson)}: {outcome}\n")
        self._live()

    def _label(self, lesson: Lesson) -> str:
        return f"[{self._number[lesson.name]}/{len(self._number)}] {lesson.name}"

    def _live(self) -> bool:
        """Rewrite the last line of a terminal; return False where there is none."""
        if self.stream.isatty() and self._at:
            running = " · ".join(f"{name} {at}" for name, at in self._at.items())
            width = shutil.get_terminal_size().columns - 1  # a longer line cannot be taken back
            self._write(f"\r\x1b[K{running[:width]}")
        return self.stream.isatty()

    def _write(self, text: str) -> None:
        self.stream.write(text)
        self.stream.flush()


def run_lessons(
    lessons: list[Lesson], settings: Settings, stream: TextIO = sys.stdout,
    at_once: int | None = None,
) -> None:  # fmt: skip
    """Execute lessons into ``settings.notebooks``, each after those that it needs.

    ``at_once`` of them run side by side (default: AT_ONCE, or as many as there are cores), and
    share the cores: a lesson that trains leaves most of a second core to the others.
    Raises LessonFailed at the first cell that fails; the half-executed copy is kept for reading.
    """
    cores = os.cpu_count() or 1
    at_once = at_once or min(AT_ONCE, cores)
    environ = environment(settings)
    if at_once > 1:  # threads that outnumber the cores mostly wait for each other
        environ = {"OMP_NUM_THREADS": str(max(1, cores // at_once))} | environ
    until_stopped(_all(lessons, settings, environ, Progress(stream, lessons), at_once))


async def _all(
    lessons: list[Lesson], settings: Settings, environ: dict[str, str], progress: Progress,
    at_once: int,
) -> None:  # fmt: skip
    waiting, running, done = list(lessons), {}, set()
    try:
        while waiting or running:
            ready = [lesson for lesson in waiting if _needed(lesson, lessons) <= done]
            # First what most others wait for; the rest fills what that leaves of the cores.
            ready.sort(key=lambda lesson: -_waited_for(lesson, lessons))
            for lesson in ready[: at_once - len(running)]:
                waiting.remove(lesson)
                one = _one(lesson, settings, environ, progress)
                running[asyncio.create_task(one)] = lesson.name
            if not running:
                raise ValueError(f"{waiting[0].name} needs lessons that need it, too")
            finished, _ = await asyncio.wait(running, return_when=asyncio.FIRST_COMPLETED)
            for task in finished:
                name = running.pop(task)
                task.result()
                done.add(name)
    finally:
        for task in running:
            task.cancel()
        await asyncio.gather(*running, return_exceptions=True)


def _needed(lesson: Lesson, lessons: list[Lesson]) -> set[str]:
    """Return the lessons before which this one must not start; unknown names are an error."""
    names = [other.name for other in lessons]
    if lesson.needs is None:
        return set(names[: names.index(lesson.name)])
    if unknown := [name for name in lesson.needs if name not in names]:
        raise ValueError(f"{lesson.path.name}: needs {unknown[0]!r}, which is no lesson")
    return set(lesson.needs)


def _waited_for(lesson: Lesson, lessons: list[Lesson]) -> float:
    """Return the recorded seconds of a lesson and of all that need it."""
    return lesson.seconds + sum(
        other.seconds for other in lessons if lesson.name in _needed(other, lessons)
    )


async def _one(
    lesson: Lesson, settings: Settings, environ: dict[str, str], progress: Progress
) -> None:
    progress.start(lesson)
    copy = settings.notebooks / f"{lesson.name}.ipynb"
    try:
        on_cell = functools.partial(progress.cell, lesson)
        write_notebook(await executing(lesson.path, environ, on_cell), copy)
    except LessonFailed as error:
        progress.end(lesson, "failed")
        write_notebook(error.notebook, copy)
        raise LessonFailed(
            f"{error}\n  half-executed copy: {_short(copy)}", error.notebook
        ) from None
    except BaseException:
        progress.end(lesson, "stopped")
        raise
    progress.end(lesson)


def publish_leaderboard(settings: Settings) -> str:
    """Write the leaderboard as a page and as Markdown; return it as text, with the page's path."""
    from shared.reports import leaderboard

    settings.results.mkdir(parents=True, exist_ok=True)  # no lesson may have stored any yet
    rows = leaderboard.collect(settings.results)
    page = settings.home / "leaderboard.html"
    page.write_text(leaderboard.to_html(rows), encoding="utf-8")
    page.with_suffix(".md").write_text(leaderboard.to_markdown(rows), encoding="utf-8")
    return f"{leaderboard.to_console(rows)}\n\nThe same as a page: {_short(page)}"


def _short(path: Path) -> str:
    """A path as the reader would type it from where they are."""
    return str(path.relative_to(Path.cwd()) if path.is_relative_to(Path.cwd()) else path)
