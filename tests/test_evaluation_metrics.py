"""Metrics against numbers worked out by hand, their intervals against scipy."""

import json
import math
import warnings

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from shared.data.schema import PREDICTION
from shared.evaluation import bootstrap
from shared.evaluation.metrics import (
    by_category,
    by_price_band,
    describe,
    is_hit,
    number,
    score,
    weighted_error,
)  # fmt: skip

REAL = st.floats(0.5, 1000, allow_nan=False)
PAIRS = st.lists(st.tuples(REAL, REAL), min_size=1, max_size=30)


def table(true, estimate, low=None, high=None, category=None):
    n = len(true)
    columns = {
        "pricer": ["p"] * n, "item_id": [f"i{k}" for k in range(n)], "price_true": true,
        "price_estimate": estimate, "low": low or [None] * n, "high": high or [None] * n,
        "seconds": [0.5] * n, "cost_usd": [None] * n, "error": [None] * n,
    }  # fmt: skip
    made = pa.table([pa.array(columns[f.name], f.type) for f in PREDICTION], schema=PREDICTION)
    return made if category is None else made.append_column("category", pa.array(category))


def test_every_metric_by_hand():
    found = score(table([10.0, 100, 400, 50], [20.0, 160, 330, None], [5, 100, 340, None],
                        [25, 200, 350, None]))  # fmt: skip
    assert found["n"] == 4
    assert found["failed"] == 1
    assert found["failed_share"] == 0.25
    assert found["mae"] == pytest.approx((10 + 60 + 70) / 3)
    assert found["median_error"] == 60
    assert found["bias"] == pytest.approx((10 + 60 - 70) / 3)
    logs = [math.log(21 / 11), math.log(161 / 101), math.log(331 / 401)]
    assert found["rmsle"] == pytest.approx(math.sqrt(sum(x * x for x in logs) / 3))
    spread = sum((x - 170) ** 2 for x in (10, 100, 400))
    assert found["r2"] == pytest.approx(1 - (100 + 3600 + 4900) / spread)
    assert found["hits"] == 0.5  # $10 off; $70 of 400 is 17.5 %; $60 of 100 is a miss; one failed
    assert found["coverage"] == pytest.approx(2 / 3)
    assert found["width"] == pytest.approx((20 + 100 + 10) / 3)
    assert found["seconds"] == 0.5


def test_the_edges_of_a_hit_are_outside():
    true = np.array([100.0, 100.0, 1000.0, 1000.0])
    assert is_hit(true, np.array([140.0, 139.99, 800.0, 801.0])).tolist() == [0, 1, 0, 1]
    assert not is_hit(np.array([5.0]), np.array([np.nan])).any()


def test_the_error_at_the_natural_mix_weighs_the_bands():
    predictions = table([10.0, 10, 10, 300], [12.0, 12, 12, 340])
    mix = {"0-25": 9, "200-500": 1}  # shares need not sum to 1
    assert score(predictions)["mae"] == pytest.approx((2 * 3 + 40) / 4)
    assert score(predictions, natural_mix=mix)["mae_natural"] == pytest.approx(0.9 * 2 + 0.1 * 40)
    missing = score(predictions, natural_mix={"0-25": 0.5, "500+": 0.5})
    assert missing["mae_natural"] is None  # nothing there says how it does above $500


@pytest.mark.parametrize("mix", [{"cheap": 1}, {"0-25": -1}, {"0-25": 0}, {}])
def test_a_mix_that_makes_no_sense_is_refused(mix):
    with pytest.raises(ValueError, match="natural_mix"):
        score(table([1.0], [1.0]), natural_mix=mix)


def test_groups_add_up_and_are_in_order():
    predictions = table([10.0, 30, 60, 700], [11.0, 33, None, 600], category=["a", "b", "b", None])
    bands = by_price_band(predictions).to_pylist()
    assert [(r["price_band"], r["n"], r["failed"], r["mae"]) for r in bands] == [
        ("0-25", 1, 0, 1), ("25-50", 1, 0, 3), ("50-100", 1, 1, None), ("500+", 1, 0, 100),
    ]  # fmt: skip
    categories = by_category(predictions).to_pylist()
    assert [(r["category"], r["n"]) for r in categories] == [("b", 2), ("a", 1), ("unknown", 1)]


@pytest.mark.parametrize(
    ("true", "estimate"),
    [([], []), ([5.0], [7.0]), ([5.0, 6], [7.0, 8]), ([5.0, 6], [None, None]), ([None], [3.0]),
     ([5.0, 5], [5.0, 5]), ([0.0, 0], [0.0, 1])],
)  # fmt: skip
def test_degenerate_cases_give_no_warning_and_no_zero(true, estimate):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        found = score(table(true, estimate), natural_mix={"0-25": 1})
        describe(found)
        by_price_band(table(true, estimate))
    json.dumps(found, allow_nan=False)
    if not any(t is not None and e is not None for t, e in zip(true, estimate, strict=True)):
        assert found["mae"] is found["mae_low"] is None


def test_constant_errors_have_a_point_for_an_interval():
    found = score(table([10.0, 20, 30], [12.0, 22, 32]))
    assert (found["mae_low"], found["mae"], found["mae_high"]) == (2, 2, 2)


def test_impossible_estimates_in_a_foreign_file_count_as_failed():
    found = score(table([10.0, 20, 30], [-5.0, float("inf"), 33.0]))
    assert (found["failed"], found["mae"]) == (2, 3)
    with pytest.raises(ValueError, match="below zero"):
        score(table([-1.0], [1.0]))


@given(PAIRS, st.floats(0.1, 10))
@settings(max_examples=40, deadline=None)
def test_dollars_scale_with_the_currency(pairs, factor):
    true, estimate = (np.array(x) for x in zip(*pairs, strict=True))
    one, other = score(table(true, estimate)), score(table(true * factor, estimate * factor))
    for name in ("mae", "median_error", "bias"):
        assert other[name] == pytest.approx(one[name] * factor, rel=1e-6, abs=1e-6)


@given(PAIRS, st.randoms(use_true_random=False))
@settings(max_examples=40, deadline=None)
def test_the_order_of_rows_does_not_matter(pairs, random):
    shuffled = random.sample(pairs, len(pairs))
    one, other = (score(table(*map(list, zip(*p, strict=True)))) for p in (pairs, shuffled))
    for name in ("mae", "median_error", "rmsle", "hits", "bias"):
        assert other[name] == pytest.approx(one[name], rel=1e-6, abs=1e-6)


@given(PAIRS)
@settings(max_examples=40, deadline=None)
def test_metrics_stay_in_their_range_and_intervals_in_order(pairs):
    found = score(table(*map(list, zip(*pairs, strict=True))))
    assert found["mae"] >= abs(found["bias"]) - 1e-9
    assert 0 <= found["hits"] <= 1
    if len(pairs) > 1:
        for name in ("mae", "hits", "rmsle", "median_error"):
            assert found[f"{name}_low"] <= found[f"{name}_high"]


@pytest.mark.parametrize("statistic", [np.mean, np.median])
@pytest.mark.parametrize("n", [200, 201])
def test_intervals_agree_with_scipy(statistic, n):
    sample = np.random.default_rng(3).exponential(50, n)
    theirs = stats.bootstrap(
        (sample,), statistic, n_resamples=20_000, batch=200, rng=np.random.default_rng(1)
    ).confidence_interval
    if statistic is np.mean:
        ours = bootstrap.mean_intervals(sample[:, None], lambda means: means)[1][0]
    else:
        ours = bootstrap.median_interval(sample)[1]
    assert ours == pytest.approx([theirs.low, theirs.high], abs=0.06 * np.ptp([*theirs]))


def test_medians_without_one_are_exact():
    for n in (2, 3, 6, 7):
        values = np.sort(np.random.default_rng(n).normal(size=n))
        expected = [np.median(np.delete(values, i)) for i in range(n)]
        assert bootstrap._medians_without_one(values) == pytest.approx(expected)


def test_about_95_of_100_intervals_hold_the_truth():
    rng = np.random.default_rng(0)
    inside = 0
    for seed in range(200):
        sample = rng.exponential(1, (60, 1))
        low, high = bootstrap.mean_intervals(sample, lambda means: means, seed=seed)[1][0]
        inside += low <= 1 <= high
    assert 0.89 <= inside / 200 <= 0.98


def test_the_seed_decides_the_interval():
    predictions = table(list(np.arange(1.0, 60)), list(np.arange(1.0, 60) ** 1.1))
    assert score(predictions, seed=1) == score(predictions, seed=1)
    assert score(predictions, seed=1)["mae_low"] != score(predictions, seed=2)["mae_low"]


def test_numbers_are_never_a_false_zero():
    assert number(None) == number(float("nan")) == "—"
    assert number(-3.5) == "-$3.50"
    assert number(-0.001, "{:.2f}") == "0.00"
    assert "$0" not in describe(score(table([5.0], [None])))


def test_weights_turn_the_error_of_a_sample_into_that_of_the_whole():
    priced = table([10.0, 100.0, 50.0], [11.0, 120.0, None])
    found = weighted_error(priced, np.array([3.0, 1.0, 9.0]))
    assert found["mae"] == pytest.approx((3 * 1 + 1 * 20) / 4)  # a failed estimate has no error
    assert found["mae_low"] <= found["mae"] <= found["mae_high"]
    equal = weighted_error(priced, np.ones(3))
    assert equal["mae"] == pytest.approx(score(priced)["mae"])
    with pytest.raises(ValueError, match="2 weights for 3 products"):
        weighted_error(priced, np.ones(2))
