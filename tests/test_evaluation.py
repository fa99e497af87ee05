"""What ``evaluate`` promises: prices stay hidden, failures have reasons, a kill loses nothing."""

import math
import os
import signal
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from shared.data.schema import ITEM, PREDICTION
from shared.evaluation import Estimates, evaluate, predict, score
from shared.evaluation.inputs import item_table
from shared.evaluation.store import SUFFIX, file_stem

PRICES = [10.0, 20.0, 30.0, 40.0, 50.0]


def make_items(prices=PRICES):
    return [
        {"id": f"p{i}", "title": f"Kettle {i}", "text": "steel " * (i + 1), "category": "Home",
         "details": "{}", "price": price, "cluster": f"c{i}", "split": "test"}
        for i, price in enumerate(prices)
    ]  # fmt: skip


def run(pricer, items=None, **options):
    return evaluate(pricer, items or make_items(), progress=False, **options)


def estimates(result):
    return result.predictions["price_estimate"].to_pylist()


def errors(result):
    return result.predictions["error"].to_pylist()


class Counting:
    """A pricer that remembers every id it was asked about."""

    name = "counting"

    def __init__(self, **settings):
        self.settings = settings
        self.asked = []

    def price(self, products):
        self.asked += [p.id for p in products]
        return Estimates([25.0] * len(products))


def always_42(product):
    return 42.0


# --- what may be evaluated -----------------------------------------------------------------------


def test_a_plain_function_is_a_pricer():
    result = run(always_42)
    assert result.pricer == "always_42"
    assert estimates(result) == [42.0] * 5
    assert result.scores["mae"] == pytest.approx((32 + 22 + 12 + 2 + 8) / 5)


@pytest.mark.parametrize("kind", ["list", "table", "dataset"])
def test_items_may_be_dicts_arrow_or_a_dataset(kind):
    items = make_items()
    if kind == "table":
        items = pa.Table.from_pylist(items, schema=ITEM)
    elif kind == "dataset":
        datasets = pytest.importorskip("datasets")
        items = datasets.Dataset.from_list(items).select([4, 3, 2, 1, 0]).select([4, 3, 2, 1, 0])
    result = run(lambda product: len(product.text), items)
    assert estimates(result) == [6, 12, 18, 24, 30]
    assert result.predictions["item_id"].to_pylist() == ["p0", "p1", "p2", "p3", "p4"]


def test_stored_predictions_are_a_pricer(tmp_path):
    first = run(always_42)
    path = tmp_path / "p.parquet"
    pq.write_table(first.predictions, path)
    for stored in (path, str(path), first.predictions):
        again = run(stored)
        assert again.pricer == "always_42"
        assert estimates(again) == estimates(first)


def test_stored_predictions_fail_where_they_are_silent():
    half = run(always_42).predictions.slice(0, 2)
    result = run(half)
    assert estimates(result) == [42, 42, None, None, None]
    assert errors(result)[2] == "not in the stored predictions"
    with pytest.raises(ValueError, match="other items"):
        run(half, [item | {"id": item["id"] + "x"} for item in make_items()])


def test_the_stored_columns_are_the_contract_then_category_and_tokens():
    schema = run(always_42).predictions.schema
    assert schema.names[: len(PREDICTION)] == PREDICTION.names
    assert schema.names[len(PREDICTION) :] == [
        "category", "input_tokens", "cached_tokens", "output_tokens", "reasoning_tokens", "model",
    ]  # fmt: skip
    assert all(schema.field(f.name).type == f.type for f in PREDICTION)


class Flaky:
    """Fails for every second product, until it is repaired; counts what it is asked."""

    name, label, settings = "flaky", "stand-in", {}

    def __init__(self, retries_failures: bool):
        self.retries_failures, self.works, self.asked = retries_failures, False, 0

    def price(self, products):
        self.asked += len(products)
        failed = [not self.works and i % 2 == 1 for i in range(len(products))]
        return Estimates(
            [math.nan if f else 10.0 for f in failed],
            ["server down" if f else None for f in failed],
            cost_usd=[0.01] * len(products),
            usage=[{"input": 7, "cached": 2, "output": 3, "reasoning": 0}] * len(products),
        )


@pytest.mark.parametrize("retries", [True, False])
def test_what_failed_is_priced_again_only_by_who_wants_that(tmp_path, retries):
    pricer, items = Flaky(retries), make_items()
    first = run(pricer, items, store=tmp_path)
    half = first.scores["failed"]
    assert half > 0
    pricer.works = True
    again = run(pricer, items, store=tmp_path)
    assert again.scores["failed"] == (0 if retries else half)
    assert pricer.asked == len(items) + (half if retries else 0)
    assert again.manifest["label"] == "stand-in"  # the pricer says so itself
    assert again.predictions["input_tokens"].to_pylist() == [7] * len(items)
    assert run(pricer, items, store=tmp_path).predictions.equals(again.predictions)


@pytest.mark.parametrize(
    ("pricer", "message"),
    [(Counting, "is a class"), (7, "cannot price"), (None, "cannot price")],
)
def test_what_cannot_price_is_refused(pricer, message):
    with pytest.raises(TypeError, match=message):
        run(pricer)


@pytest.mark.parametrize(
    ("items", "message"),
    [
        ([{"title": "x"}], "no column 'id'"),
        (make_items() + make_items(), "id of its own"),
        ([*make_items([None]), {"id": None}], "id of its own"),
        (make_items(["$5"]), "do not fit the ITEM schema"),
        (make_items([-5.0]), "impossible price"),
        (make_items([float("inf")]), "impossible price"),
    ],
)
def test_bad_items_are_refused(items, message):
    with pytest.raises(ValueError, match=message):
        item_table(items)


def test_numbers_will_do_as_ids():
    assert run(always_42, [{"id": 7, "price": 1.0}]).predictions["item_id"].to_pylist() == ["7"]


def test_no_items_and_several_splits_are_refused():
    with pytest.raises(ValueError, match="no items"):
        evaluate(always_42, [], progress=False)
    with pytest.raises(TypeError, match="choose one"):
        evaluate(always_42, {"train": [], "test": []}, progress=False)


# --- the price stays hidden ----------------------------------------------------------------------


def test_a_pricer_that_looks_for_the_price_finds_nothing():
    """The incident: a pricer scored $0 because the item it was handed still had its price."""
    seen = []

    def peeking(product):
        seen.append(product)
        return product.price

    result = run(peeking, make_items([777.25]))
    assert estimates(result) == [None]
    assert "AttributeError" in errors(result)[0]
    assert "777" not in repr(seen)
    assert not hasattr(seen[0], "__dict__")


# --- failures ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("answer", "why"),
    [
        (None, "returned None"),
        ("42", "returned '42'"),
        (True, "returned True"),
        (float("nan"), "no price"),
        (float("inf"), "impossible price inf"),
        (-3, "impossible price -3"),
        ([1, 2], "TypeError"),
    ],
)
def test_what_is_no_price_is_a_failure_with_a_reason(answer, why):
    result = run(lambda product: answer)
    assert estimates(result) == [None] * 5
    assert why in errors(result)[0]
    assert result.scores["mae"] is None  # never $0
    assert result.scores["failed"] == 5


def test_an_exception_fails_one_product_of_a_function():
    def fragile(product):
        if product.id == "p1":
            raise RuntimeError("rate\nlimit")
        return np.float32(10)

    result = run(fragile)
    assert estimates(result) == [10, None, 10, 10, 10]
    assert errors(result)[1] == "RuntimeError: rate limit"


def test_an_exception_fails_the_batch_of_a_pricer():
    class Broken(Counting):
        def price(self, products):
            if products[0].id == "p2":
                raise ConnectionError("no network")
            return super().price(products)

    result = run(Broken(), batch_size=2)
    assert estimates(result) == [25, 25, None, None, 25]
    assert errors(result)[3] == "ConnectionError: no network"


def test_the_wrong_number_of_estimates_is_an_error():
    class Short(Counting):
        def price(self, products):
            return Estimates([1.0])

    with pytest.raises(ValueError, match="counting returned 1 estimates for 5 products"):
        run(Short())


def test_a_bare_array_of_dollars_will_do():
    class Bare(Counting):
        def price(self, products):
            return np.arange(len(products))

    assert estimates(run(Bare())) == [0, 1, 2, 3, 4]


def test_estimates_check_themselves():
    with pytest.raises(ValueError, match="2 values for 1 prices"):
        Estimates([1.0], low=[0, 0])
    with pytest.raises(ValueError, match="from 9 down to 2"):
        Estimates([1.0], low=[9], high=[2])
    with pytest.raises(ValueError, match="shape"):
        Estimates([[1.0]])
    failed = Estimates([np.nan, 5], low=[1, 4], high=[2, 6])
    assert np.isnan(failed.low[0])
    assert failed.high[1] == 6


def test_an_unknown_price_is_priced_but_not_scored():
    table = predict(always_42, make_items([10.0, None, float("nan")]), progress=False)
    assert table["price_estimate"].to_pylist() == [42, 42, 42]
    assert table["price_true"].to_pylist() == [10, None, None]
    assert score(table)["n"] == 1
    assert len(predict(always_42, [], progress=False)) == 0


def test_seconds_are_measured_and_costs_are_not_invented():
    result = run(Counting())
    assert all(s >= 0 for s in result.predictions["seconds"].to_pylist())
    assert result.predictions["cost_usd"].null_count == 5
    assert result.scores["cost_usd"] is None


# --- the store -----------------------------------------------------------------------------------


def test_a_finished_run_is_loaded_and_not_priced_again(tmp_path):
    first, second = Counting(), Counting()
    a, b = run(first, store=tmp_path), run(second, store=tmp_path, batch_size=1)
    assert second.asked == []
    assert a.predictions.equals(b.predictions)
    assert sorted(p.name for p in tmp_path.iterdir()) == ["counting" + SUFFIX, "counting.parquet"]


def test_other_settings_items_or_seed_are_another_run(tmp_path):
    run(Counting(alpha=1), store=tmp_path)
    for pricer, items, seed in [
        (Counting(alpha=2), make_items(), 42),
        (Counting(alpha=2), make_items([1.0]), 42),
        (Counting(alpha=2), make_items([1.0]), 43),
    ]:
        run(pricer, items, seed=seed, store=tmp_path)
        assert pricer.asked == [item["id"] for item in items]


def test_a_function_is_known_by_its_code_and_what_it_refers_to(tmp_path):
    """The incident: ``MEAN`` changed in the cell above, and the old result was shown again."""
    log = tmp_path / "log"

    def maker(value, helper):
        def pricer(product):
            with log.open("a") as file:
                file.write(product.id)
            return helper(value)

        return pricer

    def same(value):
        return value

    def double(value):
        return 2 * value

    for value, helper in [(5, same), (6, same), (6, double)]:
        log.write_text("")
        expected = [helper(value)] * 5
        assert estimates(run(maker(value, helper), store=tmp_path)) == expected
        assert log.read_text() == "p0p1p2p3p4"
        assert estimates(run(maker(value, helper), store=tmp_path)) == expected
        assert log.read_text() == "p0p1p2p3p4"  # nothing was priced again


def test_a_changed_label_or_mix_is_stored_without_pricing(tmp_path):
    run(Counting(), store=tmp_path)
    again = Counting()
    result = run(again, store=tmp_path, label="stand-in", natural_mix={"0-25": 1.0})
    assert again.asked == []
    assert result.scores["label"] == "stand-in"
    assert result.scores["mae_natural"] == pytest.approx((15 + 5) / 2)
    assert run(Counting(), store=tmp_path, label="stand-in").manifest["natural_mix"] is None
    with pytest.raises(ValueError, match="neither '' nor 'stand-in'"):
        run(Counting(), label="real")


@pytest.mark.parametrize("damage", ["no manifest", "half a manifest", "other predictions"])
def test_an_unfinished_result_is_priced_again(tmp_path, damage):
    run(Counting(), store=tmp_path)
    manifest, predictions = tmp_path / f"counting{SUFFIX}", tmp_path / "counting.parquet"
    if damage == "no manifest":
        manifest.unlink()
    elif damage == "half a manifest":
        manifest.write_text(manifest.read_text()[:50])
    else:
        pq.write_table(pq.read_table(predictions).slice(1), predictions)
    again = Counting()
    assert len(run(again, store=tmp_path).predictions) == 5
    assert len(again.asked) == 5


def test_an_interrupted_run_goes_on_and_a_corrupt_batch_is_priced_again(tmp_path):
    class Interrupted(Counting):
        stop_at = 3

        def price(self, products):
            if len(self.asked) >= self.stop_at:
                raise KeyboardInterrupt
            return super().price(products)

    first = Interrupted()
    with pytest.raises(KeyboardInterrupt):
        run(first, store=tmp_path, batch_size=1)
    batches = sorted(tmp_path.glob(".partial/counting-*/*.parquet"))
    assert [b.name for b in batches] == ["00000.parquet", "00001.parquet", "00002.parquet"]
    batches[1].write_bytes(b"PAR1 torn")
    second = Interrupted()
    result = run(second, store=tmp_path, batch_size=1)
    assert second.asked == ["p1", "p3", "p4"]
    assert result.predictions["item_id"].to_pylist() == ["p0", "p1", "p2", "p3", "p4"]
    assert not (tmp_path / ".partial").exists()


SCRIPT = """
import os, sys, time
from pathlib import Path
from shared.evaluation import evaluate

LOG = sys.argv[2]

def slow(product):
    with open(LOG, "a") as log:
        log.write(product.id + "\\n")
    time.sleep(0.01)
    return float(len(product.text))

items = [
    {"id": f"p{i}", "title": "t", "text": "x" * (i + 1), "category": "c", "details": "{}",
     "price": 5.0 + i, "cluster": "c", "split": "test"}
    for i in range(60)
]
evaluate(slow, items, store=Path(sys.argv[1]), batch_size=5, progress=False)
"""


def test_a_run_killed_half_way_prices_nothing_twice(tmp_path):
    """kill -9 in the middle, then the same command: only the unfinished batch is done again."""
    script, log, store = tmp_path / "script.py", tmp_path / "log", tmp_path / "store"
    script.write_text(SCRIPT)
    command = [sys.executable, str(script), str(store), str(log)]
    environment = os.environ | {"PYTHONPATH": str(Path(__file__).parent.parent)}
    process = subprocess.Popen(command, env=environment)
    deadline = time.monotonic() + 60
    while len(list(store.glob(".partial/*/[0-9]*.parquet"))) < 3 and time.monotonic() < deadline:
        time.sleep(0.005)
    process.send_signal(signal.SIGKILL)
    assert process.wait() == -signal.SIGKILL
    folder = next(store.glob(".partial/*"))
    stored = {
        i for f in folder.glob("[0-9]*.parquet") for i in pq.read_table(f)["item_id"].to_pylist()
    }
    assert len(stored) >= 15
    assert not list(store.glob("*.parquet"))
    before = log.read_text().split()
    subprocess.run(command, env=environment, check=True)
    after = log.read_text().split()[len(before) :]
    assert not stored & set(after)
    assert set(after) == {f"p{i}" for i in range(60)} - stored
    assert max(Counter(after).values()) == 1
    table = pq.read_table(store / "slow.parquet")
    assert table["price_estimate"].to_pylist() == [float(i + 1) for i in range(60)]


@pytest.mark.parametrize(
    "name", ["../../etc/passwd", "a/b", "..", "", "x\\y", "C:z", "n" * 300, "é"]
)
def test_a_name_cannot_leave_its_folder(tmp_path, name):
    stem = file_stem(name)
    assert (tmp_path / (stem + ".parquet")).resolve().parent == tmp_path.resolve()
    assert not stem.startswith(".")
    assert len(stem) < 80

    pricer = Counting()
    pricer.name = name
    run(pricer, store=tmp_path / "store")
    assert len(list((tmp_path / "store").iterdir())) == 2


def test_names_that_look_alike_do_not_share_a_file():
    assert file_stem("a b") != file_stem("a-b")
    assert file_stem("bag_of-words.2") == "bag_of-words.2"
