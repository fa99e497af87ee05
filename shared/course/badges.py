"""The course's address, kept in one place, and what repeats it: badges and setup cells."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path

import nbformat

from shared.course.notebooks import Lesson, find_lessons, write_notebook
from shared.course.setup_cell import setup_cell

BADGE = re.compile(r"\[!\[[^\]]*\]\([^)]*colab-badge[^)]*\)\]\([^)]*\)")
ADDRESS = re.compile(r"https://github\.com/[\w.-]+/[\w.-]+")


def repository(root: Path) -> str:
    """Return the address in ``pyproject.toml``, the one place that states it."""
    project = tomllib.loads((root / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    return project["urls"]["Repository"]


def badge(lesson: Lesson, address: str) -> str:
    """Return the Markdown of the badge that opens this lesson on Colab."""
    slug = address.removeprefix("https://github.com/")
    link = f"https://colab.research.google.com/github/{slug}/blob/main/{lesson.name}.ipynb"
    picture = "https://colab.research.google.com/assets/colab-badge.svg"
    return f"[![Open in Colab]({picture})]({link})"


def move(root: Path, address: str) -> list[Path]:
    """State a new address, then rewrite everything that repeats it; return the changed files.

    ``address`` is ``https://github.com/NAME/REPOSITORY``; ValueError says so if it is not.
    """
    address = address.rstrip("/").removesuffix(".git")
    if not ADDRESS.fullmatch(address):
        raise ValueError(f"{address!r} is not of the form https://github.com/NAME/REPOSITORY")
    old = repository(root)
    texts = [root / "pyproject.toml", *root.glob("*.md"), *root.glob("week*/*.md")]
    changed = [path for path in texts if _replace(path, _slug(old), _slug(address))]
    return changed + refresh(root)


def refresh(root: Path) -> list[Path]:
    """Rewrite the badge and the setup cell of every lesson; return the files that changed."""
    address = repository(root)
    return [lesson.path for lesson in find_lessons(root) if _refresh_lesson(lesson, address)]


def _refresh_lesson(lesson: Lesson, address: str) -> bool:
    notebook = nbformat.read(lesson.path, as_version=4)
    before = [cell.source for cell in notebook.cells]
    for cell in notebook.cells:
        if cell.cell_type == "markdown":
            cell.source = BADGE.sub(lambda _: badge(lesson, address), cell.source)
        elif "setup" in cell.metadata.get("tags", []):
            cell.source = setup_cell(address)
    if changed := before != [cell.source for cell in notebook.cells]:
        write_notebook(notebook, lesson.path)
    return changed


def _replace(path: Path, old: str, new: str) -> bool:
    text = path.read_text(encoding="utf-8")
    # Not inside a longer name: the address of "me/course" is no part of "me/course-notes".
    replaced = re.sub(rf"(?<=github)(\.com)?/{re.escape(old)}(?![\w-])", rf"\1/{new}", text)
    if replaced != text:
        path.write_text(replaced, encoding="utf-8")
    return replaced != text


def _slug(address: str) -> str:
    return address.removeprefix("https://github.com/")
