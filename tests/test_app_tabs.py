"""Two tabs that do work of their own: the deal finder that can be stopped, and drift."""

import threading

import numpy as np
import pytest

from shared.app import deals_tab, drift_tab
from shared.app.deals import PLAIN, Hunt, Run, said
from shared.app.drift import CHANGES, OBSERVATIONS, TRUTHS, look, simulate
from shared.app.knowledge import Knowledge
from shared.app.worker import Worker, released
from shared.data import products
from shared.pipeline import prepare
from shared.settings import Settings
from shared.watching import ObservationLog, Truths, Watch, item_key, observe


@pytest.fixture(scope="module")
def worker(tmp_path_factory):
    settings = Settings(runs=tmp_path_factory.mktemp("runs"))
    prepare("embedded", settings.runs / "items", size=1_500, progress=False)
    found = Worker(released(None), Knowledge.open(settings.runs / "items", settings), settings)
    yield found
    found.close()


def test_a_run_is_seen_while_it_works_and_held_to_the_truth(worker):
    hunt = Hunt(worker)
    seen = [(run.state, run.priced) for run in hunt.run(PLAIN, "", 3)]
    last = list(hunt.run(PLAIN, "", 3))[-1]
    assert seen[0][0] == "running"
    assert [priced for _, priced in seen] == sorted(priced for _, priced in seen)
    assert (last.state, last.priced) == ("done", last.offers)
    assert last.outcome.alerts, "nothing of half the price was found"
    shown = deals_tab.findings(last)
    assert shown.count("<tr role='row'>") == len(last.outcome.alerts) + 1
    assert "Planner: plain plan" in last.trace
    assert "Done: " in deals_tab.progress(last)


def test_one_run_at_a_time_and_a_run_that_nobody_watches_ends(worker):
    """Incident: the page was closed, the agent went on, and nobody could start another."""
    hunt = Hunt(worker)
    watching = hunt.run()
    next(watching)
    with pytest.raises(RuntimeError, match="at work already"):
        next(hunt.run())
    assert "Not started" in next(deals_tab.watched(hunt, PLAIN, "", 42))[0]
    watching.close()
    assert "deals" not in {thread.name for thread in threading.enumerate()}
    assert list(hunt.run())[-1].state == "done"


def test_stop_ends_a_run_between_two_steps(worker):
    hunt = Hunt(worker)
    for run in hunt.run():
        if run.priced:
            hunt.stop()
    assert run.state == "stopped"
    assert run.priced < run.offers
    assert "Stopped" in deals_tab.progress(run)


def test_a_language_model_plans_as_a_stand_in(worker):
    hunt = Hunt(worker)
    assert [name for name in hunt.planners() if "stand-in" in name] == ["gpt-6-luna (stand-in)"]
    run = list(hunt.run("gpt-6-luna (stand-in)"))[-1]
    assert (run.state, run.outcome.label) == ("done", "stand-in")
    assert any(line.startswith("model called") for line in run.said)


def test_a_run_that_fails_says_why(worker, monkeypatch):
    hunt = Hunt(worker)
    monkeypatch.setattr("shared.app.deals.find_deals", lambda *a, **k: 1 / 0)
    run = list(hunt.run())[-1]
    assert (run.state, run.error[:17]) == ("failed", "ZeroDivisionError")
    assert "ZeroDivisionError" in deals_tab.progress(run)


def test_titles_of_offers_are_text_in_log_and_progress():
    evil = "<script>alert(1)</script>"
    run = Run(offers=1, said=[said({"event": "alert", "id": "a"}, {"a": evil})], trace=evil)
    assert "<script" not in deals_tab.log(run) + deals_tab.findings(run)
    assert "ALERT: &lt;script" in deals_tab.log(run)
    assert said({"event": "something new"}, {}) == ""


@pytest.mark.parametrize("change", CHANGES)
def test_a_change_is_noticed_after_it_and_nothing_before(worker, change):
    found = simulate(worker, change)
    quiet = change == "nothing changes" or "true prices" in change
    assert (found.noticed is None) == quiet
    assert found.false_alarms == 0
    assert ("error level" in found.told) == ("true prices" in change) or "cut" in change
    assert drift_tab.simulated(worker, change, 42).count("<svg") >= 1


def test_nothing_to_watch_is_said_with_the_way_to_get_it(worker, tmp_path, monkeypatch):
    assert "serve --observations" in drift_tab.watched(worker)
    monkeypatch.setattr(worker, "observations", tmp_path)
    said = drift_tab.watched(worker)
    assert f"no {OBSERVATIONS} yet" in said
    assert str(tmp_path) not in said, "a visitor is told where things are on this machine"
    assert "Choose" in drift_tab.simulated(worker, "<b>", 1)


def test_a_service_is_watched_with_its_late_truths(worker, tmp_path, monkeypatch):
    table = worker.knowledge.items.table("train")
    asked, reference = products(table), worker.release.reference()
    assert reference is not None
    seen = observe(asked, worker.price(asked), vocabulary=reference.vocabulary, version="shipped")
    log = ObservationLog(tmp_path / OBSERVATIONS)
    log.append(seen)
    dear = np.asarray(table["price"]) * 1.5
    Truths(tmp_path / TRUTHS).add(
        {item_key(p.text): float(price) for p, price in zip(asked, dear, strict=True)}
    )
    with log.path.open("a") as file:
        file.write('{"time": 1, "requ\n')  # a process was killed here
    monkeypatch.setattr(worker, "observations", log.path)
    found = look(worker)
    assert (found.count, found.damaged) == (len(asked), 1)
    assert next(s for s in found.signals if s.name == "error level").alarm
    shown = drift_tab.watched(worker)
    assert "ALARM" in shown
    assert "1 damaged lines" in shown
    assert asked[0].title[:20] not in shown


def test_a_long_log_has_the_windows_that_the_watch_has(worker, tmp_path, monkeypatch):
    """Incident: the newest 50,000 were looked at, and windows moved with every request."""
    asked = products(worker.knowledge.items.table("train"))[:100]
    reference = worker.release.reference()
    seen = observe(asked, worker.price(asked), vocabulary=reference.vocabulary, version="shipped")
    log = ObservationLog(tmp_path / OBSERVATIONS)
    log.append(seen)
    with log.path.open("ab") as file:
        file.write(log.path.read_bytes() * 500)
    monkeypatch.setattr(worker, "observations", tmp_path)
    found = look(worker)
    assert found.count == 50_100
    assert [w.end % 500 for w in found.windows] == [0] * len(found.windows)
    assert found.windows[-1] == Watch(reference).windows(log.table(), last=1)[0]


def test_too_few_observations_are_not_called_quiet(worker, tmp_path, monkeypatch):
    """Incident: after twelve requests the page said that all was as it had been."""
    asked = products(worker.knowledge.items.table("train"))[:12]
    vocabulary = worker.release.reference().vocabulary
    seen = observe(asked, worker.price(asked), vocabulary=vocabulary, version="shipped")
    ObservationLog(tmp_path / OBSERVATIONS).append(seen)
    monkeypatch.setattr(worker, "observations", tmp_path)
    shown = drift_tab.watched(worker)
    assert "12 of 500 products so far" in shown
    assert "No alarm" not in shown
    assert "quiet" not in shown
    assert "the reference of version shipped" in shown
