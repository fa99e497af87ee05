"""``make run``: the lessons in order, then the leaderboard they fill."""

from __future__ import annotations

import sys
import time
from pathlib import Path
from typing import TextIO

from shared.course.notebooks import Lesson, LessonFailed, environment, execute, write_notebook
from shared.settings import Settings


class Progress:
    """One line a lesson; on a terminal it also shows the cell that is running."""

    def __init__(self, stream: TextIO, lessons: int) -> None:
        self.stream, self.lessons, self.count = stream, lessons, 0

    def start(self, lesson: Lesson) -> None:
        """Begin the line of the next lesson."""
        self.count += 1
        self.began = time.monotonic()
        self.label = f"[{self.count}/{self.lessons}] {lesson.name} … "
        self._write(self.label)

    def cell(self, number: int, cells: int) -> None:
        """Show which cell runs, where the line can be rewritten."""
        if self.stream.isatty():
            self._write(f"\r{self.label}cell {number}/{cells}\x1b[K")

    def end(self, outcome: str = "") -> None:
        """Finish the line with the seconds it took."""
        outcome = outcome or f"{time.monotonic() - self.began:.0f} s"
        self._write(f"\r{self.label}{outcome}\x1b[K\n" if self.stream.isatty() else f"{outcome}\n")

    def _write(self, text: str) -> None:
        self.stream.write(text)
        self.stream.flush()


def run_lessons(lessons: list[Lesson], settings: Settings, stream: TextIO = sys.stdout) -> None:
    """Execute lessons in order into ``settings.notebooks``, one progress line each.

    Raises LessonFailed at the first cell that fails; the half-executed copy is kept for reading.
    """
    progress = Progress(stream, len(lessons))
    environ = environment(settings)
    for lesson in lessons:
        progress.start(lesson)
        copy = settings.notebooks / f"{lesson.name}.ipynb"
        try:
            write_notebook(execute(lesson.path, environ, progress.cell), copy)
        except LessonFailed as error:
            progress.end("failed")
            write_notebook(error.notebook, copy)
            raise LessonFailed(
                f"{error}\n  half-executed copy: {_short(copy)}", error.notebook
            ) from None
        except BaseException:
            progress.end("stopped")
            raise
        progress.end()


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
