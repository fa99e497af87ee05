"""What the stronger pricers promise beyond the protocol: folds, attributes, weights, intervals."""

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.sparse import random as random_sparse
from threadpoolctl import threadpool_limits

from shared.data import products
from shared.data.schema import Product
from shared.pipeline import prepare
from shared.pricers import WithIntervals, climb, conformal_quantile, learning_curve, make_pricer
from shared.pricers.attributes import ATTRIBUTES, attributes, brand
from shared.pricers.boosting import Boosting, UsualPrice
from shared.pricers.fitted import grouped_folds
from shared.pricers.neighbours import STATISTICS, Neighbours
from shared.pricers.neural import NeuralNetwork, price_bins, quantile, soft_targets
from shared.pricers.stack import Stack, absolute_error_weights
from shared.pricers.words import fitted_svd


@pytest.fixture(scope="module")
def items(tmp_path_factory):
    return prepare("embedded", tmp_path_factory.mktemp("items"), size=2000, progress=False)


def product(text, title="t", **changes) -> Product:
    base = {"id": "a", "category": "Appliances", "details": "{}"}
    return Product(title=title, text=text, **(base | changes))


def test_folds_keep_clusters_together_and_hold_each_item_out_once(items):
    train = items.table("train")
    clusters = np.array(train["cluster"].to_pylist())
    folds = list(grouped_folds(train, 5, seed=1))
    assert sorted(np.concatenate([held for _, held in folds])) == list(range(train.num_rows))
    for learn, held_out in folds:
        assert not set(clusters[learn]) & set(clusters[held_out])
        assert 0.1 < len(held_out) / train.num_rows < 0.3


def test_folds_do_not_depend_on_the_order_of_items(items):
    train = items.table("train")
    backwards = train.take(np.arange(train.num_rows)[::-1])
    held = [
        set(t["id"].to_numpy()[next(iter(grouped_folds(t, 5, 1)))[1]]) for t in (train, backwards)
    ]
    assert held[0] == held[1]


@pytest.mark.parametrize(
    ("text", "name", "value"),
    [
        ("a 1,000-watt heater", "watts", 1000),
        ("Voltage: 120 Volts", "volts", 120),
        ("2 tb drive with 16GB memory", "gigabytes", 16),
        ("12000 BTU air conditioner", "btu", 12000),
        ("0.7 cu. ft. microwave", "cubic feet", 0.7),
        ("61 keys keyboard", "keys", 61),
        ("made in 2019", "year", 2019),
        ("6-pack", "pieces", 6),
        ('a 55" television', "inches", 55),
    ],
)
def test_attributes_read_quantities(text, name, value):
    row = dict(zip(ATTRIBUTES, attributes([product(text)])[0], strict=True))
    assert row[f"log {name}"] == pytest.approx(np.log1p(value))


def test_an_attribute_that_is_not_mentioned_is_unknown_and_not_zero():
    row = dict(zip(ATTRIBUTES, attributes([product("a chair")])[0], strict=True))
    assert np.isnan(row["log watts"])


def test_brand_is_as_listed_or_the_first_word():
    assert brand(product("x\nBrand: Whirl Pool\ny")) == "whirl pool"
    assert brand(product("x", title="Acme Freezer")) == "acme"
    assert brand(product("", title="")) == ""


def test_a_rare_brand_is_pulled_to_the_average():
    listed = [product("x", title="Acme a")] + [product("x", title="Other b")] * 99
    usual = UsualPrice().fit(listed, np.array([6.0] + [2.0] * 99))
    acme, other = usual.transform([listed[0], listed[1]])[:, 0]
    assert 2.0 < acme < 4.0
    assert other == pytest.approx(2.0, abs=0.1)


def test_columns_learnt_from_prices_are_out_of_fold(items):
    """A brand that occurs once must not find its own price in its column."""
    train = items.table("train")
    pricer = Boosting(trees=1)
    listed = products(train)
    pricer.log_prices = np.log(train["price"].to_numpy())
    from shared.pricers.words import TextSpace

    pricer.space = TextSpace(20)
    pricer.vectors = pricer.space.fit(listed)
    learnt = pricer._out_of_fold(train, listed)
    in_sample = pricer._apply(np.arange(len(listed)), listed, pricer.vectors,
                              *pricer._learn_prices(np.arange(len(listed)), listed))  # fmt: skip
    nearest = 4 + STATISTICS.index("nearest")
    assert np.mean(np.isclose(in_sample[:, nearest], pricer.log_prices)) > 0.95
    assert np.mean(np.isclose(learnt[:, nearest], pricer.log_prices)) < 0.2
    assert np.isfinite(learnt).all()


def test_boosting_names_each_column_it_sees(items):
    pricer = Boosting(trees=20).fit(items.table("train"))
    columns = pricer.columns(products(items.table("test"))[:3])
    assert columns.shape == (3, len(pricer.column_names()))
    shares = pricer.importances()
    assert sum(share for _, share in shares) == pytest.approx(1)
    assert shares[0][1] >= shares[-1][1]


def test_the_nearest_neighbour_of_a_training_item_is_itself(items):
    train = items.table("train")
    pricer = Neighbours().fit(train)
    row, similarity = pricer.nearest(products(train)[17])[0]
    assert (row, similarity) == (17, pytest.approx(1.0, abs=1e-5))


def test_fewer_items_than_neighbours_will_do(items):
    few = items.table("train").slice(0, 3)
    assert np.isfinite(Neighbours().fit(few).price(products(few)).price).all()


def test_a_distribution_gives_median_mean_and_mode(items):
    train, test = items.table("train"), products(items.table("test"))
    prices = {}
    for read_out in ("median", "mean", "mode"):
        pricer = NeuralNetwork(members=1, epochs=2, read_out=read_out).fit(train)
        prices[read_out] = pricer.price(test).price
    assert pricer.distribution(test).sum(axis=1) == pytest.approx(np.ones(len(test)), abs=1e-5)
    assert prices["mean"].mean() > prices["median"].mean()  # prices have a long right tail
    with pytest.raises(ValueError, match="read_out"):
        NeuralNetwork(read_out="maximum")


@given(st.lists(st.floats(0.6, 999), min_size=2, max_size=200), st.floats(0.05, 0.95))
@settings(deadline=None, max_examples=50)
def test_quantiles_lie_in_the_range_of_prices_and_rise(prices, share):
    log_prices = np.log(prices)
    bins = price_bins(log_prices)
    targets = soft_targets(log_prices, bins)
    assert np.allclose(targets.sum(axis=1), 1)
    low, high = quantile(targets, bins, share * 0.9), quantile(targets, bins, share)
    assert (low <= high + 1e-9).all()
    assert (high >= log_prices.min() - 1e-9).all()
    assert (high <= log_prices.max() + 1e-9).all()


def test_training_a_network_leaves_the_readers_random_numbers_alone(items):
    import torch

    torch.manual_seed(1)
    expected = torch.rand(1)
    torch.manual_seed(1)
    NeuralNetwork(members=1, epochs=1).fit(items.table("train").slice(0, 100))
    assert torch.equal(torch.rand(1), expected)


def test_weights_are_not_negative_and_find_the_better_member():
    rng = np.random.default_rng(0)
    prices = rng.uniform(10, 500, 400)
    good, bad = prices * rng.uniform(0.9, 1.1, 400), rng.uniform(10, 500, 400)
    weights = absolute_error_weights(np.column_stack([good, bad, -good]), prices, np.ones(400))
    assert (weights >= 0).all()
    assert weights[0] > 0.9
    assert weights[1] < 0.05
    assert weights[2] == 0


def test_the_stack_weighs_members_and_covers_what_it_promises(items):
    test = items.table("test")
    stack = Stack(members=["tfidf-ridge", "knn"]).fit(items.table("train"))
    found, prices = stack.price(products(test)), test["price"].to_numpy()
    assert {name for name, _ in stack.member_weights()} <= {"tfidf-ridge", "knn"}
    assert all(weight > 0 for _, weight in stack.member_weights())
    assert 0.75 < np.mean((found.low <= prices) & (prices <= found.high)) <= 1.0
    with pytest.raises(ValueError, match="no members of a stack"):
        Stack(members=["oracle"])


def test_too_few_items_for_a_stack_is_an_error(items):
    with pytest.raises(ValueError, match="too few"):
        Stack(members=["knn"]).fit(items.table("train").slice(0, 1))


def test_the_conformal_quantile_is_the_rank_that_keeps_the_promise():
    assert conformal_quantile(np.arange(1, 100), 0.9) == 90
    assert conformal_quantile(np.arange(1, 10), 0.9) == 9
    assert conformal_quantile(np.arange(1, 9), 0.9) == float("inf")
    with pytest.raises(ValueError, match="coverage"):
        conformal_quantile(np.arange(9), 1.0)


def test_intervals_cover_what_they_promise_on_exchangeable_products():
    """Over many draws of calibration and test, the mean coverage is the nominal one."""
    rng = np.random.default_rng(0)
    covered = []
    for _ in range(300):
        scores = rng.exponential(size=120)
        covered.append(np.mean(rng.exponential(size=200) <= conformal_quantile(scores, 0.9)))
    assert np.mean(covered) == pytest.approx(0.9, abs=0.01)


def test_our_intervals_are_those_of_mapie(items):
    """MAPIE's split conformal regressor on the same log prices gives the same quantile."""
    from mapie.regression import SplitConformalRegressor
    from sklearn.base import BaseEstimator, RegressorMixin

    pricer = make_pricer("tfidf-ridge").fit(items.table("train"))
    calibration, test = items.table("validation"), items.table("test")

    class LogPrice(RegressorMixin, BaseEstimator):
        def __sklearn_is_fitted__(self):
            return True

        def fit(self, rows, prices):
            return self

        def predict(self, rows):
            return np.log(pricer.price(products(both.take(rows[:, 0].astype(int)))).price)

    both = pa.concat_tables([calibration, test])
    places = np.arange(both.num_rows, dtype=float)[:, None]
    n = calibration.num_rows
    theirs = SplitConformalRegressor(LogPrice(), confidence_level=0.9, prefit=True)
    theirs.conformalize(places[:n], np.log(calibration["price"].to_numpy()))
    _, bounds = theirs.predict_interval(places[n:])
    ours = WithIntervals(pricer, calibration).price(products(test))
    assert np.log(ours.low) == pytest.approx(bounds[:, 0, 0], abs=1e-6)
    assert np.log(ours.high) == pytest.approx(bounds[:, 1, 0], abs=1e-6)


def test_a_stand_in_with_intervals_is_still_one(items):
    pricer = make_pricer("constant-median").fit(items.table("train"))
    pricer.label, pricer.retries_failures = "stand-in", True
    wrapped = WithIntervals(pricer, items.table("validation"))
    assert (wrapped.label, wrapped.retries_failures) == ("stand-in", True)


def test_intervals_from_too_few_products_are_refused(items):
    pricer = make_pricer("constant-median").fit(items.table("train"))
    with pytest.raises(ValueError, match="too few to calibrate"):
        WithIntervals(pricer, items.table("validation").slice(0, 5))


def test_a_ladder_that_was_climbed_is_not_climbed_again(items, tmp_path, monkeypatch):
    first = climb(items, tmp_path, names=["linear", "constant-median"], progress=False)
    assert [row["pricer"] for row in first] == ["constant-median", "linear"]
    from shared.pricers.baselines import LinearFeatures

    monkeypatch.setattr(LinearFeatures, "_learn", None)
    again = climb(items, tmp_path, names=["linear", "constant-median"], progress=False)
    assert again == first


def test_learning_curves_hold_a_row_a_pricer_and_size(items):
    train, test = items.table("train"), items.table("test")
    curve = learning_curve(["constant-median", "tfidf-ridge"], train, test, [50, 10**6])
    assert curve["size"].to_pylist() == [50, train.num_rows] * 2
    few, all_ = curve.slice(2)["mae"].to_pylist()
    assert all_ < few


@pytest.mark.parametrize("bad", [0.0, -1.0, float("nan"), None])
def test_items_without_a_price_cannot_be_learnt_from(items, bad):
    train = items.table("train").slice(0, 20)
    prices = pa.array([bad, *train["price"].to_pylist()[1:]], pa.float64())
    with pytest.raises(ValueError, match="1 of 20 items"):
        make_pricer("linear").fit(train.set_column(5, "price", prices))


def test_columns_are_the_same_on_any_number_of_cores() -> None:
    """Incident: the same command gave 51.95 dollars on one core and 52.38 on two."""
    vectors = random_sparse(300, 800, 0.02, random_state=0, dtype=np.float32).tocsr()
    found = []
    for threads in (1, 2):
        with threadpool_limits(threads):
            found.append(fitted_svd(vectors, 50, 1, seed=0).components_)
    np.testing.assert_array_equal(*found)
