"""An ensemble at run time: members that raise, hang, fail or are switched off under way."""

import subprocess
import sys
import threading
import time

import numpy as np
import pytest

from shared.data import Product
from shared.ensembles import Case, Ensemble, EnsemblePricer, Member
from shared.evaluation import Estimates, Pricer, evaluate
from shared.frontier.connection import connect
from shared.prompting.pricer import FrontierPricer
from shared.prompting.techniques import ZeroShot
from shared.standin import StandIn

PRODUCTS = [Product(f"p{i}", f"lamp {i}", f"lamp {i}", "Tools", "{}") for i in range(4)]
LIMIT = 60.0  # never reached where nothing hangs


class Fixed:
    """Prices everything the same; ``does`` is called first."""

    settings = None

    def __init__(self, name, dollars, does=lambda: None, **more):
        self.name, self.dollars, self.does, self.more = name, dollars, does, more
        self.label, self.threads = "", []

    def price(self, products):
        self.threads.append(threading.current_thread())
        self.does()
        dollars = np.broadcast_to(self.dollars, len(products)).astype(float)
        return Estimates(dollars, **{k: [v] * len(products) for k, v in self.more.items()})


DOWN = RuntimeError("server is down")


def fail(error=DOWN):
    def does():
        raise error

    return does


def fitted(*names, settings=None):
    """An ensemble of members with equal weights: wider intervals with fewer members."""
    members = tuple(Member(n, 1 / len(names), 10.0, 0, "", settings=settings) for n in names)
    sets = [[n for i, n in enumerate(names) if bits >> i & 1] for bits in range(1, 2 ** len(names))]
    cases = (Case(tuple(s), 1.0, 2.0 + len(names) - len(s), 100) for s in sets)
    return Ensemble("both", members, tuple(cases), 0.9, {"n": 100})


def asked(*members, **options):
    options = {"time_limit": LIMIT} | options
    return EnsemblePricer(fitted(*(m.name for m in members)), members, **options)


def test_it_is_a_pricer_and_mixes():
    pricer = asked(Fixed("a", 10), Fixed("b", 40))
    assert isinstance(pricer, Pricer)
    found = pricer.price(PRODUCTS)
    assert found.price == pytest.approx([20] * 4)
    assert found.low == pytest.approx([10] * 4)
    assert found.high == pytest.approx([40] * 4)
    assert found.error == [None] * 4
    assert len(pricer.price([]).price) == 0
    assert pricer.tallies["a"].calls == 1


@pytest.mark.parametrize(
    ("does", "why"),
    [
        (fail(), "RuntimeError: server is down"),
        (fail(SystemExit(3)), "SystemExit: 3"),
        (fail(TimeoutError()), "TimeoutError"),
    ],
)
def test_a_member_that_raises_is_left_out_and_the_interval_is_wider(does, why):
    pricer = asked(Fixed("a", 10), Fixed("b", 40, does))
    found = pricer.price(PRODUCTS)
    assert found.price == pytest.approx([10] * 4)
    assert found.low == pytest.approx([10 / 3] * 4)
    assert found.high == pytest.approx([30] * 4)
    assert found.error == [None] * 4
    tally = pricer.tallies["b"]
    assert (tally.calls, tally.left_out, tally.failed, tally.why) == (1, 1, 4, why)
    assert pricer.tallies["a"].why is None


def test_a_member_is_left_out_product_by_product():
    some = Fixed("b", [40, np.nan, 40, np.nan])
    found = asked(Fixed("a", 10), some).price(PRODUCTS)
    assert found.price == pytest.approx([20, 10, 20, 10])
    assert found.high == pytest.approx([40, 30, 40, 30])


def test_where_all_fail_all_reasons_are_told():
    found = asked(Fixed("a", 10, fail()), Fixed("b", [np.nan] * 4)).price(PRODUCTS)
    assert np.isnan(found.price).all()
    assert np.isnan(found.low).all()
    assert found.error[0] == "a: RuntimeError; b: no price"


def test_what_a_member_says_of_one_product_is_not_told_of_another():
    """Incident: a member's error quoted a customer's text, and a whole batch got to read it."""
    said = fail(ValueError("cannot read 'a private text'"))
    pricer = asked(Fixed("a", 10, said))
    assert pricer.price(PRODUCTS).error == ["a: ValueError"] * 4
    assert pricer.price(PRODUCTS[:1]).error == ["a: ValueError: cannot read 'a private text'"]
    assert "private" in pricer.tallies["a"].why  # whoever runs it may know


@pytest.mark.parametrize("wrong", [[1.0, 2.0], "nonsense", None, [[1.0]]])
def test_nonsense_from_a_member_costs_only_its_own_part(wrong):
    class Wrong(Fixed):
        def price(self, products):
            return wrong

    pricer = asked(Fixed("a", 10), Wrong("b", 40))
    assert pricer.price(PRODUCTS).price == pytest.approx([10] * 4)
    assert pricer.tallies["b"].why


def test_members_are_asked_at_the_same_time():
    """Each waits for the other: asked one after the other, neither would ever answer."""
    both = threading.Barrier(2, timeout=30)
    pricer = asked(Fixed("a", 10, both.wait), Fixed("b", 40, both.wait))
    assert pricer.price(PRODUCTS).price == pytest.approx([20] * 4)


def test_a_member_that_hangs_is_left_out_until_it_is_back():
    let_go, calls = threading.Event(), []

    def hang():
        calls.append(1)
        assert let_go.wait(60)

    slow = Fixed("b", 40, hang)
    pricer = asked(Fixed("a", 10), slow, time_limit={"a": LIMIT, "b": 1.5})
    assert pricer.price(PRODUCTS).price == pytest.approx([10] * 4)
    assert pricer.tallies["b"].why == "no answer within 1.5 s"
    assert pricer.tallies["b"].seconds >= 1.5
    # While it hangs it is not asked again: it costs one thread, and its limit once.
    for _ in range(20):
        assert pricer.price(PRODUCTS).price == pytest.approx([10] * 4)
    assert len(calls) == 1
    assert "still busy with a call that took more than 1.5 s" in pricer.tallies["b"].why
    let_go.set()
    slow.threads[0].join(30)
    assert pricer.price(PRODUCTS).price == pytest.approx([20] * 4)
    assert pricer.tallies["b"].left_out == 21


def test_one_call_at_a_time_unless_more_are_allowed():
    """A pricer need not be safe to be called from two threads at once."""
    busy, most = [], []

    def count():
        busy.append(1)
        most.append(len(busy))
        time.sleep(0.01)
        busy.pop()

    pricer = asked(Fixed("a", 10, count))
    callers = [threading.Thread(target=pricer.price, args=(PRODUCTS,)) for _ in range(8)]
    for caller in callers:
        caller.start()
    for caller in callers:
        caller.join(60)
    assert len(most) == 8
    assert max(most) == 1
    assert pricer.tallies["a"].left_out == 0


def test_a_hanging_member_does_not_keep_the_process_from_ending():
    code = (
        "import sys, threading; sys.path.insert(0, 'tests')\n"
        "from test_ensembles_asking import Fixed, PRODUCTS, asked\n"
        "hang = Fixed('b', 40, lambda: threading.Event().wait())\n"
        "found = asked(Fixed('a', 10), hang, time_limit={'b': 0.2}).price(PRODUCTS)\n"
        "print(found.price.round(9).tolist())\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, timeout=120, check=True
    )
    assert done.stdout.strip() == "[10.0, 10.0, 10.0, 10.0]"


def test_costs_and_tokens_are_added_up():
    usage = {"input": 7, "output": 2, "model": "x"}
    pricer = asked(
        Fixed("a", 10, cost_usd=0.01, usage=usage),
        Fixed("b", 40),
    )
    found = pricer.price(PRODUCTS)
    assert found.cost_usd == pytest.approx([0.01] * 4)
    assert found.usage[0] == {"input": 7, "cached": 0, "output": 2, "reasoning": 0}
    assert asked(Fixed("a", 10), Fixed("b", 1)).price(PRODUCTS).cost_usd is None


def test_members_must_be_those_that_were_fitted():
    with pytest.raises(ValueError, match="no pricer for 'b' among: a"):
        EnsemblePricer(fitted("a", "b"), [Fixed("a", 10)])
    other = Fixed("a", 10)
    other.settings = {"seed": 2}
    with pytest.raises(ValueError, match=r"not the member that the weights were fitted for.*seed"):
        EnsemblePricer(fitted("a", settings={"seed": 1}), [other])
    EnsemblePricer(fitted("a", settings={"seed": 1}), [other], strict=False)
    with pytest.raises(ValueError, match="no members of both"):
        asked(Fixed("a", 10), time_limit={"z": 1.0})
    for bad in (0, -1.0):
        with pytest.raises(ValueError, match="give more than 0"):
            asked(Fixed("a", 10), time_limit=bad)


def test_it_is_evaluated_stored_and_reused_like_any_pricer(tmp_path):
    rows = [{"id": p.id, "title": p.title, "price": 20.0, "split": "test"} for p in PRODUCTS]
    first = evaluate(asked(Fixed("a", 10), Fixed("b", 40)), rows, store=tmp_path, progress=False)
    assert first.scores["mae"] == pytest.approx(0)
    again = Fixed("a", 10, fail(AssertionError("asked again")))
    found = evaluate(asked(again, Fixed("b", 40)), rows, store=tmp_path, progress=False)
    assert found.scores["failed"] == 0
    assert not again.threads


def test_a_hosted_member_that_is_switched_off_is_left_out():
    """The real thing: a server on loopback that is there, and then is not."""
    local = Fixed("local", 10)
    with StandIn() as server, connect("gpt-6-luna", stand_in=server, retries=0) as connection:
        hosted = FrontierPricer(connection, ZeroShot(), name="hosted", progress=False)
        pricer = asked(local, hosted)
        assert pricer.label == "stand-in"
        before = pricer.price(PRODUCTS)
        assert before.usage[0]["input"] > 0
        server.__exit__(None, None, None)
        after = pricer.price(PRODUCTS)
    assert after.price == pytest.approx([10] * 4)
    assert after.high / after.price == pytest.approx([3.0] * 4)
    assert before.high / before.price == pytest.approx([2.0] * 4)
    assert pricer.tallies["hosted"].failed == 4
    assert pricer.tallies["hosted"].why


def test_a_product_takes_as_long_as_its_slowest_member_says() -> None:
    """Stored estimates cost nothing to look up: the leaderboard showed microseconds for them."""
    slow, fast = Fixed("a", 10, seconds=3.0), Fixed("b", 20, seconds=0.2)
    assert asked(slow, fast).price(PRODUCTS).seconds == pytest.approx([3.0] * 4)
    silent = asked(Fixed("a", 10), Fixed("b", 20)).price(PRODUCTS)
    assert (silent.seconds < 1).all()
