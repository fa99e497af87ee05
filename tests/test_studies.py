"""Studies: the same training many times, rows kept, nothing done twice; and the charts of it."""

from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import pytest

torch = pytest.importorskip("torch")

from test_fine_tuning import TRAIN, VALIDATION, items_of, make_small_base  # noqa: E402

from shared.data.storage import file_hash, fingerprint  # noqa: E402
from shared.open_models.reading import Distribution  # noqa: E402
from shared.training import TINY, studies  # noqa: E402
from shared.training.charts import (  # noqa: E402
    LiveCurve,
    distribution_chart,
    dollars_curve,
    settings_chart,
    trials_chart,
)
from shared.training.fine_tuning import Plan, fine_tune  # noqa: E402


@pytest.fixture(scope="module")
def plan(tmp_path_factory) -> Plan:
    base = make_small_base(tmp_path_factory.mktemp("base"))
    return Plan(
        base=str(base), rank=4, rate=2e-2, text_tokens=12, evaluations=1, validation=20, limit=64
    )


def test_every_choice_has_its_study_and_several_seeds() -> None:
    found = studies.trials((1, 2))
    assert {t.study for t in found} == {
        "rank", "targets", "bits", "loss", "rate", "size", "noise"
    }  # fmt: skip
    assert {t.plan.seed for t in found} == {1, 2}
    for study in {t.study for t in found}:
        settings = [t.setting for t in found if t.study == study and t.plan.seed == 1]
        assert len(settings) == len(set(settings)) >= 3


def test_equal_trainings_run_once_and_a_second_call_runs_none(plan, tmp_path, monkeypatch) -> None:
    ran = []
    whole = studies.fine_tune

    def counted(*args: object, **more: object) -> dict:
        ran.append(1)
        return whole(*args, **more)

    monkeypatch.setattr(studies, "fine_tune", counted)
    chosen = [
        studies.Trial("rank", "4", plan),
        studies.Trial("bits", "4 bits", plan),
        studies.Trial("noise", "half", plan, noise=0.5),
    ]
    rows = studies.run(chosen, TRAIN, VALIDATION, tmp_path, progress=False)
    assert len(ran) == 2
    assert rows[0]["dollars"] == rows[1]["dollars"]
    assert [row["setting"] for row in rows] == ["4", "4 bits", "half"]
    assert all(row["judged_on"] == 20 for row in rows), "not on what chose the checkpoint"
    with (tmp_path / "rows.jsonl").open("a") as file:
        file.write('\n{"key": "cut o')  # killed while it wrote
    assert studies.run(chosen, TRAIN, VALIDATION, tmp_path, progress=False) == rows
    assert len(ran) == 2
    other = [studies.Trial("rank", "4", replace(plan, seed=9))]
    for _ in range(2):  # the second time it is read behind the line that was cut short
        studies.run(other, TRAIN, VALIDATION, tmp_path, progress=False)
    assert len(ran) == 3


def test_noise_exchanges_prices_and_invents_none() -> None:
    before = np.asarray(TRAIN["price"])
    after = np.asarray(studies.with_noise(TRAIN, 0.5, seed=1)["price"])
    assert sorted(before) == sorted(after)
    assert 0.2 < (before != after).mean() < 0.5  # some got an equal one
    assert studies.with_noise(TRAIN, 0.0, seed=1).equals(TRAIN)
    with pytest.raises(ValueError, match="between 0 and 1"):
        studies.with_noise(TRAIN, 1.5, seed=1)


def test_the_share_of_wrong_prices_is_that_of_the_items_a_plan_takes(plan, tmp_path) -> None:
    """Incident: both drew by the same seed, so nearly all of the 3,000 items taken were wrong."""
    many = items_of(1_000, seed=5)
    taught = studies.with_noise(many, 0.3, seed=1)
    exchanged = np.asarray(taught["price"]) != np.asarray(many["price"])
    fine_tune(taught, VALIDATION, tmp_path, replace(plan, limit=300, seed=1), progress=False)
    order = np.random.default_rng(1).permutation(1_000)[:300]
    taken = json.loads((tmp_path / "manifest.json").read_text())["train"]
    assert taken == fingerprint(taught.take(order)), "the plan takes others now: change this test"
    assert abs(exchanged[order].mean() - exchanged.mean()) < 0.06


def test_curves_say_their_finding_in_words() -> None:
    history = [
        {"step": 0, "eval_dollars": 70.0, "eval_greedy_dollars": 90.0},
        {"step": 5, "loss": 3.0},
        {"step": 10, "eval_dollars": 50.0, "eval_greedy_dollars": 60.0},
    ]
    chart = dollars_curve(history, {"a constant": 120.0})
    assert "$70.00 at step 0, by $50.00 at step 10" in chart.alt
    assert "a constant $120" in chart.alt
    assert len(chart.png()) > 5_000
    with pytest.raises(ValueError, match="nothing was measured"):
        dollars_curve(history[1:2])
    LiveCurve()(history)  # outside of a notebook: nothing to draw on


def test_distribution_and_trials_charts() -> None:
    found = Distribution(np.array([0, 10, 20, 90]), np.array([[0.1, 0.4, 0.3, 0.2]]), np.ones(1))
    chart = distribution_chart(found, 0, "A mug", 15.0)
    assert "$10.00 is the median" in chart.alt
    assert "costs $15.00" in chart.alt
    assert len(chart.png()) > 5_000
    rows = [{"setting": s, "dollars": d} for s, d in (("a", 5.0), ("a", 7.0), ("b", 5.5))]
    chart = trials_chart(rows, "Errors")
    assert "b is best, $5.50" in chart.alt
    assert "a $6.00 (2 seeds, $5.00 to $7.00)" in chart.alt
    assert len(chart.png()) > 5_000


def test_settings_are_drawn_under_their_study() -> None:
    rows = [
        {"study": study, "setting": setting, "dollars": dollars}
        for study, setting, dollars in (
            ("rank", "2", 58.0), ("rank", "32", 50.0), ("bits", "8 bits", 51.0),
            ("rank", "2", 60.0), ("rank", "32", 52.0), ("bits", "8 bits", 49.0),
        )
    ]  # fmt: skip
    chart = settings_chart(rows, 51.0, "What each setting is worth")
    assert "The plan as it is: $51.00" in chart.alt
    assert "rank: 2 $59.00 ($58.00 to $60.00), 32 $51.00 ($50.00 to $52.00)." in chart.alt
    axes = chart.figure().axes[0]
    labels = [label.get_text() for label in axes.get_yticklabels()]
    assert labels == ["rank", "2", "32", "bits", "8 bits"]
    assert len(chart.png()) > 5_000


def test_every_recorded_setting_has_three_seeds_and_is_of_this_base() -> None:
    found = studies.recorded("studies")
    assert found["base"] == file_hash(TINY / "model.safetensors")
    seeds: dict[tuple[str, str], set[int]] = {}
    for row in found["rows"]:
        seeds.setdefault((row["study"], row["setting"]), set()).add(row["seed"])
        assert np.isfinite([row["dollars"], row["greedy"], row["mean"]]).all()
    assert {(t.study, t.setting) for t in studies.trials((1,))} == set(seeds)
    assert all(len(found) >= 3 for found in seeds.values()), seeds
