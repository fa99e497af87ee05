"""The house stays a house: imports point down, modules stay small, importing does no work."""

from __future__ import annotations

import ast
import io
import subprocess
import sys
import tokenize
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
PACKAGE = ROOT / "shared"
MODULES = sorted(PACKAGE.rglob("*.py"))
FLOORS = [
    {"commands"},
    {"course"},
    {"app", "template"},
    {"agents"},
    {"feeds"},
    {"operating"},
    {"serving"},
    {"releases"},
    {"watching"},
    {"understanding"},
    {"choosing", "compression"},
    {"ensembles"},
    {"retrieval"},
    {"training"},
    {"open_models"},
    {"pretraining"},
    {"reports"},
    {"frontier_uses", "tuning"},
    {"prompting"},
    {"frontier"},
    {"pricers"},
    {"evaluation"},
    {"pipeline"},
    {"data"},
    {"embedded", "standin"},
    {"mind"},
    {"lazy", "prompts", "settings"},
]
"""From the top down: a room imports itself and rooms on lower floors."""


def floor(room: str) -> int:
    return next(i for i, rooms in enumerate(FLOORS) if room in rooms)


def rooms_imported(source: str) -> set[str]:
    found = set()
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert not node.level, "relative imports hide which room is meant"
            named = [f"shared.{alias.name}" for alias in node.names]
            found |= set(named) if node.module == "shared" else {node.module}
    return {name.split(".")[1] for name in found if name.startswith("shared.")}


def upward(room: str, source: str) -> set[str]:
    """Return the rooms that a module of ``room`` imports although they are not below it."""
    return {other for other in rooms_imported(source) - {room} if floor(other) <= floor(room)}


def room_of(path: Path) -> str | None:
    part = path.relative_to(PACKAGE).parts[0].removesuffix(".py")
    return None if part.startswith("__") else part


@pytest.mark.parametrize("path", MODULES, ids=lambda p: str(p.relative_to(PACKAGE)))
def test_imports_only_point_down(path: Path) -> None:
    """Incident: data imported a helper of evaluation, and neither could be read alone any more."""
    room = room_of(path)
    if room is not None:
        wrong = upward(room, path.read_text(encoding="utf-8"))
        assert not wrong, f"{path.relative_to(ROOT)} reaches up, or across, to {wrong}"


@pytest.mark.parametrize(
    ("room", "source", "wrong"),
    [
        ("data", "from shared.evaluation import evaluate", {"evaluation"}),
        ("data", "def f():\n    import shared.commands.cli", {"commands"}),
        ("evaluation", "from shared import pricers", {"pricers"}),
        ("pricers", "from shared.data import curate\nfrom shared.pricers import x", set()),
    ],
)
def test_upward_imports_are_seen(room: str, source: str, wrong: set[str]) -> None:
    assert upward(room, source) == wrong


@pytest.mark.parametrize("path", MODULES, ids=lambda p: str(p.relative_to(PACKAGE)))
def test_module_is_documented_and_fits_in_a_head(path: Path) -> None:
    """Incident: a module of 2,000 lines that everybody added to and nobody read."""
    text = path.read_text(encoding="utf-8")
    assert ast.get_docstring(ast.parse(text)), f"{path} does not say what it is for"
    assert len(text.splitlines()) < 300, f"{path} has grown: which part is a module of its own?"


def code_lines(path: Path) -> int:
    """Count the lines that do something: no blank, no comment, no docstring."""
    text = path.read_text(encoding="utf-8")
    skipped = {tokenize.COMMENT, tokenize.NL, tokenize.NEWLINE, tokenize.INDENT, tokenize.DEDENT}
    lines: set[int] = set()
    for token in tokenize.generate_tokens(io.StringIO(text).readline):
        if token.type not in skipped and token.string:
            lines.update(range(token.start[0], token.end[0] + 1))
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant):
            lines.difference_update(range(node.lineno, node.end_lineno + 1))
    return len(lines)


@pytest.mark.parametrize("room", sorted({r for r in map(room_of, MODULES) if r}))
def test_room_stays_small(room: str) -> None:
    """A learner can read one room in an evening. When this fails: which library does what we
    wrote ourselves, and which part is a room of its own?

    A limit for the whole package would let the first weeks eat what the last ones need.
    """
    lines = sum(code_lines(path) for path in MODULES if room_of(path) == room)
    assert lines < 1500, f"shared/{room} has {lines} lines of code"


def test_code_lines_are_counted(tmp_path: Path) -> None:
    (tmp_path / "m.py").write_text('"""Doc."""\n\n# why\nx = (\n    1\n)\n')
    assert code_lines(tmp_path / "m.py") == 3


def test_importing_does_no_work() -> None:
    """Incident: importing the package made folders, read the disk and loaded torch: 9 seconds."""
    heavy = {"torch", "transformers", "datasets", "sklearn", "matplotlib.pyplot"}
    code = (
        f"import sys, shared, shared.settings, shared.course; print({heavy!r} & set(sys.modules))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "set()", f"`import shared` loads {done.stdout}"
