"""Gates a lesson must pass: pure functions from a parsed notebook to what its reader would see.

Each returns a list of complaints, empty when all is well, and its docstring tells the incident it
prevents. tests/test_notebooks.py runs them on every lesson, and on bad lessons they must refuse.
"""

from __future__ import annotations

import ast
import re
import statistics
from collections.abc import Callable, Iterator

from IPython.core.inputtransformer2 import TransformerManager
from nbformat import NotebookNode

# Two parts at least; addresses of an API such as /v1/responses are nobody's folder.
ABSOLUTE_PATH = re.compile(
    r"(?<![\w./:<>~)\]])/(?!v\d)(?:[\w.-]+/)+[\w.-]+|\b[A-Z]:\\+(?:Users|Program|Documents)\b"
)
KEY = re.compile(r"\b(sk-[\w-]{16,}|hf_\w{20,}|gh[pousr]_\w{20,}|AKIA[A-Z0-9]{16}|AIza[\w-]{30,})")
FOLDED = re.compile(r"<details>\s*<summary>(.+?)</summary>(.+?)</details>", re.DOTALL)


def tags(cell: NotebookNode) -> list[str]:
    """Return the tags of a cell."""
    return cell.metadata.get("tags", [])


def code_cells(notebook: NotebookNode) -> list[NotebookNode]:
    """Return the code cells of a notebook."""
    return [cell for cell in notebook.cells if cell.cell_type == "code"]


def prose_cells(notebook: NotebookNode) -> list[NotebookNode]:
    """Return the markdown cells of a notebook."""
    return [cell for cell in notebook.cells if cell.cell_type == "markdown"]


def python(cell: NotebookNode) -> str:
    """Return a cell's source as plain Python: magics become calls."""
    return TransformerManager().transform_cell(cell.source)


def setup(notebook: NotebookNode, expected: str) -> list[str]:
    """The setup cell is the course's, byte for byte.

    Incident: a fix to one lesson's setup never reached the others, and those kept failing on Colab.
    """
    cells = code_cells(notebook)
    if not cells or "setup" not in tags(cells[0]):
        return ["the reader's first code cell is not the setup cell (tagged `setup`)"]
    if cells[0].source != expected:
        return ["the reader runs a setup cell that is not the course's; run: make badges"]
    return [
        f"the reader meets a second setup cell: {cell.source[:40]!r}"
        for cell in cells[1:]
        if "setup" in tags(cell)
    ]


def opening(notebook: NotebookNode, badge: str) -> list[str]:
    """Title, badge, goals and recorded run come in this order, before any code.

    Incident: a badge copied with its page opened the previous lesson on Colab.
    """
    cells = notebook.cells
    first_code = next((i for i, cell in enumerate(cells) if cell.cell_type == "code"), len(cells))
    text = "\n\n".join(cell.source for cell in cells[:first_code])
    recorded = [cell.source for cell in cells[:first_code] if "recorded-run" in tags(cell)]
    marks = {
        "a title (# …) as its first line": 0 if re.match(r"# \S", text) else -1,
        f"the badge of this very lesson ({badge}); run: make badges": text.find(badge),
        "the line 'In this lesson you will'": text.find("In this lesson you will"),
        "the line of the recorded run (tagged `recorded-run`); run: make notebooks": (
            text.find(recorded[0]) if recorded and recorded[0].startswith("*Recorded run:") else -1
        ),
    }
    missing = [f"the reader misses {what}" for what, at in marks.items() if at < 0]
    if missing:
        return missing
    places = list(marks.values())
    disorder = ["the page does not open with title, badge, goals, recorded run, in this order"]
    goals = text[places[2] : places[3]]
    count = len(re.findall(r"^[-*] ", goals, re.MULTILINE))
    wrong = [f"the reader is promised {count} goals; a lesson has 3 to 5"]
    return (disorder if places != sorted(places) else []) + (wrong if not 3 <= count <= 5 else [])


def recorded_run(notebook: NotebookNode, line_of: Callable[[dict], str]) -> list[str]:
    """The line that says what a lesson takes is generated from a recorded run.

    Incident: 'takes two minutes' was typed by hand, and by then it took forty.
    """
    recorded = notebook.metadata.get("course", {}).get("recorded")
    if not recorded:
        return ["no run was ever recorded for this lesson; run: make notebooks"]
    lines = [cell.source for cell in notebook.cells if "recorded-run" in tags(cell)]
    if lines != [line_of(recorded)]:
        return ["the time, hardware and cost the reader sees are not those of the recorded run"]
    return []


def sections(notebook: NotebookNode) -> list[str]:
    """One title; sections numbered 1, 2, 3… without a gap.

    Incident: a section was moved, and 'as you saw in section 3' pointed at another one.
    """
    text = "\n".join(_without_code_blocks(cell.source) for cell in prose_cells(notebook))
    titles = re.findall(r"^# .+", text, re.MULTILINE)
    numbers = [int(n) for n in re.findall(r"^## (\d+)\. \S", text, re.MULTILINE)]
    problems = [] if len(titles) == 1 else [f"the reader sees {len(titles)} titles (# …), not one"]
    if numbers != list(range(1, len(numbers) + 1)) or not numbers:
        problems.append(f"the reader counts sections {numbers}: they are to be ## 1. ## 2. ## 3. …")
    return problems


def exercises(notebook: NotebookNode) -> list[str]:
    """Each exercise has a folded explanation, then its solution, executed and collapsed.

    Incident: a solution in prose alone stopped working two library versions ago; nobody ran it.
    """
    cells = notebook.cells
    asked = sum(
        len(re.findall(r"^#+ .*\bExercise\b", c.source, re.M)) for c in prose_cells(notebook)
    )
    solved = [i for i, cell in enumerate(cells) if "solution" in tags(cell)]
    problems = [] if asked else ["the reader finds no exercise (a heading with the word Exercise)"]
    if asked > len(solved):
        problems.append(f"{asked} exercises, but only {len(solved)} solutions (tagged `solution`)")
    for i in solved:
        problems += _solution(cells[i], cells[i - 1])
    return problems


def _solution(cell: NotebookNode, before: NotebookNode) -> list[str]:
    problems = []
    if before.cell_type == "code" or not any(
        "Solution" in s for s, _ in FOLDED.findall(before.source)
    ):
        problems.append("a solution comes without <details><summary>Solution</summary> before it")
    if cell.cell_type != "code" or cell.execution_count is None:
        problems.append("the reader sees a solution that was never executed")
    if not cell.metadata.get("jupyter", {}).get("source_hidden"):
        problems.append("the reader sees the solution's code before trying (set source_hidden)")
    return problems


def closing(notebook: NotebookNode, next_lesson: str | None) -> list[str]:
    """Quiz with folded answers, then the recap, then the way on.

    Incident: readers of the second lesson never found the third; the link named a moved file.
    """
    text = "\n\n".join(cell.source for cell in prose_cells(notebook))
    quiz = re.search(r"^#+ .*\bQuiz\b", text, re.MULTILINE)
    recap = list(re.finditer(r"\bYou have\b", text))
    if not quiz:
        return ["the reader finds no quiz (a heading with the word Quiz)"]
    problems = []
    if not FOLDED.search(text, quiz.end()):
        problems.append("the quiz shows no folded answers (<details><summary>…</summary>…)")
    if not recap or recap[-1].start() < quiz.end():
        problems.append("after the quiz nothing tells the reader what 'You have' learnt")
    last = notebook.cells[-1].source
    if next_lesson and f"]({next_lesson})" not in last:
        problems.append(f"the page does not end with a link to the next lesson, {next_lesson}")
    if not next_lesson and not re.search(r"\b(end|last|next)\b", last, re.IGNORECASE):
        problems.append("the page stops without telling the reader that this is the end for now")
    return problems


def mathematics(notebook: NotebookNode) -> list[str]:
    """No paragraph has two dollar signs: Jupyter sets what is between them as mathematics.

    Incident: 'off by less than $40 or 20 %, never below $21' was shown as '40or20 never below 21'.
    """
    problems = []
    for cell in prose_cells(notebook):
        for paragraph in re.split(r"\n\s*\n", _without_code_blocks(cell.source)):
            prose = re.sub(r"`[^`]*`|\\\$", "", paragraph)
            if prose.count("$") > 1:
                problems.append(f"the reader sees mathematics for money: {prose[:60]!r}")
    return problems


def size(notebook: NotebookNode) -> list[str]:
    """Small cells, enough prose, lines that fit.

    Incident: a cell of 90 lines did five things, and everybody scrolled past it.
    """
    cells = code_cells(notebook)
    lengths = [sum(bool(line.strip()) for line in cell.source.splitlines()) for cell in cells] or [
        0
    ]
    words = sum(len(re.findall(r"\b\w[\w'’-]*\b", cell.source)) for cell in prose_cells(notebook))
    problems = [
        f"the reader faces a cell of {n} lines: {cell.source.splitlines()[0]!r} (at most 20)"
        for n, cell in zip(lengths, cells, strict=False)
        if n > 20
    ]
    if statistics.median(lengths) > 5:
        problems.append(
            f"half of the cells have over {statistics.median(lengths):g} lines (at most 5)"
        )
    if words < 40 * len(cells):
        problems.append(f"{words / len(cells):.0f} words of prose a code cell (at least 40)")
    wide = [line for cell in cells for line in cell.source.splitlines() if len(line) > 88]
    return problems + [
        f"the reader must scroll sideways: {line[:60]!r}… (at most 88)" for line in wide
    ]


def redefinitions(notebook: NotebookNode, shared_names: set[str]) -> list[str]:
    """What the package defines, a notebook imports.

    Incident: eleven copies of one module, each with the bugs of its year.
    """
    kinds = ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef
    found = [
        node.name
        for cell in code_cells(notebook)
        for node in ast.parse(python(cell)).body
        if isinstance(node, kinds) and node.name in shared_names
    ]
    return [f"the reader gets a private copy of `{name}`; import it from shared" for name in found]


def metadata(notebook: NotebookNode) -> list[str]:
    """The file says nothing of who executed it, and any Jupyter opens it.

    Incident: a kernel named 'venv-old' made JupyterLab ask which kernel to use; widget state made
    the lesson a blank page on GitHub.
    """
    problems = []
    kernel = notebook.metadata.get("kernelspec", {})
    if (kernel.get("name"), kernel.get("display_name")) != ("python3", "Python 3"):
        problems.append(f"the reader is asked to choose a kernel: this one is {dict(kernel)}")
    extra = set(notebook.metadata) - {"kernelspec", "language_info", "course"}
    if extra:
        problems.append(f"the file carries {sorted(extra)}; run: make notebooks")
    odd = {k for cell in notebook.cells for k in cell.metadata if k not in ("tags", "jupyter")}
    if odd:
        problems.append(f"cells carry {sorted(odd)}; run: make notebooks")
    ids = [cell.get("id") for cell in notebook.cells]
    if None in ids or len(set(ids)) < len(ids):
        problems.append("cells share an id: links to a cell, and diffs, hit the wrong one")
    return problems


def private_text(notebook: NotebookNode) -> list[str]:
    """No path of the author's machine, no key, in sources or outputs.

    Incident: a traceback printed a home folder, and an API key was pasted 'just for a moment'.
    """
    found = []
    for cell in notebook.cells:
        texts = [cell.source, *_output_texts(cell)]
        found += [f"everybody can read the key {m[:6]}…" for t in texts for m in KEY.findall(t)]
        if cell.cell_type == "code":
            paths = [m for t in texts for m in ABSOLUTE_PATH.findall(t)]
            found += [f"the reader sees a path that only the author has: {m}" for m in paths]
    return found


def execution(notebook: NotebookNode) -> list[str]:
    """All cells ran, once, in order, and none failed.

    Incident: cells run out of order left a result that running all of them does not give.
    """
    cells = [cell for cell in code_cells(notebook) if cell.source.strip()]
    counts = [cell.execution_count for cell in cells]
    problems = []
    if counts != list(range(1, len(counts) + 1)):
        problems.append(f"the reader cannot get these outputs by running all cells: {counts}")
    problems += [
        f"the reader sees an error: {output.ename}: {output.evalue}"
        for cell in cells
        for output in cell.outputs
        if output.output_type == "error"
    ]
    return problems


def checked_outputs(notebook: NotebookNode) -> list[str]:
    """Comparison with nbval is asked for by tag, on cells that have something to compare.

    Incident: a '# NBVAL_IGNORE_OUTPUT' comment stood in the lesson, and readers copied it; a
    checked cell without output compared nothing with nothing.
    """
    cells = code_cells(notebook)
    comments = [cell for cell in cells if re.search(r"#\s*(NBVAL|PYTEST)_", cell.source)]
    empty = [c for c in cells if "nbval-check-output" in tags(c) and not c.outputs]
    problems = ["the reader sees a comment meant for nbval; use a tag" for _ in comments]
    problems += [f"nothing is compared: {c.source.splitlines()[0]!r} has no output" for c in empty]
    if not any("nbval-check-output" in tags(cell) for cell in cells):
        problems.append("no result of this lesson is compared (tag `nbval-check-output`)")
    return problems


def alternatives(notebook: NotebookNode) -> list[str]:
    """Every picture says in words what it shows.

    Incident: a screen reader said '<Figure size 640x480 with 1 Axes>' eleven times.
    """
    pictures = [
        output.data
        for cell in code_cells(notebook)
        for output in cell.outputs
        if any(kind.startswith("image/") for kind in output.get("data", {}))
    ]
    texts = [data.get("text/plain", "") for data in pictures]
    return [
        f"a picture without words: {text!r}" for text in texts if len(text) < 20 or text[0] == "<"
    ]


def _output_texts(cell: NotebookNode) -> Iterator[str]:
    for output in cell.get("outputs", []):
        yield output.get("text", "")
        yield "\n".join(output.get("traceback", []))
        for kind, value in output.get("data", {}).items():
            if isinstance(value, str) and not kind.startswith("image/"):
                yield value


def _without_code_blocks(text: str) -> str:
    return re.sub(r"^```.*?^```", "", text, flags=re.DOTALL | re.MULTILINE)
