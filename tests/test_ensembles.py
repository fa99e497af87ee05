"""What an ensemble promises: weights that mean something, intervals that widen, honest tests."""

import json
import re
import subprocess
import sys

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from shared.data.curation import MAX_PRICE, MIN_PRICE
from shared.ensembles import (
    Case,
    Ensemble,
    EnsembleError,
    Member,
    Recorded,
    fit_ensemble,
    fit_weights,
    gain,
    leave_one_out,
    log_mix,
    open_ensemble,
    price_stored,
    recorded,
)
from shared.ensembles.weights import fit_scale
from shared.evaluation import Estimates, evaluate, read_predictions, score

N = 400
PRICES = np.round(np.exp(np.random.default_rng(0).normal(4, 0.8, 2 * N)).clip(2, 900), 2)
HALVES = {"validation": slice(0, N), "test": slice(N, 2 * N)}


def items(split="validation"):
    rows = range(2 * N)[HALVES[split]]
    return [
        {"id": f"p{i}", "title": f"t{i}", "category": "c", "price": float(PRICES[i]),
         "split": split, "cluster": f"c{i // 2}"} for i in rows
    ]  # fmt: skip


class Drawn:
    """A pricer that is off by a factor drawn for each product, and fails on some of them."""

    def __init__(self, name, spread, seed, fails=0.0, factor=1.0, label="", cost=None):
        random = np.random.default_rng(seed)
        self.name, self.label, self.cost = name, label, cost
        self.settings = {"spread": spread, "seed": seed, "fails": fails}
        values = PRICES * factor * np.exp(random.normal(0, spread, 2 * N))
        self.values = np.where(random.random(2 * N) < fails, np.nan, values)

    def price(self, products):
        found = self.values[[int(p.id[1:]) for p in products]]
        n = len(products)
        errors = ["out of order" if np.isnan(v) else None for v in found]
        cost = None if self.cost is None else [self.cost] * n
        usage = None if self.cost is None else [{"input": 10, "output": 2}] * n
        return Estimates(found, errors, seconds=[0.5 if self.label else 0.1] * n, cost_usd=cost,
                         usage=usage)  # fmt: skip


def unrelated(name, seed):
    """A pricer whose estimates have nothing to do with the products."""
    pricer = Drawn(name, 0.3, seed)
    pricer.values = np.exp(np.random.default_rng(seed).normal(4, 1.5, 2 * N))
    return pricer


MEMBERS = {
    "good": Drawn("good", 0.3, 1),
    "fair": Drawn("fair", 0.35, 2, cost=0.001),
    "weak": Drawn("weak", 0.6, 3, fails=0.2, cost=0.002),
}


@pytest.fixture(scope="module")
def stores(tmp_path_factory):
    """Stored runs of all members, on both splits: split -> member -> path."""
    folder = tmp_path_factory.mktemp("stores")
    for split in HALVES:
        for member in MEMBERS.values():
            evaluate(member, items(split), store=folder / split, progress=False)
    return {s: {n: folder / s / f"{n}.parquet" for n in MEMBERS} for s in HALVES}


@pytest.fixture(scope="module")
def ensemble(stores):
    return fit_ensemble(list(stores["validation"].values()), items=items())


def logs_and_target(seed, n, members, missing=0.0):
    random = np.random.default_rng(seed)
    target = random.normal(4, 1, n)
    logs = target[:, None] + random.normal(0, random.uniform(0.1, 1, members), (n, members))
    logs[random.random(logs.shape) < missing] = np.nan
    logs[0] = target[0]  # everybody has one
    return logs.clip(np.log(MIN_PRICE), np.log(MAX_PRICE)), target, random.uniform(0.5, 2, n)


problems = st.tuples(
    st.integers(0, 10**6), st.integers(30, 80), st.integers(1, 5), st.sampled_from([0.0, 0.3])
)


@settings(max_examples=40, deadline=None)
@given(problems, st.sampled_from([0.0, 0.05]))
def test_weights_are_not_negative_and_sum_to_one(problem, least):
    weights = fit_weights(*logs_and_target(*problem), least)
    assert (weights >= least - 1e-9).all()
    assert weights.sum() == pytest.approx(1)


@settings(max_examples=30, deadline=None)
@given(problems, st.randoms(use_true_random=False))
def test_permuting_members_permutes_weights(problem, random):
    logs, target, importance = logs_and_target(*problem)
    order = list(range(logs.shape[1]))
    random.shuffle(order)
    straight, turned = (fit_weights(x, target, importance) for x in (logs, logs[:, order]))
    # An optimum need not be unique to the last digit, but it is as good.
    off = [
        np.nansum(np.abs(target - log_mix(x, w)) * importance)
        for x, w in ((logs, straight), (logs[:, order], turned))
    ]
    assert off[0] == pytest.approx(off[1], rel=2e-3)
    if not np.isnan(logs).any():
        assert turned == pytest.approx(straight[order], abs=1e-5)


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 10**6), st.integers(2, 5))
def test_no_other_weights_are_better(seed, members):
    """The row that makes them sum to 1 must not move them: compare with points all around."""
    logs, target, importance = logs_and_target(seed, 60, members)
    weights = fit_weights(logs, target, importance)
    random = np.random.default_rng(seed)
    others = np.vstack([random.dirichlet(np.ones(members), 200), np.eye(members)])
    nearby = 0.99 * weights + 0.01 * others
    found = np.abs(target - log_mix(logs, weights)) @ importance
    for other in np.vstack([others, nearby]):
        assert found <= np.abs(target - log_mix(logs, other)) @ importance + 1e-6


def test_a_mix_is_that_of_the_members_that_are_there():
    logs = np.log([[10.0, 40.0], [10.0, np.nan], [np.nan, 40.0], [np.nan, np.nan]])
    mixed = np.exp(log_mix(logs, np.array([0.5, 0.5])))
    assert mixed[:3] == pytest.approx([20, 10, 40])
    assert np.isnan(mixed[3])
    # Those with the weight 0 count equally where nobody else answers.
    three = np.log([[np.nan, 10.0, 40.0]])
    assert np.exp(log_mix(three, np.array([1.0, 0.0, 0.0]))) == pytest.approx([20])


def test_the_scale_is_a_weighted_median():
    off = np.log([1.0, 2.0, 3.0])
    assert fit_scale(np.zeros(3), off, np.array([1.0, 1.0, 1.0])) == pytest.approx(2)
    assert fit_scale(np.zeros(3), off, np.array([1.0, 1.0, 9.0])) == pytest.approx(3)


def test_weights_go_to_the_better_members_and_missing_estimates_are_no_loss(ensemble):
    weights = dict(zip(ensemble.names, ensemble.weights, strict=True))
    assert weights["good"] > weights["fair"] > weights.get("weak", 0)
    # Errors of 0.3 and 0.35, drawn independently: the shares are about inverse to the variances.
    assert weights["good"] == pytest.approx(0.5, abs=0.12)


def test_a_silent_half_does_not_make_a_good_member_weak():
    """Incident: estimates that were missing had been filled with a constant, and the best member,
    which failed on half of the products, got no weight for the others."""
    logs, target, importance = logs_and_target(5, 400, 1)
    random = np.random.default_rng(0)
    best = target + random.normal(0, 0.05, 400)
    whole = fit_weights(np.column_stack([logs[:, 0], best]), target, importance)
    best[random.random(400) < 0.5] = np.nan
    half = fit_weights(np.column_stack([logs[:, 0], best]), target, importance)
    assert half[1] == pytest.approx(whole[1], abs=0.05)


@settings(max_examples=15, deadline=None)
@given(st.integers(0, 10**6))
def test_an_ensemble_of_one_member_equals_it(seed):
    alone = Drawn("alone", 0.4, seed, fails=0.1)
    run = evaluate(alone, items(), progress=False)
    found = price_stored(fit_ensemble([run], scaled=False), recorded([run]))
    expected = run.predictions["price_estimate"].to_numpy(zero_copy_only=False)
    got = found["price_estimate"].to_numpy(zero_copy_only=False)
    assert got == pytest.approx(expected.clip(MIN_PRICE, MAX_PRICE), nan_ok=True)


def test_a_factor_common_to_all_members_is_found(stores):
    low = evaluate(Drawn("low", 0.3, 1, factor=0.5), items(), progress=False)
    scaled, plain = (fit_ensemble([low], scaled=s) for s in (True, False))
    assert scaled.case(["low"]).scale == pytest.approx(2, rel=0.1)
    assert plain.case(["low"]).scale == 1
    assert plain.case(["low"]).factor > scaled.case(["low"]).factor


def test_intervals_cover_what_they_promise_whoever_is_missing():
    """The point of a case for each set of members: 90 % with a member gone, and not without."""
    random, inside, uncorrected = np.random.default_rng(1), {}, []
    for _ in range(12):
        prices = np.exp(random.normal(4, 0.8, 2 * N)).clip(2, 900)
        off = random.normal(0, 1, (2 * N, 3)) * [0.3, 0.35, 0.6]
        estimates = prices[:, None] * np.exp(off)
        estimates[random.random(2 * N) < 0.2, 2] = np.nan
        known = {"n": N, "splits": ["validation"], "fingerprint": "f"}
        ids = np.array([f"p{i}" for i in range(N)])
        ensemble = fit_ensemble(
            Recorded(tuple("abc"), ids, prices[:N], estimates[:N], (), ({"items": known},) * 3,
                     pa.nulls(N, pa.string()))
        )  # fmt: skip
        for case in ensemble.cases:
            there = np.isin(ensemble.names, case.members)
            seen = np.where(there, estimates[N:], np.nan)
            answered = np.isfinite(seen[:, there]).all(axis=1)
            price, low, high = (ends[answered] for ends in ensemble.mix(seen))
            true = prices[N:][answered]
            assert ((low <= price) & (price <= high)).all()
            inside.setdefault(case.members, []).append(((low <= true) & (true <= high)).mean())
            if case.members == ("c",):
                factor = ensemble.case("abc").factor
                off_by = np.abs(np.log(true / price))
                uncorrected.append((off_by <= np.log(factor)).mean())
    assert len(inside) == 7
    for members, shares in inside.items():
        assert np.mean(shares) == pytest.approx(0.9, abs=0.025), members
    assert np.mean(uncorrected) < 0.6


def test_losing_a_member_never_narrows_the_interval(ensemble):
    whole = ensemble.case(ensemble.names)
    assert len(ensemble.cases) == 2 ** len(ensemble.members) - 1
    assert all(case.factor >= whole.factor for case in ensemble.cases)
    assert ensemble.case([ensemble.names[-1]]).factor > 1.05 * whole.factor


def test_where_all_fail_there_is_no_price_but_all_reasons(stores, ensemble):
    runs = recorded(list(stores["test"].values()), split="test")
    silent = {name: Drawn(name, 0.3, 1, fails=1.0) for name in ensemble.names}
    for member in silent.values():
        member.settings = MEMBERS[member.name].settings
    dead = recorded(
        [evaluate(m, items("test"), progress=False) for m in silent.values()], split="test"
    )
    table = price_stored(ensemble, dead)
    assert table["price_estimate"].null_count == N
    for name in ensemble.names:
        assert f"{name}: out of order" in table["error"][0].as_py()
    assert price_stored(ensemble, runs)["error"].null_count == N


def test_stored_members_are_paid_for_together_and_waited_for_once(stores):
    kept = fit_ensemble(list(stores["validation"].values()), least=0.02)
    table = price_stored(kept, recorded(list(stores["test"].values()), split="test"))
    row = read_predictions(table).to_pylist()[0]
    assert row["cost_usd"] == pytest.approx(0.003)
    assert row["input_tokens"] == 20
    assert row["seconds"] == pytest.approx(0.1)
    assert row["low"] < row["price_estimate"] < row["high"]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda v, t: [v["good"], t["fair"]], "predictions of the test split, and validation"),
        (lambda v, t: [t["good"]], r"store of their own"),
        (lambda v, t: [], "there are no runs"),
        (lambda v, t: [v["good"], v["good"]], "two runs have the same pricer"),
        (lambda v, t: [v["good"].with_name("nobody.parquet")], "no finished run"),
    ],
)
def test_wrong_runs_are_refused(stores, change, message):
    with pytest.raises(ValueError, match=message):
        fit_ensemble(change(stores["validation"], stores["test"]))


def test_runs_that_are_open_already_are_checked_all_the_same(stores, ensemble):
    opened = recorded(list(stores["test"].values()), split="test")
    for use in (fit_ensemble, leave_one_out):
        with pytest.raises(ValueError, match="predictions of the test split"):
            use(opened)
    with pytest.raises(ValueError, match="predictions of the validation split"):
        gain(ensemble, recorded(list(stores["validation"].values())))


def test_near_duplicates_are_known_where_the_items_are(stores):
    runs = [stores["validation"]["good"]]
    assert recorded(runs, items=items()).clusters.to_pylist()[:4] == ["c0", "c0", "c1", "c1"]
    assert recorded(runs).clusters.null_count == N


def test_runs_without_a_known_split_are_refused():
    unnamed = [row | {"split": None} for row in items()]
    with pytest.raises(ValueError, match="items of no named split"):
        fit_ensemble([evaluate(MEMBERS["good"], unnamed, progress=False)])
    table = evaluate(MEMBERS["good"], items(), progress=False).predictions
    with pytest.raises(TypeError, match="does not say of which split"):
        fit_ensemble([table])


def test_runs_of_other_items_are_refused(stores):
    good = stores["validation"]["good"]
    fewer = evaluate(MEMBERS["fair"], items()[:-1], progress=False)
    with pytest.raises(ValueError, match="priced different items") as told:
        fit_ensemble([good, fewer])
    assert "399 ids in common of 400 and 399" in str(told.value)
    with pytest.raises(ValueError, match="the runs are of other items"):
        fit_ensemble([good], items=items()[:-1])
    with pytest.raises(ValueError, match="not all of the validation split"):
        fit_ensemble([good], items=items("test"))


def test_too_little_to_fit_on_is_refused(stores):
    silent = evaluate(Drawn("silent", 0.3, 1, fails=0.95), items(), progress=False)
    with pytest.raises(ValueError, match=r"silent: \d+ estimates for 400 products"):
        fit_ensemble([stores["validation"]["good"], silent])
    nine = [evaluate(Drawn(f"m{i}", 0.3, i), items(), progress=False) for i in range(9)]
    with pytest.raises(ValueError, match="9 members: at most 8"):
        fit_ensemble(nine)
    with pytest.raises(ValueError, match="least weight"):
        fit_ensemble(nine[:2], least=0.5)


def test_useless_members_are_dropped_unless_they_shall_stand_in(stores):
    worse = unrelated("bad", 9)
    worse.values = np.where(worse.values > 50, 999.0, 1.0)
    bad = evaluate(worse, items(), progress=False)
    runs = [stores["validation"]["good"], bad]
    ensemble = fit_ensemble(runs)
    assert ensemble.names == ("good",)
    assert [m.name for m in ensemble.dropped] == ["bad"]
    kept = fit_ensemble(runs, least=0.01)
    assert kept.names == ("good", "bad")
    assert kept.weights[1] == pytest.approx(0.01, abs=1e-6)


def test_labels_of_stand_ins_stay(stores):
    pretender = evaluate(Drawn("pretender", 0.3, 7, label="stand-in"), items(), progress=False)
    ensemble = fit_ensemble([stores["validation"]["good"], pretender])
    assert ensemble.label == "stand-in"
    assert "pretender (stand-in)" in repr(ensemble)


def test_fitting_again_gives_the_same(stores, ensemble):
    again = fit_ensemble(list(stores["validation"].values()), items=items())
    assert again == ensemble
    assert again.fingerprint == ensemble.fingerprint


def test_saved_and_opened_it_is_the_same(ensemble, tmp_path):
    path = ensemble.save(tmp_path / "deep" / "ensemble.json")
    opened = open_ensemble(path)
    assert opened == ensemble
    assert opened.fingerprint == ensemble.fingerprint
    content = json.loads(path.read_text())
    assert content["fitted_on"]["splits"] == ["validation"]
    assert len(content["fitted_on"]["fingerprint"]) == 16
    assert all(len(member["predictions"]) == 16 for member in content["members"])


def test_a_killed_save_leaves_the_old_ensemble(ensemble, tmp_path):
    path = ensemble.save(tmp_path / "ensemble.json")
    code = (
        "import os, signal, sys\n"
        "from dataclasses import replace\n"
        "from pathlib import Path\n"
        "from shared.ensembles import open_ensemble\n"
        "found = open_ensemble(sys.argv[1])\n"
        # Everything is written then, and only the new name is missing.
        "Path.replace = lambda *_: os.kill(os.getpid(), signal.SIGKILL)\n"
        "replace(found, name='other').save(sys.argv[1])\n"
    )
    done = subprocess.run([sys.executable, "-c", code, str(path)], check=False, timeout=60)
    assert done.returncode == -9
    assert open_ensemble(path) == ensemble


def hurt(path, change):
    content = json.loads(path.read_text())
    change(content)
    path.write_text(json.dumps(content))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda p: p.unlink(), "no ensemble is there; fit the ensemble again"),
        (lambda p: p.write_text(p.read_text()[:200]), "cannot be read"),
        (lambda p: p.write_text("[]"), "is not an ensemble"),
        (lambda p: p.write_text('{"kind": "pricer"}'), "is not an ensemble"),
        (lambda p: hurt(p, lambda c: c.update(version=2)), "has version 2"),
        (lambda p: hurt(p, lambda c: c["members"][0].update(weight=0.9)), "was changed"),
        (lambda p: hurt(p, lambda c: c.pop("sha256")), "was changed"),
    ],
)
def test_a_damaged_file_is_named(ensemble, tmp_path, change, message):
    path = ensemble.save(tmp_path / "ensemble.json")
    change(path)
    with pytest.raises(EnsembleError, match=f"ensemble.json: .*{message}"):
        open_ensemble(path)


@pytest.mark.parametrize(
    ("weights", "cases", "message"),
    [
        ([0.5, 0.6], 3, "sum to 1.1"),
        ([1.5, -0.5], 3, "weights are 0 or more"),
        ([0.5, float("nan")], 3, "weights are 0 or more"),
        ([0.5, 0.5], 2, "2 cases, and 3 sets"),
        ([], 0, "one a member"),
    ],
)
def test_impossible_ensembles_are_refused(weights, cases, message):
    members = tuple(Member(f"m{i}", w, 1.0, 0, "") for i, w in enumerate(weights))
    sets = [("m0", "m1"), ("m0",), ("m1",)][:cases]
    with pytest.raises(ValueError, match=message):
        Ensemble("e", members, tuple(Case(s, 1.0, 2.0, 9) for s in sets), 0.9, {"n": 9})


def test_the_gain_is_tested_against_the_member_that_validation_chose(ensemble, stores):
    found = gain(ensemble, list(stores["test"].values()))
    assert found.best == "good"
    assert found.against_best.b == "good"
    assert found.against_best.distinguishable
    assert found.against_best.difference < 0
    assert len(found.comparisons) == len(ensemble.members)
    assert repr(found).startswith("worth asking them all")
    errors = {n: score(stores["test"][n])["mae"] for n in ensemble.names}
    mine = score(found.predictions)
    assert mine["mae"] < min(errors.values())
    assert mine["failed"] == 0


def test_no_gain_is_called_no_gain(stores):
    twin = Drawn("twin", 0.3, 1)  # the same errors as good's: nothing to be gained
    twin.values = twin.values * 1.0001
    runs = {s: [stores[s]["good"], evaluate(twin, items(s), progress=False)] for s in HALVES}
    ensemble = fit_ensemble(runs["validation"], scaled=False)
    assert repr(gain(ensemble, runs["test"])).startswith("no gain over the best member is shown")


def test_a_gain_on_the_wrong_items_is_refused(ensemble, stores):
    with pytest.raises(ValueError, match="and test is needed"):
        gain(ensemble, list(stores["validation"].values()))
    only = [stores["test"][name] for name in ensemble.names[1:]]
    with pytest.raises(ValueError, match=f"the member '{ensemble.names[0]}', and there is no run"):
        gain(ensemble, only)


def test_a_member_that_became_another_is_refused(ensemble, stores):
    changed = Drawn("good", 0.3, 99)
    others = [stores["test"][name] for name in ensemble.names if name != "good"]
    run = evaluate(changed, items("test"), progress=False)
    with pytest.raises(ValueError, match=r"good: this is not the member .* differs in seed"):
        gain(ensemble, [run, *others])


def test_who_is_missed_most_comes_first(stores):
    found = leave_one_out(list(stores["validation"].values()))
    assert found[0].member == "good"
    assert found[0].mae_without > found[0].mae
    assert found[0].loss.distinguishable
    assert re.search(r"without good against all: \$\d", repr(found[0]))
    with pytest.raises(ValueError, match="one member alone"):
        leave_one_out([stores["validation"]["good"]])


def test_a_member_of_noise_is_no_gain_where_weights_have_not_seen_the_products(stores):
    """On the products it was fitted on, an ensemble can only seem to gain from another member."""
    noise = [evaluate(unrelated(f"noise{i}", i), items(), progress=False) for i in range(3)]
    found = {e.member: e for e in leave_one_out([stores["validation"]["good"], *noise])}
    assert all(not e.loss.distinguishable for n, e in found.items() if n != "good")
