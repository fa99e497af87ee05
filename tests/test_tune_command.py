"""`tune` and `price --model` as a company would use them, and the adapter that is shipped."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest

torch = pytest.importorskip("torch")

from test_fine_tuning import make_small_base  # noqa: E402

from shared.commands.cli import main  # noqa: E402
from shared.data import products  # noqa: E402
from shared.data.storage import fingerprint  # noqa: E402
from shared.open_models.adapters import TUNED, AdapterError, push, read_tuned  # noqa: E402
from shared.open_models.opening import fingerprint_of  # noqa: E402
from shared.open_models.pricer import tuned_pricer  # noqa: E402
from shared.pipeline import course_items, prepare  # noqa: E402
from shared.settings import Settings  # noqa: E402
from shared.training.fine_tuning import plan_for  # noqa: E402


@pytest.fixture(scope="module")
def folders(tmp_path_factory) -> tuple[Path, Path]:
    """A folder of items, and a base that can be tuned in seconds."""
    home = tmp_path_factory.mktemp("company")
    prepare("embedded", home / "items", size=400, progress=False)
    return home / "items", make_small_base(home / "base")


def test_tune_then_price(folders, tmp_path, capsys) -> None:
    items, base = folders
    out, merged = tmp_path / "tuned", tmp_path / "merged"
    command = ["tune", "--train", str(items), "--out", str(out), "--base", str(base)]
    command += ["--rank", "4", "--tokens", "12", "--limit", "48", "--track", "none"]
    assert main([*command, "--merged", str(merged)]) == 0
    said = capsys.readouterr().out
    assert "3 steps" in said
    assert "Error on validation: $" in said
    assert (merged / "model.safetensors").exists()
    assert main([*command, "--json"]) == 0, "a finished run is opened"
    assert json.loads(capsys.readouterr().out)["plan"]["alpha"] == 8
    records = tmp_path / "new.jsonl"
    records.write_text(json.dumps({"parent_asin": "X1", "title": "A mug for tea, 12 oz"}) + "\n")
    predictions = tmp_path / "p.parquet"
    assert main(["price", str(records), "--model", str(out), "--out", str(predictions)]) == 0
    row = pq.read_table(predictions).to_pylist()[0]
    assert row["price_estimate"] is not None
    assert "QLoRA" in row["pricer"]


@pytest.mark.parametrize(
    ("more", "says"),
    [
        (["--base", "no model/has/such a name"], "misspelt"),
        (["--rate", "-1"], "rate"),
        (["--rate", "0"], "rate"),
        (["--bits", "5"], "5 bits"),
        (["--targets", "nothing_proj"], "nothing_proj"),
        (["--track", "tensorboard"], "trackio"),
    ],
)
def test_wrong_usage_says_what_to_do(folders, tmp_path, capsys, more, says) -> None:
    items, base = folders
    command = ["tune", "--train", str(items), "--out", str(tmp_path / "x"), "--base", str(base)]
    assert main([*command, "--limit", "20", "--tokens", "8", "--track", "none", *more]) != 0
    assert says in capsys.readouterr().err
    assert not (tmp_path / "x" / "manifest.json").exists()


def test_a_hub_that_refuses_leaves_the_adapter_where_it_is(folders, tmp_path, monkeypatch) -> None:
    monkeypatch.setenv("HF_TOKEN", "hf_nobody")
    with pytest.raises(AdapterError, match="write OWNER/NAME"):
        push(TUNED, "not a name / at all")
    assert read_tuned(TUNED)


def test_the_shipped_adapter_is_the_course_s_plan_on_the_course_s_items() -> None:
    manifest = read_tuned(TUNED)
    plan = plan_for("tiny")
    assert manifest["plan"] == json.loads(json.dumps(vars(plan)))
    assert manifest["base"]["fingerprint"] == fingerprint_of("tiny")
    items = course_items(Settings.from_environment({}), progress=False)
    order = np.random.default_rng(plan.seed).permutation(len(items.table("train")))
    assert manifest["train"] == fingerprint(items.table("train").take(order))
    some = items.table("validation").slice(0, 300)
    found = tuned_pricer().price(products(some)).price
    error = np.abs(found - np.asarray(some["price"])).mean()
    measured = next(c for c in manifest["curve"] if c["step"] == manifest["best_step"])
    assert error == pytest.approx(measured["eval_dollars"], rel=0.2), "of 500 items, these 300"
