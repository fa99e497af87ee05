"""Comparisons: paired, corrected, and never over different items without saying so."""

import numpy as np
import pytest

from shared.evaluation import compare, compare_many, evaluate, holm

RNG = np.random.default_rng(7)
PRICES = np.round(RNG.uniform(5, 300, 80), 2)


def items(prices=PRICES):
    return [{"id": f"p{i}", "title": str(i), "price": float(p)} for i, p in enumerate(prices)]


def predictions(estimates, name, prices=PRICES):
    values = dict(zip((f"p{i}" for i in range(len(estimates))), estimates, strict=True))

    def pricer(product):
        return values[product.id]

    pricer.__name__ = name
    return evaluate(pricer, items(prices), progress=False).predictions


def noisy(scale, name, seed):
    noise = np.random.default_rng(seed).normal(0, scale, len(PRICES))
    return predictions(np.abs(PRICES + noise), name)


def test_a_clear_difference_is_seen_with_its_sign():
    found = compare(noisy(5, "good", 1), noisy(50, "bad", 2))
    assert found.a == "good"
    assert found.n == 80
    assert found.difference < 0
    assert found.high < 0
    assert found.p < 0.01
    assert found.distinguishable
    assert "better" in repr(found)


def test_the_difference_is_antisymmetric():
    a, b = noisy(20, "a", 1), noisy(22, "b", 2)
    one, other = compare(a, b), compare(b, a)
    assert one.difference == pytest.approx(-other.difference)
    assert one.p == pytest.approx(other.p, abs=0.02)
    assert one.low < one.difference < one.high


def test_equals_are_found_different_in_about_one_of_twenty():
    p = [compare(noisy(20, "a", 2 * s), noisy(20, "b", 2 * s + 1)).p for s in range(60)]
    assert np.mean(np.array(p) < 0.05) <= 0.12
    assert 0.3 < np.mean(p) < 0.7


def test_the_same_predictions_are_not_distinguishable():
    a = noisy(20, "a", 1)
    found = compare(a, a)
    assert (found.difference, found.p) == (0, 1)
    assert "not distinguishable" in repr(found)


def test_few_products_are_tested_exactly():
    prices = np.array([10.0, 20, 30])
    a, b = predictions(prices, "a", prices), predictions(prices + 5, "b", prices)
    assert compare(a, b).p == 0.25  # 2 of the 8 sign patterns are as extreme


def test_many_products_never_have_p_zero():
    assert compare(predictions(PRICES, "a"), predictions(PRICES + 50, "b")).p >= 1 / 10_000


def test_failures_are_left_out_and_counted():
    gaps = [None if i < 10 else p + 1 for i, p in enumerate(PRICES)]
    found = compare(predictions(gaps, "gaps"), predictions(PRICES + 3, "full"))
    assert (found.n, found.failed) == (70, 10)
    assert found.difference == pytest.approx(-2)
    nothing = compare(predictions([None] * 80, "none"), predictions(PRICES, "full"))
    assert nothing.n == 0
    assert not nothing.distinguishable


def test_different_items_are_refused_unless_asked_for():
    a = noisy(5, "a", 1)
    b = noisy(5, "b", 2).slice(0, 60)
    with pytest.raises(ValueError, match="60 in common, 20 not"):
        compare(a, b)
    found = compare(a, b, on_common=True)
    assert (found.n, found.unshared) == (60, 20)
    assert "20 not shared" in repr(found)


def test_two_versions_of_the_items_are_refused():
    other = PRICES.copy()
    other[3] += 1
    with pytest.raises(ValueError, match="two versions"):
        compare(predictions(PRICES, "a"), predictions(PRICES, "b", other))


def test_holm_by_hand():
    assert holm([0.01, 0.04, 0.03, 0.005]) == pytest.approx([0.03, 0.06, 0.06, 0.02])
    assert holm([0.6, 0.5]) == [1.0, 1.0]
    assert holm([]) == []


def test_many_are_corrected_together():
    pricers = [noisy(20, "a", 1), noisy(20, "b", 2), noisy(20, "c", 3)]
    pairs = compare_many(pricers)
    assert [(c.a, c.b) for c in pairs] == [("a", "b"), ("a", "c"), ("b", "c")]
    assert [c.p_holm for c in pairs] == pytest.approx(holm([c.p for c in pairs]))
    assert [(c.a, c.b) for c in compare_many(pricers, against="b")] == [("a", "b"), ("c", "b")]
    with pytest.raises(ValueError, match="not among"):
        compare_many(pricers, against="d")
    with pytest.raises(ValueError, match="same name"):
        compare_many([pricers[0], pricers[0]])
