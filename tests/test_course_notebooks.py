"""Lessons execute in order, fail loudly, stop cleanly, and are recorded without their author."""

from __future__ import annotations

import io
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import nbformat
import psutil
import pytest
from nbformat.v4 import new_code_cell, new_markdown_cell, new_notebook

from shared.course import badges, setup_cell
from shared.course.notebooks import LessonFailed, environment, execute, find_lessons, write_notebook
from shared.course.record import describe_run, normalise, record_lessons, recorded_line
from shared.course.run import run_lessons
from shared.settings import Settings

ADDRESS = "https://github.com/somebody/a-course"


def lesson(root: Path, name: str, *sources: str) -> Path:
    path = root / f"{name}.ipynb"
    path.parent.mkdir(parents=True, exist_ok=True)
    cells = [new_markdown_cell("# A lesson"), *map(new_code_cell, sources)]
    nbformat.write(new_notebook(cells=cells), path)
    return path


def printed(path: Path) -> str:
    cells = nbformat.read(path, as_version=4).cells
    return "".join(output.get("text", "") for cell in cells for output in cell.get("outputs", []))


def test_lessons_come_in_course_order(tmp_path: Path) -> None:
    for name in ("week10/1_a", "week6/10_b", "week6/2_c", "week7/1_d", "week6/notes", "other/1_x"):
        lesson(tmp_path, name)
    names = [found.name for found in find_lessons(tmp_path)]
    assert names == ["week6/2_c", "week6/10_b", "week7/1_d", "week10/1_a"]


def test_run_executes_with_our_settings_in_the_lessons_folder(tmp_path: Path) -> None:
    probe = "import os, sys; print(os.getcwd()); print(sys.executable)"
    lesson(
        tmp_path, "week6/1_a", probe, "from shared.course import welcome; s = welcome()\nprint(s)"
    )
    records = tmp_path / "records.jsonl"
    records.touch()
    settings = Settings(source=str(records), runs=tmp_path / "runs", seed=7, profile="colab")
    stream = io.StringIO()
    run_lessons(find_lessons(tmp_path), settings, stream)
    text = printed(settings.notebooks / "week6" / "1_a.ipynb")
    assert text.startswith(f"{tmp_path / 'week6'}\n{sys.executable}\n")
    assert "records: records.jsonl" in text
    assert repr(settings) in text
    assert re.fullmatch(r"\[1/1\] week6/1_a …\n\[1/1\] week6/1_a: \d+ s\n", stream.getvalue())
    assert "outputs" not in printed(tmp_path / "week6" / "1_a.ipynb"), "the original is untouched"


def test_a_terminal_shows_the_running_cell(tmp_path: Path) -> None:
    class Terminal(io.StringIO):
        def isatty(self) -> bool:
            return True

    lesson(tmp_path, "week6/1_a", "1", "2")
    stream = Terminal()
    run_lessons(find_lessons(tmp_path), Settings(runs=tmp_path / "runs"), stream)
    assert "cell 2/2" in stream.getvalue()


def needing(path: Path, *needs: str) -> Path:
    notebook = nbformat.read(path, as_version=4)
    notebook.metadata["course"] = {"needs": list(needs)}
    nbformat.write(notebook, path)
    return path


MEET = (
    "import pathlib, time\npathlib.Path({mine!r}).touch()\n"
    "while not pathlib.Path({other!r}).exists(): time.sleep(0.05)"
)


def test_lessons_that_do_not_need_each_other_run_side_by_side(tmp_path: Path) -> None:
    """Each waits for the other one: one after the other, they would never end."""
    lesson(tmp_path, "week6/1_a", MEET.format(mine="a", other="b"))
    needing(lesson(tmp_path, "week6/2_b", MEET.format(mine="b", other="a")))
    lesson(
        tmp_path, "week6/3_c", "import pathlib; print(sorted(map(str, pathlib.Path().glob('?'))))"
    )
    settings = Settings(runs=tmp_path / "runs")
    run_lessons(find_lessons(tmp_path), settings, io.StringIO(), at_once=2)
    assert printed(settings.notebooks / "week6" / "3_c.ipynb") == "['a', 'b']\n"


def test_a_lesson_waits_for_those_it_needs(tmp_path: Path) -> None:
    """Incident: the ensemble was made while its best member was still being trained."""
    lesson(tmp_path, "week6/1_a", "import time, pathlib; time.sleep(1); pathlib.Path('a').touch()")
    lesson(tmp_path, "week6/2_b", "import pathlib; print(pathlib.Path('a').exists())")
    needing(lesson(tmp_path, "week6/3_c", "import pathlib; print(pathlib.Path('a').exists())"),
            "week6/1_a")  # fmt: skip
    settings = Settings(runs=tmp_path / "runs")
    run_lessons(find_lessons(tmp_path), settings, io.StringIO(), at_once=3)
    for name in ("2_b", "3_c"):
        assert printed(settings.notebooks / "week6" / f"{name}.ipynb") == "True\n"


@pytest.mark.parametrize("needs", ["week6/9_gone", "week6/1_a"], ids=["unknown", "itself"])
def test_needs_that_cannot_be_met_are_an_error(tmp_path: Path, needs: str) -> None:
    needing(lesson(tmp_path, "week6/1_a", "1"), needs)
    with pytest.raises(ValueError, match="1_a"):
        run_lessons(find_lessons(tmp_path), Settings(runs=tmp_path / "runs"), io.StringIO())


def test_a_failing_lesson_stops_the_one_beside_it(tmp_path: Path) -> None:
    wait = "import pathlib, time\nwhile not pathlib.Path('pid').exists(): time.sleep(0.05)\n1/0"
    lesson(tmp_path, "week6/1_a", wait)
    needing(lesson(tmp_path, "week6/2_b", SLOW))
    with pytest.raises(LessonFailed, match="1_a"):
        run_lessons(
            find_lessons(tmp_path), Settings(runs=tmp_path / "runs"), io.StringIO(), at_once=2
        )
    assert gone(int((tmp_path / "week6" / "pid").read_text()), within=5)


def test_the_courses_own_lessons_can_all_run() -> None:
    """Incident: a lesson was renamed, and the one that needed it never began."""
    lessons = find_lessons(Path(__file__).resolve().parent.parent)
    names = {found.name for found in lessons}
    unknown = {found.name: set(found.needs or ()) - names for found in lessons}
    assert not {name: lacking for name, lacking in unknown.items() if lacking}


def test_failing_cell_stops_the_run_and_says_where(tmp_path: Path) -> None:
    lesson(tmp_path, "week6/1_a", "print('so far')", "\nprice = {}\nprice['x']", "print('after')")
    lesson(tmp_path, "week6/2_b", "1")
    settings = Settings(runs=tmp_path / "runs")
    with pytest.raises(LessonFailed) as caught:
        run_lessons(find_lessons(tmp_path), settings, io.StringIO())
    for part in (
        "week6/1_a.ipynb, code cell 2",
        "price = {}",
        "KeyError: 'x'",
        "half-executed copy",
    ):
        assert part in str(caught.value)
    copy = settings.notebooks / "week6" / "1_a.ipynb"
    assert printed(copy) == "so far\n"
    assert not copy.with_name("2_b.ipynb").exists()


def test_a_kernel_that_dies_is_a_failing_cell(tmp_path: Path) -> None:
    path = lesson(tmp_path, "week6/1_a", "import os; os._exit(9)")
    with pytest.raises(LessonFailed, match="its Python died"):
        execute(path, environment(Settings()))


# Stopping: a real process, a real signal


def start(root: Path, *arguments: str) -> subprocess.Popen:
    """Start the command line on a course that lies in ``root``."""
    code = (
        "import sys; from pathlib import Path; from shared.commands import cli, lesson_commands\n"
        f"lesson_commands.repository_root = lambda: Path({str(root)!r})\n"
        f"sys.exit(cli.main({list(arguments)!r}))"
    )
    return subprocess.Popen(
        [sys.executable, "-c", code],
        cwd=root,
        env=os.environ | {"COURSE_RUNS": str(root / "runs")},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def wait_for_pid(path: Path) -> int:
    deadline = time.monotonic() + 60
    while not (path.exists() and path.read_text().endswith("\n")):
        assert time.monotonic() < deadline, "the cell never started"
        time.sleep(0.05)
    return int(path.read_text())


def gone(pid: int, within: float) -> bool:
    deadline = time.monotonic() + within
    while time.monotonic() < deadline:
        if not psutil.pid_exists(pid) or psutil.Process(pid).status() == psutil.STATUS_ZOMBIE:
            return True
        time.sleep(0.1)
    return False


SLOW = (
    "import os, pathlib, time\npathlib.Path('pid').write_text(f'{os.getpid()}\\n')\ntime.sleep(99)"
)


@pytest.mark.parametrize("stop", [signal.SIGINT, signal.SIGTERM], ids=["Ctrl-C", "terminated"])
def test_stopped_run_leaves_no_kernel(tmp_path: Path, stop: signal.Signals) -> None:
    """Incident: after Ctrl-C a kernel trained on for an hour; the next run took twice as long."""
    lesson(tmp_path, "week6/1_a", "print(1)")
    lesson(tmp_path, "week6/2_b", SLOW)
    process = start(tmp_path, "run")
    kernel = wait_for_pid(tmp_path / "week6" / "pid")
    process.send_signal(stop)
    out, err = process.communicate(timeout=30)
    assert process.returncode == 130, err
    assert "What is done is kept" in err
    assert "Traceback" not in err
    assert "[1/2] week6/1_a" in out
    assert gone(kernel, within=5), "the kernel is still running"
    assert list(tmp_path.glob("runs/*/notebooks/week6/1_a.ipynb"))


def test_killed_run_leaves_no_kernel_and_no_half_file(tmp_path: Path) -> None:
    lesson(tmp_path, "week6/1_a", SLOW)
    process = start(tmp_path, "run")
    kernel = wait_for_pid(tmp_path / "week6" / "pid")
    process.kill()
    process.communicate(timeout=30)
    assert gone(kernel, within=10), "the kernel outlives a killed run"
    assert not list(tmp_path.glob("runs/*/notebooks/**/*.ipynb"))


PRICING = """
import os, pathlib, time
from shared.evaluation import evaluate
from shared.settings import Settings

def slow(product):
    with open('asked', 'a') as file:
        file.write(f'{os.getpid()} {product.id}\\n')
    time.sleep(0.02)
    return 10.0

items = [{'id': f'p{i:03}', 'text': 'x', 'price': 5.0 + i, 'split': 'test'} for i in range(120)]
evaluate(slow, items, store=Settings.from_environment().results, batch_size=10, progress=False)
"""


def test_a_killed_run_goes_on_and_ends_in_the_same_table(tmp_path: Path) -> None:
    """Incident: a laptop went to sleep at product 9,000, and all 9,000 were paid for again."""
    lesson(tmp_path / "killed", "week6/1_a", PRICING)
    lesson(tmp_path / "whole", "week6/1_a", PRICING)
    process = start(tmp_path / "killed", "run")
    asked = tmp_path / "killed" / "week6" / "asked"
    deadline = time.monotonic() + 60
    while not asked.exists() or asked.read_text().count("\n") < 45:
        assert time.monotonic() < deadline, "the cell never started"
        time.sleep(0.02)
    process.kill()
    process.communicate(timeout=30)
    assert not list((tmp_path / "killed").glob("runs/*/results/*.manifest.json"))
    tables = []
    for course in ("killed", "whole"):
        out, err = start(tmp_path / course, "run").communicate(timeout=60)
        assert "slow" in out, err
        tables.append(re.findall(r"^ +1  slow +\S+ \[.*?\]", out, re.MULTILINE))
    assert tables[0] == tables[1] != []
    first, second = {}, {}
    for line in asked.read_text().splitlines():
        pid, product = line.split()
        (first if pid == asked.read_text().split()[0] else second)[product] = pid
    assert len(second) < 120 - 30, "what was stored is priced again"
    assert len(set(first) & set(second)) <= 10, "more than the unfinished batch is priced again"


def test_run_ends_with_the_leaderboard_and_its_page(tmp_path: Path) -> None:
    lesson(tmp_path, "week6/1_a", "1")
    out, err = start(tmp_path, "run").communicate(timeout=60)
    assert "No finished results yet." in out, err
    page = re.search(r"The same as a page: (\S+)", out).group(1)
    assert not Path(page).is_absolute()
    assert "<html" in (tmp_path / page).read_text(encoding="utf-8")
    assert (tmp_path / page).with_suffix(".md").is_file()


def test_failing_run_exits_1(tmp_path: Path) -> None:
    lesson(tmp_path, "week6/1_a", "1/0")
    process = start(tmp_path, "run")
    _, err = process.communicate(timeout=60)
    assert process.returncode == 1
    assert err.startswith("Error: week6/1_a.ipynb, code cell 1\n  1/0\n  ZeroDivisionError")


def test_a_course_without_lessons_says_so(tmp_path: Path) -> None:
    process = start(tmp_path, "run")
    assert "no lessons" in process.communicate(timeout=60)[1]
    assert process.returncode == 1


# Recording


def test_recording_is_clean_and_stable(tmp_path: Path) -> None:
    path = lesson(tmp_path, "week6/1_a", "print(1)", "1", "1")
    notebook = nbformat.read(path, as_version=4)
    notebook.metadata = {"kernelspec": {"name": "mine", "display_name": "Mine"}, "widgets": {}}
    notebook.cells[1].metadata = {"tags": ["setup"], "execution": {}, "collapsed": True}
    notebook.cells.insert(
        1, new_markdown_cell("*Recorded run: old*", metadata={"tags": ["recorded-run"]})
    )
    nbformat.write(notebook, path)
    told = []
    record_lessons(tmp_path, find_lessons(tmp_path), told.append)
    done = nbformat.read(path, as_version=4)
    assert done.metadata.kernelspec == {
        "display_name": "Python 3",
        "language": "python",
        "name": "python3",
    }
    assert done.metadata.language_info == {"name": "python"}
    recorded = done.metadata.course.recorded
    assert set(recorded) == {"seconds", "date", "python", "hardware", "gpu", "cost_usd"}
    assert done.cells[1].source == recorded_line(recorded)
    assert recorded_line(recorded) in told[0]
    assert done.cells[2].metadata == {"tags": ["setup"]}
    assert [cell.execution_count for cell in done.cells[2:]] == [1, 2, 3]
    before = path.read_bytes()
    write_notebook(normalise(nbformat.read(path, as_version=4)), path)
    assert path.read_bytes() == before, "normalising twice changes nothing"


def test_failed_recording_keeps_the_old_lesson(tmp_path: Path) -> None:
    path = lesson(tmp_path, "week6/1_a", "1/0")
    before = path.read_bytes()
    with pytest.raises(LessonFailed):
        record_lessons(tmp_path, find_lessons(tmp_path), print)
    assert path.read_bytes() == before
    assert list(path.parent.iterdir()) == [path]


def test_cell_ids_become_unique_and_stay() -> None:
    notebook = new_notebook()
    notebook.cells = [new_code_cell("1", id=name) for name in ("same", "same", "other")]
    notebook = normalise(notebook)
    ids = [cell.id for cell in notebook.cells]
    assert len(set(ids)) == 3
    assert (ids[0], ids[2]) == ("same", "other")
    assert [cell.id for cell in normalise(notebook).cells] == ids


def test_recorded_line_reads_well() -> None:
    recorded = describe_run(20.6) | {"hardware": "2 CPU cores", "gpu": False, "python": "3.11.7"}
    line = recorded_line(recorded | {"date": "2026-11-21"})
    assert line == (
        "*Recorded run: 21 s on 2 CPU cores, no GPU, $0.00 of API calls "
        "(Python 3.11.7, 2026-11-21).*"
    )
    assert "4 min" in recorded_line(recorded | {"seconds": 240})


# The setup cell, badges and the address


def test_welcome_prints_no_path(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys) -> None:
    source = tmp_path / "records.jsonl"
    source.touch()
    monkeypatch.setenv("COURSE_SOURCE", str(source))
    monkeypatch.setenv("COURSE_RUNS", str(tmp_path / "runs"))
    settings = setup_cell.welcome()
    printed_text = capsys.readouterr().out
    assert settings.source == str(source)
    assert str(tmp_path) not in printed_text
    assert "Python 3." in printed_text
    assert f"runs/{settings.home.name}" in printed_text


def test_setup_cell_installs_only_where_the_package_is_absent(tmp_path: Path) -> None:
    """Executed for real: it finds the package and installs nothing."""
    path = lesson(tmp_path, "week6/1_a", setup_cell.setup_cell("https://example.invalid/none"))
    done = execute(path, environment(Settings(runs=tmp_path / "runs")))
    text = "".join(output.text for output in done.cells[1].outputs)
    assert text.startswith("Python 3.")
    assert "pip" not in text


def course(root: Path) -> Path:
    (root / "pyproject.toml").write_text(
        '[project.urls]\nRepository = "https://github.com/OLD_NAME/price-course"\n'.replace(
            "[project.urls]", "[project]\nname = 'x'\n[project.urls]"
        )
    )
    slug = "github.com/OLD_NAME/price-course"
    (root / "README.md").write_text(
        f"https://{slug} https://{slug}.git https://{slug}-notes "
        "https://colab.research.google.com/github/OLD_NAME/price-course/blob/main/week6/1_a.ipynb"
    )
    path = lesson(root, "week6/1_a", "old setup")
    notebook = nbformat.read(path, as_version=4)
    notebook.cells[
        0
    ].source = "# A\n\n[![x](https://colab/colab-badge.svg)](https://wrong/2_b.ipynb)"
    notebook.cells[1].metadata["tags"] = ["setup"]
    nbformat.write(notebook, path)
    return path


def test_badges_move_the_whole_course(tmp_path: Path) -> None:
    path = course(tmp_path)
    changed = badges.move(tmp_path, f"{ADDRESS}.git")
    assert {p.name for p in changed} == {"pyproject.toml", "README.md", "1_a.ipynb"}
    assert badges.repository(tmp_path) == ADDRESS
    notebook = nbformat.read(path, as_version=4)
    link = "https://colab.research.google.com/github/somebody/a-course/blob/main/week6/1_a.ipynb"
    assert f"({link})" in notebook.cells[0].source
    assert notebook.cells[1].source == setup_cell.setup_cell(ADDRESS)
    readme = (tmp_path / "README.md").read_text()
    assert readme == (
        f"{ADDRESS} {ADDRESS}.git https://github.com/OLD_NAME/price-course-notes {link}"
    )
    assert badges.refresh(tmp_path) == []


@pytest.mark.parametrize(
    "address", ["somebody/a-course", "https://gitlab.com/a/b", "https://github.com/a"]
)
def test_badges_refuse_what_is_no_repository(tmp_path: Path, address: str) -> None:
    course(tmp_path)
    with pytest.raises(ValueError, match="is not of the form"):
        badges.move(tmp_path, address)
