"""The commands that ask language models, run as a user runs them."""

from __future__ import annotations

import json

import pyarrow.parquet as pq
import pytest

from shared.commands.cli import main
from shared.evaluation import read_predictions
from tests.test_sources import lines, record


@pytest.fixture(autouse=True)
def _own_runs(tmp_path, monkeypatch):
    monkeypatch.setenv("COURSE_RUNS", str(tmp_path / "runs"))
    for name in ("OPENAI_API_KEY", "ANTHROPIC_API_KEY"):
        monkeypatch.delenv(name, raising=False)


@pytest.fixture
def source(tmp_path):
    path = tmp_path / "new.jsonl"
    path.write_bytes(
        lines(
            record(i, title=f"Steel kettle {i}", description=[f"Holds {i + 1} quarts."] * 9)
            for i in range(12)
        )
    )
    return path


def ask(source, out, *more):
    return main(["ask", str(source), "--out", str(out), "--model", "gpt-6-luna", *more])


def test_ask_says_the_cost_first_and_prices_everything(source, tmp_path, capsys):
    assert ask(source, tmp_path / "p.parquet") == 0
    out, err = capsys.readouterr()
    assert err.startswith("12 calls of gpt-6-luna")
    assert "cap $1.00" in err
    assert "no real money" in err
    assert "priced by gpt-6-luna, zero-shot (stand-in)" in out
    table = read_predictions(tmp_path / "p.parquet")
    assert len(table) == 12
    assert table["price_estimate"].null_count == 0
    assert min(table["input_tokens"].to_pylist()) > 0
    assert pq.read_schema(tmp_path / "p.parquet").metadata[b"label"] == b"stand-in"


def test_a_second_run_makes_no_call(source, tmp_path, capsys):
    ask(source, tmp_path / "a.parquet")
    capsys.readouterr()
    assert ask(source, tmp_path / "b.parquet") == 0
    assert "0 calls (12 answers were stored already)" in capsys.readouterr().err
    assert read_predictions(tmp_path / "a.parquet").equals(read_predictions(tmp_path / "b.parquet"))


def test_a_cap_of_nothing_prices_nothing_and_says_why(source, tmp_path, capsys):
    assert ask(source, tmp_path / "p.parquet", "--cap", "0", "--json") == 1  # nothing was priced
    manifest = json.loads(capsys.readouterr().out)
    assert manifest["failed"] == 12
    errors = read_predictions(tmp_path / "p.parquet")["error"].to_pylist()
    assert all("cap of $0.00" in error for error in errors)


def test_a_batch_from_the_command_line(source, tmp_path, capsys):
    assert ask(source, tmp_path / "p.parquet", "--batch", "--limit", "5") == 0
    err = capsys.readouterr().err
    assert "5 answers for $" in err
    assert "0 calls (5 answers were stored already)" in err


@pytest.mark.parametrize(
    ("more", "message"),
    [
        (["--technique", "magic"], "is not one of"),
        (["--technique", "similar"], "needs --train"),
        (["--technique", "chain", "--batch"], "several calls"),
        (["--cap", "-1"], "--cap"),
    ],
)
def test_wrong_usage_says_what_to_do(source, tmp_path, capsys, more, message):
    assert ask(source, tmp_path / "p.parquet", *more) == 2
    assert message in capsys.readouterr().err
    assert not (tmp_path / "p.parquet").exists()


def test_without_a_key_the_vendor_is_not_called(source, tmp_path, capsys):
    assert ask(source, tmp_path / "p.parquet", "--vendor") == 1
    assert "OPENAI_API_KEY" in capsys.readouterr().err


def test_models_are_compared_and_warned_of(capsys):
    assert main(["models"]) == 0
    out, err = capsys.readouterr()
    assert "claude-opus-5-5" in out
    assert "gpt-4o" in err
    assert main(["models", "--json"]) == 0
    first = json.loads(capsys.readouterr().out.splitlines()[0])
    assert first["name"] == "gpt-6-luna"
