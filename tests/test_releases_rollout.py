"""Canary releases: a new version proves itself on a share of the requests, or goes back."""

from __future__ import annotations

import json
import shutil
import signal
import subprocess
import sys
import textwrap
import threading
import urllib.request

import numpy as np
import pytest

from shared.compression.recorded import shipped
from shared.data import Product, products
from shared.evaluation import Estimates
from shared.operating import PriceClient, in_thread, open_served
from shared.releases import Plan, Registry, ReleaseError, Rollout, chances
from shared.releases.guard import BAD, FINE, Guard
from shared.releases.release import Release
from shared.releases.sequential import GO_ON, PROMOTE, ROLL_BACK, look
from shared.serving import create_app
from shared.watching import item_key
from tests.test_releases import ITEMS, items

EARLY = Plan(looks=(100, 200))
ASKED = [
    Product(str(i), f"product {i}", f"text of product {i}", "Home", "{}") for i in range(1_000)
]


def place(product: Product) -> int:
    return int(product.id.removeprefix("record-"))  # the service names what has no name of its own


def true_price(product: Product) -> float:
    return 20.0 + place(product) % 300


TRUTHS = {item_key(product.text): true_price(product) for product in ASKED}


class Double:
    """A version that errs by so many dollars up or down, and may misbehave."""

    label = ""

    def __init__(self, version: str, off: float = 5.0, does=None) -> None:
        self.name = self.version = version
        self.off, self.does, self.calls = off, does, 0

    def price(self, asked):
        self.calls += 1
        if self.does and (said := self.does(asked)) is not None:
            return said
        signs = [1 if (place(p) // 3 + int(self.version[1:])) % 2 else -1 for p in asked]
        prices = [
            true_price(p) + s * self.off * (0.5 + place(p) % 7 / 6)
            for p, s in zip(asked, signs, strict=True)
        ]
        return Estimates(prices, low=np.array(prices) / 2, high=np.array(prices) * 2)


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    registry = Registry(tmp_path_factory.mktemp("made") / "registry")
    for name in ("smallest", "small", "small"):
        registry.add("student", shipped(name), items=ITEMS)
    registry.promote("v1", "made")
    return registry


@pytest.fixture
def registry(made, tmp_path):
    shutil.copytree(made.folder, tmp_path / "registry")
    return Registry(tmp_path / "registry")


@pytest.fixture
def doubles(monkeypatch):
    """Let v1 and v2 be opened as doubles, which a test may replace."""
    found = {"v1": Double("v1"), "v2": Double("v2", off=1.0)}
    monkeypatch.setattr(Release, "open", lambda release, threads=1: found[release.version])
    return found


def ask(rollout: Rollout, n: int = 1_000, at_once: int = 20) -> list[str]:
    """Price products through the router, some a request; return who is said to have priced."""
    said = []
    for start in range(0, n, at_once):
        asked = ASKED[start : start + at_once]
        pricer, version = rollout(f"request {start}")
        found = pricer.price(asked)
        assert np.isfinite(found.price).all()
        said += getattr(found, "versions", [version] * len(asked))
    return said


def whats(registry: Registry) -> list[str]:
    return [e["what"] for e in registry.history() if "add" not in e["what"]]


def test_a_share_of_the_requests_goes_to_the_candidate_and_stays_there(registry, doubles):
    rollout = Rollout(registry, "v2", share=0.2)
    names = [f"request {i}" for i in range(5_000)]
    first = [rollout(name)[1] for name in names]
    assert first.count("v2") / len(first) == pytest.approx(0.2, abs=0.025)
    again = Rollout.under_way(Registry(registry.folder))  # another process would do the same
    assert [again(name)[1] for name in names] == first


def test_a_better_version_is_promoted_with_its_numbers(registry, doubles):
    rollout = Rollout(registry, "v2", share=1.0, plan=EARLY)
    ask(rollout)
    found = rollout.look(TRUTHS)
    assert (found.n, found.decision, rollout.status) == (1_000, PROMOTE, "promoted")
    assert registry.current_version == "v2"
    assert rollout("any")[1] == "v2"
    event = registry.history()[-2]
    assert (event["what"], event["by"]) == ("promoted", "rollout")
    assert "1,000 products" in event["why"]
    assert whats(registry)[1:] == ["canary begun", "canary look", "promoted", "canary promoted"]
    assert found.old == pytest.approx(5, abs=0.5)
    assert found.new == pytest.approx(1, abs=0.1)


def test_a_worse_version_is_rolled_back(registry, doubles):
    doubles["v2"] = Double("v2", off=9.0)
    rollout = Rollout(registry, "v2", share=1.0, plan=EARLY)
    ask(rollout)
    assert rollout.look(TRUTHS).decision == ROLL_BACK
    assert (rollout.status, registry.current_version) == ("rolled back", "v1")
    assert rollout("any")[1] == "v1"
    assert rollout.look(TRUTHS) is None  # it has ended


def test_an_equal_version_is_given_up_unless_a_margin_was_agreed(registry, doubles):
    doubles["v2"] = Double("v2", off=5.0)
    rollout = Rollout(registry, "v2", share=1.0, plan=EARLY)
    ask(rollout)
    assert rollout.look(TRUTHS).decision == GO_ON
    assert (rollout.status, registry.current_version) == ("given up", "v1")
    rollout = Rollout(registry, "v2", share=1.0, plan=Plan(looks=(100, 200), margin_share=0.2))
    ask(rollout)
    rollout.look(TRUTHS)
    assert (rollout.status, registry.current_version) == ("promoted", "v2")


def test_nobody_looks_before_it_is_planned_nor_twice(registry, doubles):
    doubles["v2"] = Double("v2", off=5.0)
    rollout = Rollout(registry, "v2", share=1.0, plan=Plan(looks=(100, 200, 400)))
    ask(rollout, 400)
    keys = list(TRUTHS)
    seen = [
        rollout.look({key: TRUTHS[key] for key in keys[:n]})
        for n in (0, 50, 99, 150, 151, 199, 250, 399, 400)
    ]
    assert [found and found.n for found in seen] == [
        None, None, None, 150, None, None, 250, None, 400,
    ]  # fmt: skip
    assert rollout.status == "given up"


@pytest.mark.parametrize("truths", [
    {}, {"unknown": 5.0}, {key: float("nan") for key in TRUTHS}, {key: -1.0 for key in TRUTHS},
    {key: float("inf") for key in TRUTHS},
])  # fmt: skip
def test_true_prices_that_are_none_decide_nothing(registry, doubles, truths):
    rollout = Rollout(registry, "v2", share=1.0, plan=EARLY)
    ask(rollout, 200)
    assert rollout.look(truths) is None
    assert rollout.status == "under way"


def test_true_prices_of_what_the_candidate_did_not_price_are_left_out(registry, doubles):
    """Truths for one arm only: what was asked of the old version alone is no pair."""
    rollout = Rollout(registry, "v2", share=0.3, plan=EARLY)
    said = ask(rollout)
    found = rollout.look(TRUTHS)
    assert found.n == said.count("v2") < 500


def test_a_product_that_is_asked_for_often_counts_once(registry, doubles):
    """Incident to be: one client asks 200 times for one product, and decides alone."""
    rollout = Rollout(registry, "v2", share=1.0, plan=EARLY)
    for _ in range(30):
        ask(rollout, 20)
    assert rollout.summary()["pairs"] == 20
    assert rollout.look(TRUTHS) is None


def test_true_prices_that_never_come_end_it_whatever_the_clock_does(registry, doubles):
    times = iter([0.0, 0.0, 5.0, -9e9, 13.9 * 86_400, 3.0, 14.1 * 86_400])
    rollout = Rollout(registry, "v2", share=1.0, plan=EARLY, clock=lambda: next(times))
    ask(rollout, 100)
    for _ in range(4):
        rollout.look({})
        assert rollout.status == "under way"
    rollout.look({})
    assert rollout.status == "given up"
    assert "14 days" in rollout.why
    assert registry.current_version == "v1"


def raises(asked):
    raise RuntimeError(f"cannot price {asked[0].text}")


def nothing(asked):
    return Estimates([np.nan] * len(asked), ["no idea"] * len(asked))


def too_many(asked):
    return Estimates([1.0] * (len(asked) + 1))


@pytest.mark.parametrize("does", [raises, nothing, too_many])
def test_a_candidate_that_fails_is_rolled_back_at_once_and_no_customer_notices(
    registry, doubles, does
):
    doubles["v2"] = Double("v2", does=does)
    rollout = Rollout(registry, "v2", share=1.0)
    assert set(ask(rollout)) == {"v1"}  # finite prices, and it is said whose
    assert rollout.status == "rolled back"
    assert doubles["v2"].calls <= 7
    assert "6 of 6 attempts failed" in registry.history()[-1]["why"]
    log = next(registry.folder.glob("rollout-*.jsonl")).read_text()
    assert "text of product" not in log


def test_a_candidate_that_takes_for_ever_is_rolled_back_at_once(registry, doubles):
    stop = threading.Event()
    doubles["v2"] = Double("v2", does=lambda asked: stop.wait(60) and None)
    rollout = Rollout(registry, "v2", share=1.0, seconds=0.05)
    assert set(ask(rollout, 400)) == {"v1"}
    assert rollout.status == "rolled back"
    stop.set()


def test_a_candidate_that_fails_now_and_then_is_covered_for(registry, doubles):
    """A product that the candidate cannot price is priced by the old one, and it is said."""

    def one_missing(asked):
        prices = [true_price(product) for product in asked]
        if asked[0].id == "0":
            prices[3] = np.nan
        return Estimates(prices, low=np.array(prices), high=np.array(prices))

    doubles["v2"] = Double("v2", does=one_missing)
    rollout = Rollout(registry, "v2", share=1.0)
    said = ask(rollout)
    assert said[3] == "v1"
    assert said.count("v2") == 999
    assert rollout.status == "under way"


def test_where_both_fail_there_is_no_price_and_both_reasons(registry, doubles):
    doubles["v1"], doubles["v2"] = Double("v1", does=nothing), Double("v2", does=raises)
    pricer, _ = Rollout(registry, "v2", share=1.0)("a")
    found = pricer.price(ASKED[:2])
    assert np.isnan(found.price).all()
    assert "v2: RuntimeError;" in found.error[0]  # what follows may quote another product
    assert "v1: no idea" in found.error[0]
    assert len(pricer.price([]).price) == 0


def test_it_goes_on_after_a_restart(registry, doubles):
    ask(Rollout(registry, "v2", share=1.0, plan=EARLY), 160)
    again = Rollout(Registry(registry.folder), "v2", share=1.0, plan=EARLY)
    assert again.summary()["pairs"] == 160
    assert again.look(TRUTHS).n == 160
    assert [e["what"] for e in registry.history()].count("canary begun") == 1


def test_another_rollout_waits_for_the_end_of_the_first(registry, doubles):
    Rollout(registry, "v2", share=0.5)
    for other in (("v2", 0.1), ("v3", 0.5)):
        with pytest.raises(ReleaseError, match="under way"):
            Rollout(registry, *other)
    Rollout.under_way(registry).stop("changed our minds")
    assert Rollout.under_way(registry) is None


def test_an_end_in_one_process_is_seen_in_all(registry, doubles):
    first, second = (Rollout(registry, "v2", share=1.0, plan=EARLY) for _ in range(2))
    ask(first, 100)
    ask(second, 200)
    assert first.look(TRUTHS).n == 200  # both have priced
    assert second("x")[1] == "v2" == registry.current_version
    assert second.status == "promoted"


@pytest.mark.parametrize(("by_hand", "status"), [("v2", "promoted"), ("v3", "given up")])
def test_a_promotion_by_hand_ends_it(registry, doubles, by_hand, status):
    rollout = Rollout(registry, "v2", share=1.0, plan=EARLY)
    ask(rollout, 50)
    registry.promote(by_hand, "by hand")
    rollout.look({})
    assert (rollout.status, registry.current_version) == (status, by_hand)


def test_a_service_that_starts_after_a_promotion_by_hand_serves_that_version(registry, doubles):
    """Incident to be: a canary that nobody had ended kept the old version in a new service."""
    doubles["v3"] = Double("v3")
    Rollout(registry, "v2", share=1.0)
    assert open_served(registry=registry.folder).router is not None
    registry.promote("v3", "by hand")
    served = open_served(registry=registry.folder)
    assert (served.version, served.router) == ("v3", None)
    assert registry.history()[-1]["what"] == "canary given up"


def test_a_service_says_which_version_it_serves_after_a_promotion(registry, doubles):
    """Incident: /ready named the version that the process had begun with, for ever."""
    rollout = Rollout(registry, "v2", share=1.0)
    app = create_app(registry.current().open(), "v1", router=rollout, log=lambda line: None)
    with in_thread(app) as url:
        PriceClient(url).price([{"title": "A kettle"}])
        for version in ("v1", "v2"):
            with urllib.request.urlopen(f"{url}/ready", timeout=20) as response:
                assert json.load(response)["model"] == version
            registry.promote("v2", "by hand")
            rollout.look({})


def test_a_canary_answers_in_the_unit_of_its_versions(registry, doubles):
    doubles["v1"].unit = doubles["v2"].unit = "EUR a month"
    assert Rollout(registry, "v2", share=1.0)("x")[0].unit == "EUR a month"


def test_what_cannot_be_begun_is_said(registry, doubles, tmp_path):
    with pytest.raises(ReleaseError, match="current version already"):
        Rollout(registry, "v1")
    with pytest.raises(ReleaseError, match="there is no v9"):
        Rollout(registry, "v9")
    with pytest.raises(ReleaseError, match="no version was promoted"):
        Rollout(Registry(tmp_path / "empty"), "v1")
    for wrong in ({"share": 0}, {"share": 1.1}, {"seconds": 0}, {"days": float("nan")}):
        with pytest.raises(ValueError, match="share"):
            Rollout(registry, "v2", **wrong)
    assert not (registry.folder / "rollout.json").exists()


@pytest.mark.parametrize("text", ["", "{}", "[]", "null", '{"plan": {}}'])
def test_a_damaged_state_is_told(registry, doubles, text):
    Rollout(registry, "v2")
    (registry.folder / "rollout.json").write_text(text)
    with pytest.raises(ReleaseError, match=r"rollout\.json: damaged"):
        Rollout.under_way(registry)


def test_a_state_that_is_damaged_or_deleted_meanwhile_costs_no_customer(registry, doubles):
    rollout, path = Rollout(registry, "v2", share=1.0), registry.folder / "rollout.json"
    kept = path.read_text()
    path.write_text("{")
    assert set(ask(rollout, 40)) == {"v1"}
    assert "damaged" in rollout.trouble
    path.write_text(kept)
    other = Rollout.under_way(registry)
    path.unlink()
    assert set(ask(other, 40)) == {"v1"}
    assert (other.status, other.look(TRUTHS)) == ("given up", None)
    assert not path.exists()


def test_a_service_starts_without_a_candidate_that_is_broken(registry):
    """Incident to be: the candidate's file is damaged, and the service restarts for ever."""
    Rollout(registry, "v2")
    (registry.folder / "v2" / "model" / "model.onnx").write_bytes(b"x")
    assert Rollout.under_way(registry) is None
    assert registry.history()[-1]["what"] == "canary rolled back"
    assert "model.onnx: changed" in registry.history()[-1]["why"]
    assert registry.current().open().version == "v1"


def test_any_text_is_a_request(registry, doubles):
    rollout = Rollout(registry, "v2", share=0.5)
    assert {rollout(name)[1] for name in ("", "\ud800", "\0", "x" * 10_000)} <= {"v1", "v2"}


def test_damaged_lines_of_the_log_are_left_out(registry, doubles):
    rollout = Rollout(registry, "v2", share=1.0, plan=EARLY)
    ask(rollout, 100)
    log = next(registry.folder.glob("rollout-*.jsonl"))
    strange = [{}, {"failed": "x", "of": 1}, {"failed": 0, "of": 1, "pairs": [[1, 2]]}, 7]
    with log.open("a") as file:
        file.write("".join(json.dumps(one) + "\n" for one in strange) + '{"fail')
    ask(rollout, 120)
    assert Rollout.under_way(registry).summary()["pairs"] == 120


def test_a_full_disk_stops_the_canary_and_no_customer(registry, doubles, monkeypatch):
    def full(*_):
        raise OSError(28, "No space left on device")

    rollout = Rollout(registry, "v2", share=1.0)
    monkeypatch.setattr("shared.releases.rollout.append_lines", full)
    assert len(ask(rollout, 100)) == 100
    assert "No space left" in rollout.summary()["trouble"]
    assert rollout("x")[1] == "v1"


def test_a_kill_after_the_promotion_is_made_up_for(registry):
    code = """
    import sys
    from shared.releases import Plan, Registry, Rollout
    from tests.test_releases_rollout import ASKED, Double, Release, TRUTHS, ask
    doubles = {"v1": Double("v1"), "v2": Double("v2", off=1.0)}
    Release.open = lambda release, threads=1: doubles[release.version]
    registry = Registry(sys.argv[1])
    rollout = Rollout(registry, "v2", share=1.0, plan=Plan(looks=(100,)))
    ask(rollout, 200)
    write = rollout._write
    def slow(**changes):
        if "status" in changes:
            print("promoted", flush=True)
            sys.stdin.read()
        write(**changes)
    rollout._write = slow
    rollout.look(TRUTHS)
    """
    process = subprocess.Popen(
        [sys.executable, "-c", textwrap.dedent(code), str(registry.folder)], text=True,
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
    )  # fmt: skip
    assert process.stdout.readline().strip() == "promoted", process.communicate()[1]
    process.send_signal(signal.SIGKILL)
    process.communicate(timeout=120)
    assert registry.current_version == "v2"
    rollout = Rollout.under_way(registry)
    rollout.look({})
    assert rollout.status == "promoted"
    assert registry.history()[-1]["what"] == "canary promoted"


def test_the_shipped_students_themselves(registry):
    """Real models, real router: the smaller one beside the other, with a margin of a fifth."""
    registry.promote("v2", "the larger one answers")
    plan = Plan(looks=(100, 240), margin_share=0.2)
    rollout = Rollout(registry, "v1", share=1.0, plan=plan, seconds=30)
    asked = [items("test", n=120, seed=seed) for seed in (1, 2)]
    for table in asked:
        pricer, version = rollout("a request")
        assert version == "v1"
        found = pricer.price(products(table))
        assert (found.low < found.price).all()
    prices = {
        item_key(product.text): price
        for table in asked
        for product, price in zip(products(table), table["price"].to_pylist(), strict=True)
    }
    assert rollout.look(prices).n >= 200
    assert rollout.status in ("promoted", "rolled back", "given up")


def errors(n=1_000, seed=0, skew=1.0):
    """Return errors of two versions that are as correlated and as skewed as those of pricers."""
    random = np.random.default_rng(seed)
    common = random.lognormal(3, skew, n)
    return common * random.uniform(0.5, 1.5, n), common * random.uniform(0.5, 1.5, n)


@pytest.mark.parametrize("seed", range(3))
def test_stated_risks_hold_at_the_margin(seed):
    """At the margin exactly either decision is wrong as often as it may be, and no oftener."""
    old, new = errors(seed=seed)
    plan = Plan(margin_usd=0.0)
    shifted = new - (new - old).mean()
    found = chances(plan, old, shifted)
    four_errors = 4 * np.sqrt(0.05 * 0.95 / 4_000)
    assert found[PROMOTE] <= plan.false_promotion + four_errors
    assert found[ROLL_BACK] <= plan.false_rollback + four_errors
    assert found[PROMOTE] + found[ROLL_BACK] > 0.02  # it is no test that never decides


def test_looking_after_every_price_would_break_the_promise():
    """Why looks are planned, and share the risk: each at 5 % by itself is wrong far more often."""
    old, new = errors()
    new = new - (new - old).mean()
    each = Plan(looks=tuple(range(100, 1_001, 100)), false_promotion=0.5, false_rollback=0.5)
    assert each.false_promotion / len(each.looks) == 0.05
    found = chances(each, old, new)
    assert found[PROMOTE] > 0.1


def test_what_is_clearly_better_or_within_the_margin_is_promoted():
    old, new = errors()
    new = new - (new - old).mean()
    assert chances(Plan(), old, new - 6)[PROMOTE] > 0.95
    assert chances(Plan(), old, new + 6)[ROLL_BACK] > 0.95
    assert chances(Plan(margin_usd=6), old, new)[PROMOTE] > 0.95
    assert chances(Plan(margin_share=6 / old.mean()), old, new)[PROMOTE] > 0.95
    assert chances(Plan(), old, new)[GO_ON] > 0.85


def test_the_simulation_decides_as_the_test_itself_does():
    plan = Plan(looks=(300,), margin_usd=1.0)
    agreed = 0
    for seed in range(12):
        old, new = errors(300, seed)
        new = new - (new - old).mean() + np.linspace(-4, 6, 12)[seed]
        over = new - plan.allowed(old)
        z = over.sum() / np.sqrt((over**2).sum())
        expected = PROMOTE if z < -1.645 else ROLL_BACK if z > 1.645 else GO_ON
        agreed += look(plan, old, new).decision == expected
    assert agreed >= 11


def test_the_real_look_is_wrong_as_seldom_as_stated():
    """Sign flips and all, forty times: of 40 rollouts at the margin 2 may be promoted."""
    plan, wrong = Plan(looks=(100, 200)), 0
    old, new = errors(5_000)
    new = new - (new - old).mean()
    random = np.random.default_rng(7)
    for _ in range(40):
        rows = random.choice(5_000, 200)
        found = [look(plan, old[rows[:n]], new[rows[:n]]).decision for n in plan.looks]
        wrong += PROMOTE in found
    assert wrong <= 6  # 2 are expected; more than 6 have a chance of 0.3 %


@pytest.mark.parametrize("wrong", [
    {"looks": ()}, {"looks": (10,)}, {"looks": (200, 200)}, {"looks": (300, 200)},
    {"margin_usd": -1}, {"margin_share": float("nan")}, {"false_promotion": 0},
    {"false_rollback": 0.6},
])  # fmt: skip
def test_a_plan_that_decides_nothing_is_refused(wrong):
    with pytest.raises(ValueError, match=next(iter(wrong))):
        Plan(**wrong)


def tripped_after(rate: float, seed: int, most: int = 10_000) -> int:
    guard, random = Guard(), np.random.default_rng(seed)
    for i, failed in enumerate(random.random(most) < rate):
        guard.add(int(failed), 1)
        if guard.tripped:
            return i + 1
    return most


def test_a_guard_lets_a_fine_version_work_and_stops_a_bad_one():
    """At a share FINE of failures at most 1 % are stopped within 10,000 attempts, as is stated."""
    assert sum(tripped_after(FINE, seed) < 10_000 for seed in range(100)) <= 4
    assert np.mean([tripped_after(BAD, seed) for seed in range(50)]) < 200
    assert tripped_after(1.0, 0) == 6


def test_a_guard_does_not_trust_a_good_past():
    """Incident elsewhere: after a good week it took an hour of failures to notice."""
    guard = Guard()
    guard.add(0, 1_000_000)
    for _ in range(6):
        assert not guard.tripped
        guard.add(1, 1)
    assert guard.tripped
