"""The first pricers: fitted on training items, blind to prices, the same answer twice."""

import functools
import time

import numpy as np
import pytest

from shared.data import open_items, products
from shared.data.curation import MAX_PRICE, MIN_PRICE
from shared.data.schema import Product
from shared.evaluation import Pricer
from shared.pipeline import prepare
from shared.pricers import PRICERS, make_pricer
from shared.pricers.attributes import FEATURES, features


@pytest.fixture(scope="module")
def items(tmp_path_factory):
    return prepare("embedded", tmp_path_factory.mktemp("items"), size=3000, progress=False)


@pytest.fixture(scope="module")
def fitted(items):
    """A fitted pricer by name; each is fitted once for all tests here."""
    train = items.table("train")
    return functools.cache(lambda name: make_pricer(name).fit(train))


def product(**changes) -> Product:
    base = {"id": "a", "title": "t", "text": "t", "category": "Appliances", "details": "{}"}
    return Product(**(base | changes))


def error(pricer, table) -> float:
    prices = pricer.price(products(table)).price
    return float(np.abs(prices - table["price"].to_numpy()).mean())


@pytest.mark.parametrize("name", PRICERS)
def test_every_pricer_prices_and_repeats_itself(items, fitted, name):
    test = products(items.table("test"))
    first = fitted(name).price(test)
    again = make_pricer(name).fit(items.table("train")).price(test)
    assert isinstance(fitted(name), Pricer)
    assert np.array_equal(first.price, again.price)
    assert np.isfinite(first.price).all()
    assert first.price.min() >= MIN_PRICE
    assert first.price.max() <= MAX_PRICE


@pytest.mark.parametrize("name", PRICERS)
def test_a_price_depends_on_the_product_and_not_on_its_neighbours(items, fitted, name):
    test = products(items.table("test"))[:40]
    together = fitted(name).price(test)
    alone = [fitted(name).price([p]) for p in test]
    assert np.allclose(together.price, [e.price[0] for e in alone], rtol=1e-5)
    if together.low is not None:
        assert np.allclose(together.low, [e.low[0] for e in alone], rtol=1e-5)


@pytest.mark.parametrize("name", PRICERS)
def test_strange_products_get_a_price(fitted, name):
    strange = [
        product(),
        product(title="", text="", category=""),
        product(text="Item Weight: ... pounds\n1 x . x 2 inches", title="Pack of 999999999999"),
        product(text="999,999,999,999,999 watts, 1..5 gb and 0 pieces", title="\n"),
        product(text="重量 é 🙂 \x00", category="No such category"),
    ]
    assert np.isfinite(fitted(name).price(strange).price).all()
    assert len(fitted(name).price([]).price) == 0


def test_the_ladder_goes_down(items, fitted):
    test = items.table("test")
    errors = {name: error(fitted(name), test) for name in PRICERS}
    assert errors["random"] > 2 * errors["constant-mean"]
    assert errors["constant-median"] < errors["constant-mean"]
    assert errors["linear"] < errors["constant-mean"]
    assert errors["bag-of-words"] < 0.9 * errors["constant-median"]
    assert errors["tfidf-ridge"] < errors["bag-of-words"]
    assert errors["lightgbm"] < 0.95 * errors["random-forest"]
    assert errors["stack"] < 1.05 * min(errors.values())


def test_constants_are_the_statistics_of_the_training_prices(items):
    train = items.table("train")
    prices = train["price"].to_numpy()
    for name, value in (("constant-mean", prices.mean()), ("constant-median", np.median(prices))):
        assert make_pricer(name).fit(train).price([product()]).price[0] == pytest.approx(value)


def test_random_prices_fill_the_window_for_test_products(items):
    """The draw once shared its hash with the split: all test products were priced over 900."""
    table = items.table("test")
    prices = make_pricer("random").fit(items.table("train")).price(products(table)).price
    assert 420 < prices.mean() < 580
    assert prices.min() < 60
    assert prices.max() > 940


def test_an_unfitted_pricer_and_an_unknown_name_say_what_to_do():
    with pytest.raises(ValueError, match=r"call .fit"):
        make_pricer("linear").price([product()])
    with pytest.raises(ValueError, match="there are: random, constant-mean"):
        make_pricer("oracle")


def test_nothing_to_learn_from_is_an_error(items):
    with pytest.raises(ValueError, match="no items to learn from"):
        make_pricer("linear").fit(items.table("train").slice(0, 0))


def test_settings_say_what_was_learnt_from(items):
    train = items.table("train")
    full = make_pricer("linear").fit(train).settings
    half = make_pricer("linear").fit(train.slice(0, 100)).settings
    assert full["fitted_on"] != half["fitted_on"]


def test_keywords_know_a_few_things(items):
    pricer = make_pricer("keywords").fit(items.table("train"))
    titles = ["Replacement filter for a freezer", "Upright freezer", "Refurbished upright freezer"]
    part, whole, used = pricer.price([product(title=t) for t in titles]).price
    assert part < used < whole


def test_features_read_units():
    text = "Item Weight: 32 ounces\nProduct Dimensions: 2 x 3 x 4 inches"
    row = dict(
        zip(FEATURES, features([product(title="Pack of 12 pens", text=text)])[0], strict=True)
    )
    assert row["log pounds"] == pytest.approx(np.log1p(2.0))
    assert row["log cubic inches"] == pytest.approx(np.log1p(24.0))
    assert row["log pieces"] == pytest.approx(np.log(12))
    assert row["weight known"] == row["size known"] == 1


def test_word_weights_run_from_cheap_to_dear(items):
    weights = (
        make_pricer("bag-of-words").fit(open_items(items.folder).table("train")).word_weights()
    )
    dollars = [dollars for _, dollars in weights]
    assert dollars == sorted(dollars)
    assert dollars[0] < 0 < dollars[-1]


def test_the_seconds_of_an_estimate_are_not_those_of_the_fit(items):
    """Incident: a table said 22 ms a product of trees that take 2: it counted a late fit."""

    class SlowLearner(type(make_pricer("constant-median"))):
        def _fit(self, train):
            time.sleep(0.5)
            super()._fit(train)

    late = SlowLearner().fit(items.table("train"), lazily=True)
    found = late.price(products(items.table("test").slice(0, 10)))
    assert late.fit_seconds >= 0.5
    assert found.seconds.sum() < late.fit_seconds
