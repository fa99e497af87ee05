"""A canary: no alarm while a model is the same, an alarm when another answers to its name."""

import math
import os
import signal
import subprocess
import sys
import textwrap
from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest

from shared.data.schema import PREDICTION
from shared.evaluation import read_predictions
from shared.frontier.connection import connect, make_client
from shared.frontier.secrets import Secret
from shared.frontier_uses.canary import Canary, change
from shared.pipeline import prepare
from shared.prompting.pricer import FrontierPricer
from shared.prompting.techniques import Chain, ZeroShot
from shared.standin import Fault, StandIn

NAME = "gpt-6-luna"


class Behind:
    """A vendor who lets another model answer."""

    sdk = None

    def __init__(self, client, model):
        self.client, self.model = client, model

    def ask(self, request):
        reply = self.client.ask(replace(request, model=self.model))
        return replace(reply, model=NAME)


class Dearer(ZeroShot):
    """Asks as always; what comes back is 15 % more."""

    def price(self, model, product, dialogue):
        guess = super().price(model, product, dialogue)
        guess.price *= 1.15
        return guess


@pytest.fixture(scope="module")
def items(tmp_path_factory):
    folder = tmp_path_factory.mktemp("items")
    return prepare("embedded", folder, size=1_600, progress=False).table().slice(0, 400)


@pytest.fixture(scope="module")
def watched(items, tmp_path_factory):
    """A canary with two days on which different models answered to the name."""
    canary = Canary(items, tmp_path_factory.mktemp("canary"))
    days = {"weak": "gpt-6-nano", "strong": "gpt-6-sol"}
    return canary, {
        what: price(canary, f"2026-11-0{day}", lambda c, m=model: Behind(c, m))
        for day, (what, model) in enumerate(days.items(), 1)
    }


@pytest.fixture(scope="module")
def small(items, tmp_path_factory):
    """A smaller one with three days: the same model twice, then one that is dearer."""
    canary = Canary(items.slice(0, 120), tmp_path_factory.mktemp("small"))
    return canary, {
        "same": price(canary, "2026-11-01"),
        "again": price(canary, "2026-11-02"),
        "dear": price(canary, "2026-11-03", technique=Dearer()),
    }


def price(canary, date, behind=lambda c: c, technique=None, **options):
    with connect(NAME, stand_in=True, cap=50.0, **options) as connection:
        connection.client = behind(connection.client)
        pricer = FrontierPricer(connection, technique or ZeroShot(), progress=False)
        return canary.run(pricer, date, progress=False)


def predictions(true: np.ndarray, estimate: np.ndarray) -> pa.Table:
    n = len(true)
    rows = {field.name: pa.nulls(n, field.type) for field in PREDICTION}
    rows |= {"pricer": ["m"] * n, "item_id": [str(i) for i in range(n)]}
    return pa.table(rows | {"price_true": true, "price_estimate": estimate}, schema=PREDICTION)


def test_a_run_lies_under_its_date_and_its_model(small):
    canary, runs = small
    assert runs["same"].parent.relative_to(canary.folder) == Path("2026-11-01", NAME)
    assert canary.runs() == list(runs.values())
    assert runs["same"].with_name(runs["same"].stem + ".manifest.json").is_file()


def test_the_same_model_twice_is_no_change(small):
    canary, runs = small
    found = canary.compare(runs["same"], runs["again"])
    assert not found.changed
    assert (found.error, found.level, found.moved, found.p) == (0, 0, 0, 1)
    assert str(found).startswith("no change found (p = 1.000")
    assert found.models == (NAME, NAME)
    assert "answered before" not in str(found)


def test_a_worse_model_under_the_same_name_is_found(watched):
    canary, runs = watched
    found = canary.compare(runs["strong"], runs["weak"])
    assert found.changed
    assert found.p_error < 0.005
    assert 0 < found.error_interval[0] < found.error < found.error_interval[1]
    back = canary.compare(runs["weak"], runs["strong"])
    assert back.changed
    assert back.error < 0
    assert "CHANGED" in str(back)


def test_the_same_model_at_another_level_is_found_though_it_errs_as_much(small):
    canary, runs = small
    found = canary.compare(runs["same"], runs["dear"])
    assert found.changed
    assert found.p_level < 0.005
    assert found.level == pytest.approx(15, abs=1)
    assert found.moved == pytest.approx(15, abs=0.1)
    assert abs(found.error) < 8


def test_a_model_as_good_under_the_same_name_moves_answers_but_not_errors(items, tmp_path):
    canary = Canary(items.slice(0, 200), tmp_path)
    runs = []
    for seed in (1, 2):
        with connect(NAME, stand_in=True) as connection, StandIn(seed=seed) as other:
            connection.client = make_client(connection.card, Secret("stand-in"), f"{other.url}/v1")
            pricer = FrontierPricer(connection, ZeroShot(), progress=False)
            runs.append(canary.run(pricer, f"2026-11-0{seed}", progress=False))
    found = canary.compare(*runs)
    assert found.moved > 10
    assert not found.changed


def test_a_model_that_begins_to_refuse_has_changed():
    """Incident: half of all answers were refusals, and the canary sang that all was well."""
    true = np.linspace(10, 500, 60)
    answers = predictions(true, true * 1.1)
    half = predictions(true, np.where(np.arange(60) % 2, true * 1.1, np.nan))
    none = predictions(true, np.full(60, np.nan))
    found = change(answers, half)
    assert found.changed
    assert found.failed == (0, 30)
    assert found.p_failed < 1e-6
    assert "failed 0 before, 30 now" in str(found)
    gone = change(answers, none)
    assert gone.changed
    assert str(gone).startswith("CHANGED (p < 0.001): no product has two estimates")
    assert change(half, half).p == 1
    nothing = change(none, none)
    assert not nothing.changed
    assert "CANNOT BE COMPARED" in str(nothing)


def test_power_needs_errors_of_one_pricer(small, items, tmp_path):
    canary, _ = small
    with pytest.raises(ValueError, match="power of 0 products"):
        canary.power(0)
    two = Canary(items.slice(0, 8), tmp_path)
    price(two, "2026-11-01")
    price(two, "2026-11-02", technique=Chain())
    with pytest.raises(ValueError, match="several pricers"):
        two.power()


def test_another_name_in_the_answers_is_said():
    true = np.linspace(10, 500, 50)
    before, after = (
        predictions(true, true * 1.1).append_column("model", pa.array([name] * 50))
        for name in ("gpt-6-luna-2026-06-01", "gpt-6-luna-2026-11-01")
    )
    found = change(before, after)
    assert not found.changed
    assert "gpt-6-luna-2026-06-01 answered before, gpt-6-luna-2026-11-01 now" in str(found)


def test_a_cache_is_refused(items, tmp_path):
    with (
        pytest.raises(ValueError, match="answers of last time"),
        connect(NAME, stand_in=True, cache=tmp_path / "c.sqlite") as connection,
    ):
        Canary(items, tmp_path).run(FrontierPricer(connection, ZeroShot()), "2026-11-01")
    assert not list(tmp_path.glob("2026*"))


def test_what_cannot_be_compared_is_refused(small, items, tmp_path):
    canary, runs = small
    other = Canary(items.slice(0, 50), canary.folder)
    with pytest.raises(ValueError, match="other items"):
        other.compare(runs["same"], runs["again"])
    with pytest.raises(ValueError, match="other items"):
        price(other, "2026-11-09")
    with pytest.raises(ValueError, match="no finished run"):
        canary.compare(runs["same"], tmp_path / "no.parquet")
    with pytest.raises(ValueError, match="isoformat"):
        price(canary, "yesterday")
    unknown = items.set_column(5, "price", pa.nulls(len(items), pa.float64()))
    with pytest.raises(ValueError, match="prices are all known"):
        Canary(unknown, tmp_path)
    few = Canary(items.slice(0, 5), tmp_path)
    with connect("claude-haiku-5-5", stand_in=True) as connection:
        claude = FrontierPricer(connection, ZeroShot(), progress=False)
        theirs = few.run(claude, "2026-11-01", progress=False)
    with pytest.raises(ValueError, match="watches one model"):
        few.compare(theirs, price(few, "2026-11-01"))
    with pytest.raises(ValueError, match="simulated from a stored one"):
        Canary(items, tmp_path / "empty").power()


def test_failed_products_are_left_out_and_asked_again(items, tmp_path):
    canary = Canary(items.slice(0, 20), tmp_path)
    first = price(canary, "2026-11-01")
    with connect(NAME, stand_in=True, retries=0) as connection:
        pricer = FrontierPricer(connection, ZeroShot(), progress=False)
        connection.server.faults = [Fault("refusal")] * 4
        second = canary.run(pricer, "2026-11-02", progress=False)
        found = canary.compare(first, second)
        assert (found.n, found.failed, found.moved) == (16, (0, 4), 0)
        asked = connection.asked
        canary.run(pricer, "2026-11-02", progress=False)
        assert connection.asked == asked + 4
    assert canary.compare(first, second).failed == (0, 0)


def test_a_killed_run_keeps_what_was_priced(items, tmp_path):
    some = tmp_path / "items.arrow"
    with pa.OSFile(str(some), "wb") as sink, pa.ipc.new_file(sink, items.schema) as writer:
        writer.write_table(items.slice(0, 100))
    code = """
        import os, signal, sys, pyarrow as pa
        from pathlib import Path
        from shared.frontier.connection import connect
        from shared.prompting.pricer import FrontierPricer
        from shared.prompting.techniques import ZeroShot
        from shared.frontier_uses.canary import Canary
        items = pa.ipc.open_file(sys.argv[1]).read_all()
        connection = connect("gpt-6-luna", stand_in=True, concurrency=1)
        ask = connection.client.ask
        def deadly(request):
            if connection.asked > 80:
                os.kill(os.getpid(), signal.SIGKILL)
            return ask(request)
        connection.client.ask = deadly
        pricer = FrontierPricer(connection, ZeroShot(), progress=False)
        Canary(items, Path(sys.argv[2])).run(pricer, "2026-11-01", progress=False)
    """
    folder = tmp_path / "canary"
    command = [sys.executable, "-c", textwrap.dedent(code), str(some), str(folder)]
    root = Path(__file__).resolve().parent.parent
    done = subprocess.run(command, env=os.environ | {"PYTHONPATH": str(root)}, check=False)
    assert done.returncode == -signal.SIGKILL
    canary = Canary(items.slice(0, 100), folder)
    assert canary.runs() == []
    with connect(NAME, stand_in=True) as connection:
        pricer = FrontierPricer(connection, ZeroShot(), progress=False)
        path = canary.run(pricer, "2026-11-01", progress=False)
        assert connection.asked == 100 - 64  # two batches of 32 were stored
    assert canary.runs() == [path]


def test_false_alarms_are_as_rare_as_promised():
    """Two runs of one model that never says the same twice, 150 times."""
    alarms = 0
    for seed in range(150):
        draw = np.random.default_rng(seed)
        true = np.exp(draw.normal(4, 1, 40))
        lasting = draw.standard_t(3, 40) * 0.5
        one, two = (true * np.exp(lasting + draw.normal(0, 0.3, 40)) for _ in range(2))
        alarms += change(predictions(true, one), predictions(true, two)).changed
    assert alarms <= 6  # of 150 at 1 %: above 6 in one case of 1,000


def test_without_a_change_the_simulation_alarms_at_its_level(watched):
    canary, _ = watched
    for alpha in (0.01, 0.1):  # the test of the error has half of it
        rate = canary.power(200, shift=0.0, alpha=alpha, simulations=20_000)
        tolerance = 4 * math.sqrt(alpha / 2 / 20_000)
        assert rate == pytest.approx(alpha / 2, abs=tolerance + 0.15 * alpha / 2)


def test_power_grows_with_canaries_and_shift_and_with_what_is_kept(watched):
    canary, runs = watched
    assert canary.power(100) < canary.power(400) < canary.power(1600)
    assert canary.power(shift=0.05) < canary.power(shift=0.2)
    assert canary.power(kept=0.5) < canary.power(kept=0.9)
    assert canary.power(kept=1.0) == 1.0
    assert canary.power() == canary.power(stored=runs["strong"])
    assert canary.power(kept=1.0, shift=0.0) == 0.0


def test_what_is_needed_has_the_power_and_less_has_not(watched):
    canary, _ = watched
    needed = canary.needed(0.8, shift=0.2)
    assert canary.power(needed, shift=0.2) >= 0.8
    assert canary.power(round(needed * 0.9), shift=0.2) < 0.8
    assert needed < canary.needed(0.8, shift=0.1)
    with pytest.raises(ValueError, match="even 50 canaries"):
        canary.needed(0.99, shift=0.01, most=50)


def test_the_simulated_power_is_that_of_the_real_comparison(watched):
    """The same change, made by hand to stored runs and found by the real test."""
    canary, runs = watched
    rows = read_predictions(runs["strong"])
    true = rows["price_true"].to_numpy()
    errors = np.abs(np.log(rows["price_estimate"].to_numpy(zero_copy_only=False) / true))
    errors, found, n = errors[np.isfinite(errors)], 0, 50
    for seed in range(60):
        draw = np.random.default_rng(seed)
        before = draw.choice(errors, n)
        after = np.where(draw.random(n) < 0.75, before, draw.choice(errors, n)) * 1.4
        sign = np.where(draw.random(n) < 0.5, 1, -1)  # the level stays as it was
        ones = np.full(n, 1000.0)
        pair = (predictions(ones, 1000 * np.exp(sign * e)) for e in (before, after))
        found += change(*pair).p_error < 0.005
    power = canary.power(n, shift=0.4, stored=runs["strong"])
    assert found / 60 == pytest.approx(power, abs=3.5 * math.sqrt(power * (1 - power) / 60))
