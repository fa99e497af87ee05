"""The command line keeps its contract: names, exit codes, one clear line for every error."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from shared.course import check
from shared.course.check import Check
from shared.data.schema import PREDICTION

COMMANDS = ["run", "check", "curate", "fit", "price", "ladder", "label", "evaluate", "leaderboard"]
COMMANDS += ["badges", "notebooks"]


def shared(*arguments: object, **environ: str) -> subprocess.CompletedProcess:
    command = [sys.executable, "-m", "shared", *map(str, arguments)]
    return subprocess.run(
        command, env=os.environ | environ, capture_output=True, text=True, timeout=120
    )


def write_predictions(path: Path, pricer: str, off: float) -> Path:
    true = [float(10 + i) for i in range(30)]
    rows = {name: [None] * 30 for name in PREDICTION.names} | {
        "pricer": [pricer] * 30,
        "item_id": [f"i{i}" for i in range(30)],
        "price_true": true,
        "price_estimate": [None, *[price + off for price in true[1:]]],
        "error": ["no price", *[None] * 29],
    }
    pq.write_table(pa.table(rows, PREDICTION), path)
    return path


def write_records(path: Path, count: int = 60) -> Path:
    """Real-looking records: a third has no price."""
    kinds = ["dishwasher door latch", "guitar string set", "wireless desk phone", "torque wrench"]
    lines = [
        {
            "parent_asin": f"B{i:03}",
            "title": f"{kinds[i % 4]} model {i * 37 % 101} for the house and the garden",
            "features": [f"Weighs {i % 13 + 1} pounds", f"Comes with {i % 7 + 2} spare pieces"],
            "description": [f"A reliable {kinds[i % 4]} that many buyers number {i} like to use."],
            "details": "{}",
            "main_category": "Appliances",
            "price": None if i % 3 == 0 else 10.0 + i,
        }
        for i in range(count)
    ]
    path.write_text("".join(json.dumps(line) + "\n" for line in lines), encoding="utf-8")
    return path


def test_help_names_every_command_and_starts_fast() -> None:
    done = shared("--help")
    assert done.returncode == 0
    for command in COMMANDS:
        assert re.search(rf"^ +{command} ", done.stdout, re.MULTILINE), command
    probe = "import sys; sys.argv=['x', '--help']; from shared.commands.cli import main; main(); "
    probe += "print({'torch', 'datasets', 'pandas', 'matplotlib', 'nbformat'} & set(sys.modules))"
    loaded = subprocess.run([sys.executable, "-c", probe], capture_output=True, text=True)
    assert loaded.stdout.strip().endswith("set()"), "--help waits for heavy libraries"


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_has_help(command: str) -> None:
    done = shared(command, "--help")
    assert done.returncode == 0
    assert "Usage: python -m shared" in done.stdout


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["nonsense"], "No such command"),
        (["run", "--profile", "huge"], "huge"),
        (["run", "--seed", "minus"], "--seed"),
        (["run", "--source", "nowhere.jsonl"], "nowhere.jsonl"),
        (["curate", "nowhere.jsonl", "--out", "x"], "nowhere.jsonl"),
        (["curate", "embedded"], "--out"),
        (["price", "embedded", "--pricer", "magic", "--train", "x", "--out", "y"], "magic"),
        (["evaluate"], "PREDICTIONS"),
        (["leaderboard", "nowhere"], "nowhere"),
    ],
)
def test_wrong_usage_exits_2(arguments: list[str], message: str) -> None:
    done = shared(*arguments)
    assert done.returncode == 2, done
    assert message in done.stderr
    assert "Traceback" not in done.stderr
    assert done.stdout == ""


def test_failed_work_exits_1_with_one_line(tmp_path: Path) -> None:
    garbage = tmp_path / "garbage.parquet"
    garbage.write_text("no Parquet")
    done = shared("evaluate", garbage)
    assert done.returncode == 1
    assert done.stderr.startswith("Error: ")
    assert "garbage.parquet" in done.stderr
    assert len(done.stderr.splitlines()) == 1


def test_debug_shows_the_traceback(tmp_path: Path) -> None:
    missing = tmp_path / "missing.parquet"
    assert "Traceback" in shared("--debug", "evaluate", missing).stderr
    assert "Traceback" in shared("evaluate", missing, COURSE_DEBUG="1").stderr


def test_wrong_environment_is_wrong_usage() -> None:
    done = shared("run", COURSE_SEED="4x2")
    assert done.returncode == 2
    assert "COURSE_SEED" in done.stderr


def test_evaluate_prints_one_object_a_pricer(tmp_path: Path) -> None:
    files = [
        write_predictions(tmp_path / f"{n}.parquet", n, off) for n, off in [("a", 1), ("b", 5)]
    ]
    done = shared("evaluate", *files, "--json")
    rows = [json.loads(line) for line in done.stdout.splitlines()]
    assert [row["pricer"] for row in rows] == ["a", "b"]
    assert {"pricer", "n", "failed", "mae", "rmsle", "hits"} <= set(rows[0])
    assert (rows[0]["n"], rows[0]["failed"], rows[0]["mae"]) == (30, 1, 1.0)


def test_evaluate_prints_a_table(tmp_path: Path) -> None:
    done = shared("evaluate", write_predictions(tmp_path / "a.parquet", "guess", 1))
    assert done.returncode == 0, done.stderr
    assert "guess" in done.stdout


def test_records_to_leaderboard(tmp_path: Path) -> None:
    """The contract from end to end: curate, price, evaluate; prices unknown are no failures."""
    records = write_records(tmp_path / "records.jsonl")
    curated = shared("curate", records, "--out", tmp_path / "items", "--json")
    manifest = json.loads(curated.stdout)
    assert manifest["rows_in"] == 60
    assert manifest["rows_in"] == manifest["kept"] + sum(manifest["dropped"].values())
    out = tmp_path / "results" / "predictions.parquet"
    arguments = ["--pricer", "constant-median", "--train", tmp_path / "items", "--out", out]
    priced = shared("price", records, *arguments, "--json")
    assert json.loads(priced.stdout)["pricer"] == "constant-median"
    assert len(pq.read_table(out)) == 60, "every record gets a price"
    (row,) = map(json.loads, shared("evaluate", out, "--json").stdout.splitlines())
    assert (row["n"], row["failed"]) == (40, 0)
    page = tmp_path / "page.html"
    board = shared("leaderboard", out.parent, "--html", page)
    assert "constant-median" in board.stdout
    assert "constant-median" in page.read_text(encoding="utf-8")
    assert "| " in shared("leaderboard", out.parent, "--markdown").stdout
    (row,) = map(json.loads, shared("leaderboard", out.parent, "--json").stdout.splitlines())
    assert row["pricer"] == "constant-median"


def test_curate_tells_what_it_dropped(tmp_path: Path) -> None:
    done = shared("curate", write_records(tmp_path / "r.jsonl"), "--out", tmp_path / "items")
    assert "rows in: 60" in done.stdout
    assert "dropped" in done.stdout


# The environment check


def test_check_has_a_line_for_everything() -> None:
    pytest.importorskip("torch")
    done = shared("check", OPENAI_API_KEY="sk-secret", ANTHROPIC_API_KEY="")
    assert done.returncode == 0, done.stdout
    for line in (
        r"\[OK\]   Python",
        r"\[OK\]   pyarrow",
        r"\[OK\]   torch device",
        r"\[OK\]   disk",
    ):
        assert re.search(line, done.stdout), line
    assert "OPENAI_API_KEY: set" in done.stdout
    assert "ANTHROPIC_API_KEY: not set" in done.stdout
    assert "sk-secret" not in done.stdout + done.stderr


def test_check_speaks_json() -> None:
    pytest.importorskip("torch")
    found = json.loads(shared("check", "--json").stdout)
    assert found["ok"] is True
    assert {"name", "status", "detail"} == set(found["checks"][0])


def test_check_fails_on_what_is_missing_or_too_old(tmp_path: Path) -> None:
    path = tmp_path / "requirements.txt"
    path.write_text("# why\nnumpy>=999  # too new\nno-such-package>=1\npytest\n")
    statuses = {found.name: found for found in check.check_requirements(path)}
    assert statuses["numpy"].status == "FAIL"
    assert "needs >=999" in statuses["numpy"].detail
    assert "not installed" in statuses["no-such-package"].detail
    assert statuses["pytest"].status == "OK"
    assert check.check_python((3, 10, 4)).status == "FAIL"
    assert check.check_disk(tmp_path, needed=1e9).status == "FAIL"
    assert check.check_requirements(tmp_path / "none.txt")[0].status == "--"


def test_a_failed_check_exits_1(monkeypatch: pytest.MonkeyPatch, capsys) -> None:
    from shared.commands.cli import main

    monkeypatch.setattr(check, "all_checks", lambda root: [Check("disk", "FAIL", "full")])
    assert main(["check"]) == 1
    assert "[FAIL] disk: full" in capsys.readouterr().out


def test_keys_are_found_in_dotenv(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("HF_TOKEN", raising=False)
    assert check.check_key("HF_TOKEN", tmp_path).status == "--"
    (tmp_path / ".env").write_text("export HF_TOKEN=hf_secret\n")
    found = check.check_key("HF_TOKEN", tmp_path)
    assert (found.status, found.detail) == ("OK", "set in .env")
