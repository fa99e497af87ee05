"""API or GPU: the crossing is where brute force finds it, and every assumption is told."""

from dataclasses import replace
from datetime import date

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from shared.choosing import Gpu, Tokens, break_even, break_even_chart
from shared.choosing.break_even import _crossings
from shared.frontier.models import find_model
from shared.reports.figures import DARK, LIGHT

GPU = Gpu("card", 3.0, "an invented price list", date(2026, 11, 1))
TOKENS = Tokens(input=1000, output=100)


def cost(volume, machine, upkeep, capacity):
    return max(np.ceil(volume / capacity - 1e-12), 1) * machine + upkeep


def test_by_hand():
    """gpt-6-luna takes $0.10 in and $0.50 out: 1,000 and 100 tokens are $0.15 per thousand."""
    found = break_even("gpt-6-luna", TOKENS, GPU, products_per_second=10, utilisation=1.0)
    assert found.usd_per_thousand == pytest.approx(0.15)
    assert found.capacity == pytest.approx(864_000)
    assert found.per_day == pytest.approx(3 * 24 / 0.15 * 1000)  # 480,000
    # One full machine saves 129.60 - 72 dollars, which is less than a second one costs.
    assert found.for_good == pytest.approx(960_000)
    assert found.finding == (
        "card is cheaper than gpt-6-luna from 480,000 products a day, and always from 960,000"
    )


def test_a_gpu_that_is_too_slow_never_pays():
    found = break_even("gpt-6-luna", TOKENS, GPU, products_per_second=1)
    assert found.per_day is None
    assert found.for_good is None
    assert found.finding == "gpt-6-luna is cheaper than card at any volume"
    assert (found.api < found.gpu).all()
    assert "at any volume" in break_even_chart(found).alt


@settings(max_examples=200, deadline=None)
@given(
    st.floats(1e-5, 1e-2), st.floats(1, 200), st.sampled_from([0.0, 10.0, 500.0]),
    st.floats(1e3, 1e6),
)  # fmt: skip
def test_the_crossing_is_where_brute_force_finds_it(each, machine, upkeep, capacity):
    first, for_good = _crossings(each, machine, upkeep, capacity)
    paid = lambda volume: cost(volume, machine, upkeep, capacity)  # noqa: E731
    if first is None:
        full = np.arange(1, 50)
        assert all(each * k * capacity <= paid(k * capacity) * (1 + 1e-9) for k in full)
        return
    assert first <= for_good * (1 + 1e-9)
    assert each * first * (1 + 1e-6) >= paid(first * (1 + 1e-9)) * (1 - 1e-6) or (
        first == pytest.approx(round(first / capacity) * capacity)
    )
    for share in (0.01, 0.3, 0.7, 0.95, 0.999):
        assert each * first * share < paid(first * share) * (1 + 1e-9)
    for times in (1.001, 1.01, 1.3, 2.0, 3.7, 10.0):
        volume = for_good * times
        assert each * volume >= paid(volume) * (1 - 1e-6)
    if for_good > first * 1.01:  # somewhere in between the API is cheaper again
        # Just above full machines, where one more is paid and hardly used.
        full = np.arange(1, np.ceil(for_good / capacity) + 1) * capacity * (1 + 1e-9)
        between = full[(full > first) & (full < for_good)]
        assert any(each * v < paid(v) for v in between)


def test_upkeep_and_idle_hours_move_it_up():
    base = break_even("gpt-6-sol", TOKENS, GPU, products_per_second=10)
    kept = break_even("gpt-6-sol", TOKENS, GPU, products_per_second=10, upkeep_usd_per_day=300)
    assert kept.per_day > base.per_day
    half = break_even("gpt-6-sol", TOKENS, GPU, products_per_second=10, hours_per_day=12)
    assert half.per_day == pytest.approx(base.per_day / 2)
    assert half.capacity == pytest.approx(base.capacity / 2)


def test_batches_and_cached_tokens_move_it_up():
    base = break_even("gpt-6-sol", TOKENS, GPU, products_per_second=10)
    batch = break_even("gpt-6-sol", TOKENS, GPU, products_per_second=10, batch=True)
    assert batch.per_day == pytest.approx(2 * base.per_day)
    assert "batch price" in batch.assumptions[0]
    cached = replace(TOKENS, cached=900)
    found = break_even("gpt-6-sol", cached, GPU, products_per_second=10)
    assert found.usd_per_thousand == pytest.approx(0.1 * 2 + 0.9 * 0.2 + 0.1 * 10)


def test_every_assumption_is_told():
    found = break_even("gpt-6-luna", TOKENS, GPU, products_per_second=10, upkeep_usd_per_day=7)
    text = repr(found)
    for part in ("$0.1 in, $0.5 out", "1,000 tokens in", "$3.00 an hour", "an invented price list",
                 "2026-11-01", "10 products a second", "50%", "$7.00 a day", "price list of 2026-",
                 "compare their errors"):  # fmt: skip
        assert part in text, part
        if part != "price list of 2026-":
            assert part in break_even_chart(found).alt, part


def test_the_chart_is_drawn_in_both_themes():
    found = break_even("gpt-6-sol", TOKENS, GPU, products_per_second=10)
    chart = break_even_chart(found)
    for dark, theme in ((False, LIGHT), (True, DARK)):
        (axes,) = chart.figure(dark).axes
        assert axes.get_xlabel() == "products a day"
        assert axes.get_ylabel() == "dollars a day"
        assert len(axes.get_lines()) == 3
        assert chart.figure(dark).get_facecolor() != theme.text
    assert chart.png()[:4] == b"\x89PNG"
    assert "nan" not in chart.alt


def test_unknown_models_and_prices_are_refused():
    with pytest.raises(ValueError, match="no model 'gpt-6-lun'"):
        break_even("gpt-6-lun", TOKENS, GPU, products_per_second=10)
    unknown = replace(find_model("gpt-6-luna"), input=None)
    with pytest.raises(ValueError, match="price of gpt-6-luna is not known"):
        break_even(unknown, TOKENS, GPU, products_per_second=10)
    with pytest.raises(ValueError, match="not a use of a model"):
        break_even("gpt-6-luna", replace(TOKENS, cached=2000), GPU, products_per_second=10)


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"products_per_second": 0}, "products_per_second is 0"),
        ({"utilisation": 1.2}, "utilisation is 1.2"),
        ({"utilisation": 0}, "utilisation is 0"),
        ({"hours_per_day": 25}, "25 hours"),
        ({"upkeep_usd_per_day": -1}, "-1 dollars"),
        ({"volumes": []}, "volumes are products a day"),
        ({"volumes": [0.0]}, "volumes are products a day"),
    ],
)
def test_impossible_numbers_are_refused(wrong, message):
    with pytest.raises(ValueError, match=message):
        break_even("gpt-6-luna", TOKENS, GPU, **{"products_per_second": 10} | wrong)


def test_a_price_without_a_source_is_refused():
    with pytest.raises(ValueError, match="say where the price is from"):
        Gpu("card", 3.0, " ", date(2026, 11, 1))
    with pytest.raises(ValueError, match="0 dollars an hour"):
        Gpu("card", 0, "somebody", date(2026, 11, 1))
