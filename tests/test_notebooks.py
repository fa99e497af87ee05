"""The lessons pass every gate, and every gate refuses a lesson that does not deserve to pass."""

from __future__ import annotations

import ast
import copy
import os
import subprocess
import sys
from pathlib import Path

import nbformat
import notebook_gates as gates
import pytest
from nbformat import NotebookNode
from nbformat.v4 import new_code_cell, new_markdown_cell, new_notebook, new_output

from shared.course.badges import badge, repository
from shared.course.notebooks import Lesson, find_lessons
from shared.course.record import normalise, recorded_line
from shared.course.setup_cell import setup_cell

ROOT = Path(__file__).resolve().parent.parent
LESSONS = find_lessons(ROOT)
ADDRESS = repository(ROOT)
RECORDED = {
    "seconds": 21,
    "date": "2026-11-21",
    "python": "3.11.7",
    "hardware": "2 CPU cores",
    "gpu": False,
    "cost_usd": 0.0,
}
FAKE = Lesson(ROOT / "week6" / "1_fake.ipynb", 6, 1)
NEXT = "2_next.ipynb"


def _shared_names() -> set[str]:
    kinds = ast.FunctionDef | ast.ClassDef
    # Commands are named by verbs that a lesson may well use for a function of its own.
    modules = [p for p in (ROOT / "shared").rglob("*.py") if p.parent.name != "commands"]
    trees = [ast.parse(path.read_text(encoding="utf-8")) for path in modules]
    names = {node.name for tree in trees for node in tree.body if isinstance(node, kinds)}
    return {name for name in names if not name.startswith("_")}


def read(lesson: Lesson) -> NotebookNode:
    """Read a lesson as it lies on disk; `nbformat.read` would repair ids before we see them."""
    return nbformat.v4.reads_json(lesson.path.read_text(encoding="utf-8"))


def _next_of(lesson: Lesson) -> str | None:
    following = LESSONS[LESSONS.index(lesson) + 1 :][:1]
    relative = [Path(os.path.relpath(other.path, lesson.path.parent)) for other in following]
    return relative[0].as_posix() if relative else None


GATES = {
    "setup": lambda nb, lesson, following: gates.setup(nb, setup_cell(ADDRESS)),
    "opening": lambda nb, lesson, following: gates.opening(nb, badge(lesson, ADDRESS)),
    "recorded_run": lambda nb, lesson, following: gates.recorded_run(nb, recorded_line),
    "sections": lambda nb, lesson, following: gates.sections(nb),
    "exercises": lambda nb, lesson, following: gates.exercises(nb),
    "closing": lambda nb, lesson, following: gates.closing(nb, following),
    "mathematics": lambda nb, lesson, following: gates.mathematics(nb),
    "size": lambda nb, lesson, following: gates.size(nb),
    "redefinitions": lambda nb, lesson, following: gates.redefinitions(nb, _shared_names()),
    "metadata": lambda nb, lesson, following: gates.metadata(nb),
    "private_text": lambda nb, lesson, following: gates.private_text(nb),
    "execution": lambda nb, lesson, following: gates.execution(nb),
    "checked_outputs": lambda nb, lesson, following: gates.checked_outputs(nb),
    "alternatives": lambda nb, lesson, following: gates.alternatives(nb),
}


@pytest.mark.parametrize("gate", GATES)
@pytest.mark.parametrize("lesson", LESSONS or [None], ids=lambda x: x.name if x else "none yet")
def test_lesson_passes(lesson: Lesson | None, gate: str) -> None:
    if lesson is None:
        pytest.skip("no lessons yet: nothing for this gate to look at")
    notebook = read(lesson)
    complaints = GATES[gate](notebook, lesson, _next_of(lesson))
    assert not complaints, f"{lesson.name}:\n" + "\n".join(f"  - {line}" for line in complaints)


def test_every_notebook_is_a_lesson() -> None:
    """Incident: a renamed notebook matched no glob; no gate ran on it, all were green."""
    notebooks = {path for path in ROOT.glob("week*/*.ipynb")}
    if not notebooks:
        pytest.skip("no lessons yet")
    stray = notebooks - {lesson.path for lesson in LESSONS}
    assert not stray, f"readers find notebooks no gate looks at (name them N_topic.ipynb): {stray}"
    assert len({(lesson.week, lesson.number) for lesson in LESSONS}) == len(LESSONS), (
        "readers find two lessons with the same number"
    )


def test_nbval_sees_every_cell_of_every_lesson() -> None:
    """Incident: the configuration named one folder; the other lessons were never executed in CI."""
    if not LESSONS:
        pytest.skip("no lessons yet: nothing for nbval to execute")
    command = [sys.executable, "-m", "pytest", "--collect-only", "-q", "--ignore-glob=tests/*"]
    listed = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=120)
    collected = {line for line in listed.stdout.splitlines() if ".ipynb::" in line}
    for lesson in LESSONS:
        cells = len(gates.code_cells(read(lesson)))
        seen = [line for line in collected if line.startswith(f"{lesson.name}.ipynb::")]
        message = f"readers run {cells} cells of {lesson.name}; nbval runs {len(seen)}"
        assert len(seen) == cells, f"{message}:\n{listed.stdout[-500:]}"


def test_week_folders_hold_no_modules() -> None:
    """Incident: `util.py` beside a notebook shadowed a package on Colab, where it was absent."""
    modules = [path.relative_to(ROOT) for path in ROOT.glob("week*/**/*.py")]
    assert not modules, f"readers on Colab miss {modules}: code lives in shared/"


# A lesson that passes, and then one wrong thing at a time


def good() -> NotebookNode:
    words = "You look at one price and say why it is that high. " * 14
    picture = {"image/png": "aGk=", "text/plain": "Histogram of prices: most lie below $50."}
    cells = [
        new_markdown_cell(f"# A lesson\n\n{badge(FAKE, ADDRESS)}\n\n{words}"),
        new_markdown_cell("In this lesson you will\n\n- look\n- think\n- measure"),
        new_markdown_cell(recorded_line(RECORDED), metadata={"tags": ["recorded-run"]}),
        _run(1, setup_cell(ADDRESS), "setup"),
        new_markdown_cell(f"## 1. Look\n\n{words}"),
        _run(2, "print(1)", "nbval-check-output", outputs=[_printed("1\n")]),
        new_markdown_cell("## 2. Think\n\n```\n# a comment, not a title\n```"),
        _run(3, "plot()", outputs=[new_output("display_data", picture)]),
        new_markdown_cell("### Exercise\n\nTry it."),
        new_markdown_cell("<details><summary>Solution</summary>\n\nSo.\n\n</details>"),
        _run(4, "print(2)", "solution", outputs=[_printed("2\n")]),
        new_markdown_cell("## Quiz\n\n<details><summary>Why?</summary>Because.</details>"),
        new_markdown_cell(f"## Recap\n\nYou have looked.\n\n[Next]({NEXT})"),
    ]
    cells[10].metadata["jupyter"] = {"source_hidden": True}
    return normalise(new_notebook(cells=cells), RECORDED)


def _run(count: int, source: str, *tags: str, outputs: list | None = None) -> NotebookNode:
    cell = new_code_cell(source, execution_count=count, outputs=outputs or [])
    cell.metadata["tags"] = list(tags)
    return cell


def _printed(text: str) -> NotebookNode:
    return new_output("stream", name="stdout", text=text)


@pytest.mark.parametrize("gate", GATES)
def test_good_lesson_passes(gate: str) -> None:
    assert GATES[gate](good(), FAKE, NEXT) == []


def test_good_lesson_passes_as_the_last_one() -> None:
    notebook = good()
    notebook.cells[-1].source = "You have looked. This is the end of week 6."
    assert GATES["closing"](notebook, FAKE, None) == []


def _at(index: int, **changes: object):
    """Return a change: set attributes of the cell at ``index``."""

    def change(notebook: NotebookNode) -> None:
        notebook.cells[index].update(changes)

    return change


def _without(index: int):
    return lambda notebook: notebook.cells.pop(index)


def _swap(i: int, j: int):
    def change(nb: NotebookNode) -> None:
        nb.cells[i], nb.cells[j] = nb.cells[j], nb.cells[i]

    return change


def _tag(index: int, *tags: str):
    return lambda nb: nb.cells[index].metadata.update(tags=list(tags))


def _text(index: int, old: str, new: str):
    def change(nb: NotebookNode) -> None:
        assert old in nb.cells[index].source
        nb.cells[index].source = nb.cells[index].source.replace(old, new)

    return change


FAILED = new_output("error", ename="ValueError", evalue="no", traceback=["no"])
BAD = [
    ("setup", _text(3, "settings = ", "settings  = "), "not the course's"),
    ("setup", _without(3), "not the setup cell"),
    ("setup", _tag(5, "setup"), "second setup cell"),
    ("opening", _text(0, "# A lesson", "A lesson"), "title"),
    ("opening", _text(0, "1_fake", "2_other"), "badge of this very lesson"),
    ("opening", _text(1, "In this lesson you will", "Today"), "In this lesson you will"),
    ("opening", _text(1, "- look\n- think\n", ""), "promised 1 goals"),
    ("opening", _text(1, "- look", "- a\n- b\n- c\n- look"), "promised 6 goals"),
    ("opening", _without(2), "recorded run"),
    ("opening", _swap(1, 2), "in this order"),
    ("opening", _swap(2, 4), "recorded run"),
    ("recorded_run", lambda nb: nb.metadata.pop("course"), "no run was ever recorded"),
    ("recorded_run", _text(2, "21 s", "2 s"), "not those of the recorded run"),
    ("sections", _text(6, "## 2.", "## 3."), "counts sections [1, 3]"),
    ("sections", _text(6, "## 2. Think", "# Think"), "2 titles"),
    ("exercises", _text(8, "Exercise", "Task"), "no exercise"),
    ("exercises", _tag(10), "only 0 solutions"),
    ("exercises", _text(9, "Solution", "Hint"), "comes without"),
    ("exercises", _swap(9, 8), "comes without"),
    ("exercises", _at(10, execution_count=None), "never executed"),
    ("exercises", lambda nb: nb.cells[10].metadata.pop("jupyter"), "before trying"),
    ("closing", _text(11, "Quiz", "Questions"), "no quiz"),
    ("closing", _text(11, "</details>", ""), "no folded answers"),
    ("closing", _text(12, "You have", "We"), "You have"),
    ("closing", _swap(11, 12), "You have"),
    ("closing", _text(12, NEXT, "3_moved.ipynb"), "next lesson"),
    ("mathematics", _at(4, source="## 1. Look\n\nfrom $40 to $50"), "mathematics for money"),
    ("size", _at(5, source="a = 1\n" * 21), "cell of 21 lines"),
    (
        "size",
        lambda nb: [_at(i, source="a = 1\n" * 6)(nb) for i in (5, 7, 10)],
        "half of the cells",
    ),
    ("size", lambda nb: [_at(i, source="## 1. Look")(nb) for i in (0, 4)], "words of prose"),
    ("size", _at(5, source=f"a = {'1' * 90}"), "scroll sideways"),
    ("redefinitions", _at(5, source="def find_lessons(root):\n    return 1"), "`find_lessons`"),
    ("redefinitions", _at(5, source="%time 1\nclass Settings:\n    pass"), "`Settings`"),
    ("metadata", lambda nb: nb.metadata.kernelspec.update(name="venv-old"), "choose a kernel"),
    ("metadata", lambda nb: nb.metadata.update(widgets={}), "widgets"),
    ("metadata", lambda nb: nb.cells[5].metadata.update(execution={}), "execution"),
    ("metadata", lambda nb: [_at(i, id="same")(nb) for i in (5, 6)], "share an id"),
    ("private_text", _at(5, source="open('/home/ann/prices.csv')"), "only the author has"),
    ("private_text", _at(5, source=r"open('C:\Users\ann')"), "only the author has"),
    ("private_text", _at(5, outputs=[_printed("saved in /srv/ann/x.csv")]), "only the author has"),
    ("private_text", _at(5, source="key = 'sk-" + "a1" * 12 + "'"), "can read the key"),
    ("private_text", _at(4, source="use hf_" + "a1" * 12), "can read the key"),
    ("execution", _at(5, execution_count=7), "running all cells"),
    ("execution", _at(5, execution_count=None), "running all cells"),
    ("execution", _at(5, outputs=[FAILED]), "sees an error: ValueError"),
    ("checked_outputs", _at(7, source="# NBVAL_SKIP\nplot()"), "meant for nbval"),
    ("checked_outputs", _at(5, outputs=[]), "nothing is compared"),
    ("checked_outputs", _tag(5), "no result of this lesson"),
    (
        "alternatives",
        lambda nb: (
            nb.cells[7].outputs[0].data.update({"text/plain": "<Figure size 6x4 with 1 Axes>"})
        ),
        "without words",
    ),
    ("alternatives", lambda nb: nb.cells[7].outputs[0].data.pop("text/plain"), "without words"),
]


@pytest.mark.parametrize(("gate", "change", "complaint"), BAD, ids=[f"{b[0]}: {b[2]}" for b in BAD])
def test_bad_lesson_is_refused(gate: str, change, complaint: str) -> None:
    notebook = copy.deepcopy(good())
    change(notebook)
    complaints = GATES[gate](notebook, FAKE, NEXT)
    assert any(complaint in line for line in complaints), complaints


def test_every_gate_can_fail() -> None:
    """Incident: a gate whose pattern matched nothing stayed green for months."""
    assert {gate for gate, *_ in BAD} == set(GATES)


def test_a_method_is_no_copy_of_a_function() -> None:
    notebook = good()
    notebook.cells[5].source = "class Mine:\n    def find_lessons(self):\n        return 1"
    assert gates.redefinitions(notebook, _shared_names()) == []


def test_addresses_of_an_api_are_no_private_paths() -> None:
    notebook = good()
    notebook.cells[5].source = "post('/v1/responses', 'https://example.org/a/b/c')  # and/or/xor"
    notebook.cells[5].outputs = [_printed("110/220V/60Hz <b>a</b></td></tr>")]
    assert gates.private_text(notebook) == []
