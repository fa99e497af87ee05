"""When to train again, what the requirements came to, and the commands of the registry."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from datetime import UTC, datetime, timedelta

import numpy as np
import pytest

from shared.choosing import Requirements
from shared.compression.recorded import shipped
from shared.data import products
from shared.data.storage import write_json, write_parquet
from shared.releases import (
    Figure,
    Figures,
    Registry,
    ReleaseError,
    check_requirements,
    error_of,
    refit,
    shipped_release,
    should_retrain,
)  # fmt: skip
from shared.releases.nonfunctional import to_console, to_markdown
from shared.releases.retraining import together
from shared.watching import Signal, item_key
from tests.test_releases import ITEMS, splits

RELEASE = shipped_release()
TODAY = datetime.fromisoformat(RELEASE.created) + timedelta(days=1)
ALARM = Signal("error", 9.0, 5.0, 0.001, True, "errors have grown")
QUIET = Signal("length", 0.01, 0.1, 0.9, False, "texts are as long as they were")


def test_nothing_speaks_for_training_a_fresh_model_again():
    advice = should_retrain(RELEASE, signals=[QUIET], new_truths=10_000, now=TODAY)
    assert not advice.due
    assert advice.why == advice.against == ()
    assert "Do not train again yet" in str(advice)


def test_an_alarm_is_a_reason_if_there_is_something_to_learn_from():
    advice = should_retrain(RELEASE, signals=[QUIET, ALARM], new_truths=500, now=TODAY)
    assert advice.due
    assert advice.why == ("alarm: errors have grown",)
    few = should_retrain(RELEASE, signals=[ALARM], new_truths=499, now=TODAY)
    assert not few.due
    assert "499 new true prices, and 500 are needed" in str(few)


def test_grown_errors_say_how_much_there_is_to_win_back():
    now, recent = TODAY, np.random.default_rng(0).exponential(80.0, 2_000)
    advice = should_retrain(RELEASE, new_truths=2_000, errors=recent, now=now)
    assert advice.due
    assert advice.low < advice.gain < advice.high
    assert advice.gain == pytest.approx(recent.mean() - RELEASE.metrics["test"]["mae"])
    assert "win back at most: $3" in str(advice)
    same = should_retrain(RELEASE, new_truths=2_000, errors=recent * 0.63, now=now)
    assert not same.due
    assert same.low < 0 < same.high


@pytest.mark.parametrize("errors", [None, [], [5.0], [np.nan, np.nan]])
def test_a_gain_that_nobody_measured_is_no_number(errors):
    advice = should_retrain(RELEASE, errors=errors and np.array(errors), now=TODAY)
    assert np.isnan(advice.gain)
    assert "win back" not in str(advice)


def test_age_is_a_reason_and_a_clock_set_back_is_none():
    later = should_retrain(RELEASE, new_truths=500, now=TODAY + timedelta(days=100))
    assert later.due
    assert "101 days old" in later.why[0]
    before = should_retrain(
        RELEASE, signals=[ALARM], new_truths=500, now=datetime(1980, 1, 1, tzinfo=UTC)
    )
    assert not before.due
    assert "set the clock" in before.against[0]


def test_a_refitted_pricer_is_a_candidate_and_no_more(tmp_path):
    registry = Registry(tmp_path / "registry")
    registry.add("student", shipped("small"), items=ITEMS)
    registry.promote("v1", "made")
    new = splits(seed=2, dearer=1.5)
    for split in new:
        ids = [f"new-{i}" for i in new[split]["id"].to_pylist()]
        new[split] = new[split].set_column(0, "id", [ids])
    release = refit(registry, "constant-median", ITEMS, new)
    assert (release.version, registry.current_version) == ("v2", "v1")
    assert "240 old and new items" in release.note
    assert release.metrics["test"]["n"] == 240
    learnt = np.concatenate([t["train"]["price"].to_numpy() for t in (ITEMS, new)])
    found = release.open().price(products(new["test"])).price
    assert found == pytest.approx(np.median(learnt))


def test_the_new_price_of_an_item_counts_and_nothing_held_out_is_learnt():
    """Incident: what was test in May was train in June, and the new model was a marvel."""
    again = splits(dearer=2.0)
    found = together(ITEMS, again)
    assert {split: table.num_rows for split, table in found.items()} == dict.fromkeys(ITEMS, 120)
    assert found["train"]["price"].to_pylist() == again["train"]["price"].to_pylist()
    leaked = {"train": ITEMS["test"].slice(0, 50)}
    kept = together({"test": ITEMS["test"]}, leaked)
    assert [kept[split].num_rows for split in ("train", "validation", "test")] == [0, 0, 120]
    double = leaked["train"].set_column(0, "id", [[f"double-{i}" for i in range(50)]])
    assert together({"test": ITEMS["test"]}, {"train": double})["train"].num_rows == 0
    assert together({"test": ITEMS["test"].slice(50)}, leaked)["train"].num_rows == 50


def test_nothing_left_to_learn_from_is_an_error(tmp_path):
    with pytest.raises(ReleaseError, match="no items to learn from"):
        refit(Registry(tmp_path), "constant-median", {"test": ITEMS["test"]}, {})


NEED = Requirements(
    per_day=100_000, latency_ms=200, budget_usd=50, error_usd=55, machine_usd_hour=0.05
)
MEASURED = Figures(
    per_second=Figure(900, "load test, 2 cores"),
    p95_seconds=Figure(0.012, "load test, 2 cores"),
    error_usd=error_of(RELEASE),
    days_to_market=Figure(12, "calendar"),
)


def held(need=NEED, figures=MEASURED, **more):
    return {c.requirement: c.holds for c in check_requirements(need, figures, **more)}


def test_requirements_are_set_against_figures():
    assert held(days_to_market=30) == {
        "budget": "yes", "latency": "yes", "scale": "yes", "error": "yes", "time to market": "yes",
    }  # fmt: skip
    budget, latency, scale, error, market = check_requirements(NEED, MEASURED, days_to_market=30)
    assert budget.measured == "$36.50 a month"  # 0.05 an hour, 730 hours
    assert latency.measured == "95 % within 12 ms"
    assert scale.required.startswith("100,000 a day: 2.31 a second")
    assert "$49.36 [$44.72 to $54.71]" in error.measured
    assert error.source == "small student, pruned, int8 (shipped), 1,089 test items"
    assert market.measured == "12 days"


@pytest.mark.parametrize(
    ("need", "figures", "fails"),
    [
        ({"budget_usd": 36}, {}, "budget"),
        ({"latency_ms": 11}, {}, "latency"),
        ({"error_usd": 49}, {}, "error"),
        ({}, {"per_second": Figure(2.3, "load test")}, "scale"),
        ({}, {"days_to_market": Figure(31, "calendar")}, "time to market"),
    ],
)
def test_what_does_not_hold_is_a_no(need, figures, fails):
    from dataclasses import replace

    found = held(replace(NEED, **need), replace(MEASURED, **figures), days_to_market=30)
    assert found.pop(fails) == "no"
    assert "no" not in found.values()


def test_what_nobody_measured_is_never_a_yes():
    found = check_requirements(NEED, Figures(), days_to_market=30)
    assert {check.holds for check in found} == {"not measured"}
    assert "yes" not in to_console(found)
    assert error_of(RELEASE, split="train") is None


def test_what_was_not_required_is_not_called_kept():
    found = held(Requirements(), MEASURED)
    assert found["latency"] == found["error"] == found["budget"] == "not required"


def test_a_budget_for_too_few_machines_is_not_measured():
    """Incident to be: the cheapest machine meets every budget, and prices a tenth of the orders."""
    slow = Figures(per_second=Figure(1, "load test"))
    assert held(NEED, slow)["budget"] == "not measured"
    assert held(NEED, slow, machines=3)["budget"] == "no"
    assert held(NEED, slow, machines=3)["scale"] == "yes"
    said = check_requirements(NEED, slow, machines=3)
    assert "more were not measured" in said[2].source


def test_calls_to_a_vendor_are_paid_by_their_number():
    calls = Figures(usd_per_thousand=Figure(0.5, "usage", label="stand-in"))
    need = Requirements(per_day=1_000, budget_usd=15)
    budget = check_requirements(need, calls)[0]
    assert budget.measured == "$15.21 a month"  # 30.4 days of a thousand
    assert budget.holds == "no"
    assert budget.source.endswith("usage (stand-in)")


def test_an_interval_around_the_limit_asks_for_more_items():
    need = Requirements(error_usd=50)
    assert "more test items would tell" in check_requirements(need, MEASURED)[3].measured


@pytest.mark.parametrize("value", [-1, float("nan"), float("inf"), None, "5", True])
def test_a_figure_is_a_number_with_a_source(value):
    with pytest.raises(ValueError, match="no measured number"):
        Figure(value, "load test")
    with pytest.raises(ValueError, match="nowhere"):
        Figure(1.0, " ")


def test_tables_are_text_and_markdown():
    found = check_requirements(NEED, MEASURED)
    assert to_console(found).splitlines()[0].split()[:2] == ["requirement", "required"]
    assert to_markdown(found).count("\n") == 6
    assert "not required" in to_markdown(found)


def command(*arguments: object, registry) -> subprocess.CompletedProcess:
    """Run ``python -m shared release …`` as it is registered."""
    code = (
        "import sys; from shared.commands import release_commands; "
        "from shared.commands.cli import main; sys.exit(main(sys.argv[1:]))"
    )
    return subprocess.run(
        [sys.executable, "-c", code, "release", *map(str, arguments), "--registry", str(registry)],
        capture_output=True, text=True, timeout=120, env=os.environ | {"COLUMNS": "200"},
    )  # fmt: skip


@pytest.fixture(scope="module")
def item_folder(tmp_path_factory):
    """A folder of curated items, as ``open_items`` reads it."""
    import pyarrow as pa

    folder = tmp_path_factory.mktemp("items")
    write_parquet(pa.concat_tables(ITEMS.values()), folder / "items.parquet")
    write_json({"fingerprint": "x", "rows_in": 1}, folder / "manifest.json")
    return folder


def test_the_commands_from_a_model_to_its_way_back(item_folder, tmp_path):
    registry = tmp_path / "registry"
    assert "has no versions; see: python -m shared release add" in command(
        "list", registry=registry
    ).stdout  # fmt: skip
    for name in ("smallest", "small"):
        done = command("add", "student", shipped(name), "--items", item_folder, registry=registry)
        assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("v2: small student, pruned, int8, error $")
    for version in ("v1", "v2"):
        assert command("promote", version, registry=registry).returncode == 0
    listed = command("list", "--json", registry=registry).stdout.splitlines()
    assert [json.loads(line)["current"] for line in listed] == [False, True]
    assert command("rollback", "--why", "complaints", registry=registry).returncode == 0
    assert "* v1" in command("list", registry=registry).stdout
    assert "rolled back (" in command("history", registry=registry).stdout
    refused = command("promote", "../v1", registry=registry)
    assert refused.returncode == 1
    assert refused.stderr.startswith("Error: '../v1' is no name of a version")
    (registry / "v2" / "release.json").write_text("{")
    assert command("check", "v2", registry=registry).returncode == 1
    assert command("list", registry=registry).returncode == 1


def test_the_commands_of_a_canary_release(item_folder, tmp_path):
    registry = Registry(tmp_path / "registry")
    for name in ("smallest", "small"):
        registry.add("student", shipped(name), items=ITEMS)
    registry.promote("v1", "made")
    begun = command(
        "canary", "v2", "--margin-share", "0.3", "--share", "1", registry=registry.folder
    )
    assert begun.returncode == 0, begun.stderr
    pruned = command("prune", "--keep", "0", registry=registry.folder)
    assert pruned.stdout.strip() == "pruned: nothing"
    truths = tmp_path / "truths.jsonl"
    truths.write_text(json.dumps({"item": item_key("x"), "price": 5.0}) + "\n")
    looked = command("look", truths, registry=registry.folder)
    assert looked.stdout.splitlines() == ["no look is due", "under way."]
    assert command("look", tmp_path / "none", registry=registry.folder).returncode == 2
    assert "given up" in command("stop", "--why", "enough", registry=registry.folder).stdout
    again = command("stop", "--why", "enough", registry=registry.folder)
    assert again.returncode == 1
    assert "no canary release is under way" in again.stderr
