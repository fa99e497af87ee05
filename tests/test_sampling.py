"""Balanced samples: flat prices, any order of loading, and weights that lead back."""

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from shared.data.sampling import WEIGHT, balanced_sample, inclusion
from shared.pipeline import prepare


@pytest.fixture(scope="module")
def items(tmp_path_factory):
    items = prepare("embedded", tmp_path_factory.mktemp("items"), size=4000, progress=False)
    return items.table()


def test_no_dollar_has_more_than_its_slots(items):
    sample = balanced_sample(items, per_dollar=3)
    dollars = np.floor(sample["price"].to_numpy())
    assert np.unique(dollars, return_counts=True)[1].max() == 3
    assert set(np.unique(dollars)) == set(np.unique(np.floor(items["price"].to_numpy())))
    assert sample["price"].to_numpy().mean() > 1.3 * items["price"].to_numpy().mean()


def test_the_sample_does_not_depend_on_the_order_of_items_but_on_the_seed(items):
    shuffled = items.take(np.random.default_rng(0).permutation(items.num_rows))
    ids = [set(balanced_sample(t, per_dollar=3)["id"].to_pylist()) for t in (items, shuffled)]
    assert ids[0] == ids[1]
    assert set(balanced_sample(items, per_dollar=3, seed=1)["id"].to_pylist()) != ids[0]


def test_weights_lead_back_to_the_natural_mix(items):
    """Over many seeds, the weighted mean of a sample is the mean of all items."""
    truth = items["price"].to_numpy().mean()
    plain, weighted = [], []
    for seed in range(30):
        sample = balanced_sample(
            items, per_dollar=2, category_weights={"Electronics": 4}, seed=seed
        )
        prices, weights = sample["price"].to_numpy(), sample[WEIGHT].to_numpy()
        plain.append(prices.mean())
        weighted.append(np.average(prices, weights=weights))
        assert weights.sum() == pytest.approx(items.num_rows, rel=0.05)
    assert np.mean(weighted) == pytest.approx(truth, rel=0.02)
    assert np.mean(plain) > 1.3 * truth


def test_a_category_with_more_weight_is_sampled_more_often(items):
    name = items["category"].to_pylist()[0]
    share = [
        balanced_sample(items, per_dollar=2, category_weights=w)["category"].to_pylist().count(name)
        for w in ({}, {name: 10.0}, {name: 0.1})
    ]
    assert share[2] < share[0] < share[1]


@given(st.lists(st.floats(0.01, 100), min_size=1, max_size=40), st.integers(1, 40))
def test_chances_add_up_to_the_size_and_none_exceeds_one(weights, size):
    chance = inclusion(np.array(weights), size)
    assert chance.sum() == pytest.approx(min(size, len(weights)))
    assert (chance <= 1 + 1e-12).all()
    assert (chance > 0).all()


def test_nothing_to_sample_from_gives_an_empty_sample(items):
    sample = balanced_sample(items.slice(0, 0))
    assert sample.num_rows == 0
    assert sample.schema.field(WEIGHT).type == pa.float64()


def test_senseless_settings_are_refused(items):
    with pytest.raises(ValueError, match="above zero: Toys"):
        balanced_sample(items, category_weights={"Toys": 0})
    with pytest.raises(ValueError, match="at least 1"):
        balanced_sample(items, per_dollar=0)
