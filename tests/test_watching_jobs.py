"""The watch as people meet it: commands, the canary's schedule, the page in a real browser."""

import json
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
import yaml
from browsers import BROWSER, needs_browser

from shared.commands.cli import main
from shared.compression import StudentPricer
from shared.compression.recorded import shipped
from shared.data import products
from shared.frontier.connection import connect
from shared.frontier_uses.canary import Canary
from shared.pipeline import prepare
from shared.prompting.pricer import FrontierPricer
from shared.prompting.techniques import ZeroShot
from shared.watching import (
    Alerts,
    CanaryJob,
    ObservationLog,
    Reference,
    Truths,
    Watch,
    cusum_chart,
    drift_chart,
    item_key,
    observe,
    to_html,
)
from shared.watching.scheduled import WORKFLOW

NAME = "gpt-6-luna"


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return prepare("embedded", tmp_path_factory.mktemp("items"), size=2_400, progress=False).folder


@pytest.fixture(scope="module")
def items(folder):
    from shared.data import open_items

    return open_items(folder).table()


@pytest.fixture(scope="module")
def seen(items):
    """A reference of half of the items, and observations of the others with their prices."""
    pricer, half = StudentPricer(shipped("small")), np.arange(len(items)) % 2 == 0
    mine, rest = items.filter(pa.array(half)), items.filter(pa.array(~half))
    known = Reference.fit(mine, pricer.price(products(mine)).price)
    asked = products(rest)
    found = observe(
        asked, pricer.price(asked), vocabulary=known.vocabulary, version="v1", time=1.8e9
    )
    found = [replace(o, time=o.time + 60 * i) for i, o in enumerate(found)]
    return known, found, dict(zip([o.item for o in found], rest["price"].to_pylist(), strict=True))


@pytest.fixture
def service(seen, tmp_path):
    """What a service leaves behind: a log, a reference, true prices."""
    known, found, true = seen
    known.save(tmp_path / "reference.json")
    ObservationLog(tmp_path / "observations.jsonl").append(found)
    Truths(tmp_path / "truths.jsonl").add(true)
    return tmp_path


def strange(observations):
    return [
        replace(o, category="<b>Zeppelins</b>") if i % 5 == 0 else o
        for i, o in enumerate(observations)
    ]


def test_a_quiet_look_and_then_an_alarm_that_is_told_once(service, seen, capsys):
    look = ["watch", str(service), "--window", "140", "--windows-per-alarm", "1000",
            "--products-per-alarm", "20000", "--fail"]  # fmt: skip
    assert main(look) == 0
    assert "ALARM" not in capsys.readouterr().out
    ObservationLog(service / "observations.jsonl").append(strange(seen[1][:140]))
    with (service / "observations.jsonl").open("ab") as file:
        file.write(b"rubbish\n")
    assert main([*look, "--page", str(service / "page.html")]) == 1
    shown = capsys.readouterr()
    assert "Zeppelins" in shown.out
    assert "ALERT category" in shown.out
    assert "1 damaged lines" in shown.err
    assert "1 damaged lines" in (service / "page.html").read_text(encoding="utf-8")
    assert main([*look, "--json"]) == 1
    out = capsys.readouterr().out
    assert "ALERT" not in out
    found = {s["name"]: s for s in json.loads(out)["signals"]}
    assert found["category PSI"]["alarm"]
    assert found["error level"]["p"] is None


def test_the_command_says_what_is_missing(tmp_path, service, capsys):
    assert main(["watch", str(tmp_path / "none")]) == 1
    assert "there is no such file of observations" in capsys.readouterr().err
    assert main(["watch", str(service), "--truths", str(tmp_path / "none")]) == 1
    (service / "reference.json").write_text("{}")
    assert main(["watch", str(service)]) == 1
    assert "reference.json" in capsys.readouterr().err
    assert main(["watch", str(service), "--window", "3"]) == 2


def test_a_log_by_its_name_and_the_shipped_reference(service, capsys):
    """Incident: another model's log was held to the shipped pricer's reference without a word."""
    (service / "reference.json").unlink()
    assert main(["watch", str(service / "observations.jsonl")]) == 0
    shown = capsys.readouterr()
    assert "category PSI" in shown.out
    assert "though v1 answered" in shown.err


def test_late_prices_come_as_records(service, items, tmp_path, capsys):
    """What was sold is known as records; the service knows a product by its cleaned text."""
    from shared.operating.client import record_of
    from shared.serving.schemas import products_of

    rest = [p for i, p in enumerate(products(items)) if i % 2]
    prices = [p for i, p in enumerate(items["price"].to_pylist()) if i % 2]
    records = [record_of(p) | {"price": f"${1.5 * price:,.2f}"}
               for p, price in zip(rest, prices, strict=True)]  # fmt: skip
    records[0]["price"] = None
    file, truths = tmp_path / "sold.jsonl", tmp_path / "truths.jsonl"
    file.write_text("".join(json.dumps(record) + "\n" for record in records))
    truths.unlink()
    look = ["watch", str(service), "--window", "140", "--prices"]
    assert main([*look, str(file), "--json"]) == 0
    shown = capsys.readouterr()
    assert f"{len(rest) - 1:,} true prices, 1 records without" in shown.err
    found = {s["name"]: s for s in json.loads(shown.out)["signals"]}
    assert found["error level"]["alarm"]
    seen_by_service = products_of(records[1:])
    assert set(Truths(truths)) == {item_key(p.text) for p in seen_by_service}
    before = truths.read_bytes()
    assert main([*look, str(file)]) == 0
    assert truths.read_bytes() == before, "the same prices were added once more"
    assert main([*look, str(tmp_path / "none")]) == 1
    assert "no such file of records" in capsys.readouterr().err


@contextmanager
def reach(model=NAME, asked=None):
    """A vendor's address where ``model`` answers, whatever it is called."""
    with connect(NAME, stand_in=True, cap=50.0, cache=None) as connection:
        true_ask = connection.client.ask

        def ask(request):
            if asked is not None:
                asked.append(1)
            return replace(true_ask(replace(request, model=model)), model=NAME)

        connection.client.ask = ask
        yield FrontierPricer(connection, ZeroShot(), progress=False)


@pytest.fixture
def watched(items, tmp_path):
    return Canary(items.slice(0, 150), tmp_path / "runs")


def test_the_canary_notices_a_silent_replacement_and_tells_once(watched, tmp_path, capsys):
    alerts = Alerts([], tmp_path / "alerts.jsonl")
    model = {"now": "gpt-6-sol"}
    job = CanaryJob(watched, lambda: reach(model["now"]))
    assert job.due("2026-11-01")
    first = job.run("2026-11-01", alerts)
    assert first.change is None
    assert not job.due("2026-11-01")
    assert not job.run("2026-11-02", alerts).signal.alarm
    model["now"] = "gpt-6-nano"
    found = job.run("2026-11-03", alerts)
    assert found.signal.alarm
    assert found.against == first.path
    assert "Against the run of 2026-11-01: CHANGED" in found.signal.said
    assert found.signal.value > found.signal.threshold
    again = job.run("2026-11-04", alerts)  # still changed: against the same run, told already
    assert again.signal.alarm
    assert capsys.readouterr().out.count("ALERT") == 1
    job.accept("2026-11-04")
    assert not job.run("2026-11-05", alerts).signal.alarm
    assert alerts.open() == {}
    assert "cleared: canary gpt-6-luna (stand-in)" in capsys.readouterr().out


def test_the_job_asks_nothing_twice_on_one_date(watched):
    asked = []
    job = CanaryJob(watched, lambda: reach(asked=asked), every=7)
    one = job.run("2026-11-01")
    count = len(asked)
    assert repr(job.run("2026-11-01")) == repr(one)  # it holds NaN, which equals nothing
    assert len(asked) == count == 150
    assert not job.due("2026-11-07")
    assert job.due("2026-11-08")
    assert job.made("2026-11-01")
    assert not job.made("2026-11-08")
    with pytest.raises(ValueError, match="before the run of 2026-11-01"):
        job.run("2026-10-31")
    assert not job.due("2026-10-31")
    with pytest.raises(ValueError, match="no finished run of 2026-11-02"):
        job.accept("2026-11-02")
    (watched.folder / "accepted.json").write_text("[")
    with pytest.raises(ValueError, match=r"accepted\.json: damaged"):
        job.run("2026-11-08")


def test_the_canary_command(folder, tmp_path, capsys):
    base = ["canary", "--items", str(folder), "--runs", str(tmp_path / "runs"), "--model", NAME]
    day = [*base, "--n", "40", "--stand-in", "--date"]
    assert main([*day, "2026-11-01"]) == 0
    assert "The first run" in capsys.readouterr().out
    assert main([*day, "2026-11-02", "--fail"]) == 0
    assert "no change found (p = 1.000" in capsys.readouterr().out
    assert main([*day, "2026-11-03", "--every", "7"]) == 0
    assert "Not due" in capsys.readouterr().out
    assert main([*day, "2026-11-02", "--accept"]) == 0
    assert main([*day, "soon"]) == 2
    capsys.readouterr()
    assert main([*base, "--schedule", "never"]) == 2


def test_a_schedule_asks_what_was_asked(folder, tmp_path, capsys):
    """Incident: tried with 40 products, scheduled with 200: "a run of other items", every day."""
    base = ["canary", "--items", str(folder), "--runs", str(tmp_path / "runs"), "--model",
            "gpt-6-sol", "--n", "40", "--cap", "0.5", "--stand-in", "--schedule"]  # fmt: skip
    assert main([*base, "cron"]) == 0
    line = capsys.readouterr().out
    assert line.split()[:5] == ["17", "6", "*", "*", "*"]
    assert "-m shared canary" in line
    assert "--model gpt-6-sol --n 40 --every 1 --cap 0.5 --stand-in >>" in line
    assert main([*base, "github"]) == 0
    steps = yaml.safe_load(capsys.readouterr().out)["jobs"]["canary"]["steps"]
    run = next(step["run"] for step in steps if "shared canary" in step.get("run", ""))
    assert run.endswith("--model gpt-6-sol --n 40 --every 1 --cap 0.5 --fail")
    assert run.split()[:3] == ["python", "-m", "shared"]
    saved = next(step for step in steps if "cache/save" in step.get("uses", ""))
    assert saved["if"] == "always()", "a run that alarms fails its step, and would be forgotten"
    assert steps.index(saved) == len(steps) - 1
    assert WORKFLOW.is_file()


def test_charts_say_in_words_what_they_show(seen):
    known, found, true = seen
    watch = Watch(known, window=140)
    chart = drift_chart(watch.windows([*found[:280], *strange(found[:140])]), "category PSI")
    assert "1 alarm in 3 windows" in chart.alt
    assert "First alarm at product 420" in chart.alt
    assert chart.png()[:4] == b"\x89PNG"
    with pytest.raises(ValueError, match=r"no signal 'nothing'.*price KS"):
        drift_chart(watch.windows(found), "nothing")
    with pytest.raises(ValueError, match="no windows"):
        drift_chart([], "price PSI")
    dear = {item: 1.4 * price for item, price in true.items()}
    level, size = (cusum_chart(chart) for chart in watch.error_charts(found, dear))
    assert "error level: alarm at true price" in level.alt
    assert "CUSUM, error size" in size.alt
    empty = watch.error_charts(found, {})
    assert "no alarm" in cusum_chart(empty[0]).alt
    assert cusum_chart(empty[0]).svg(None).startswith("<svg")


@needs_browser
@pytest.mark.parametrize("width", [360, 1280])
@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_the_page_in_a_browser(seen, tmp_path, width, scheme):
    """Incident of other pages: a long category pushed the phone's page sideways."""
    from playwright.sync_api import sync_playwright

    known, found, true = seen
    long = [replace(o, category="W" * 100 + "<script>") for o in found[:140]]
    page = to_html(Watch(known, window=140), [*found[:280], *long], true, title="A <b> & co.")
    file = tmp_path / "page.html"
    file.write_text(page, encoding="utf-8")
    with sync_playwright() as play:
        browser = play.chromium.launch(executable_path=BROWSER, args=["--no-sandbox"])
        context = browser.new_context(
            viewport={"width": width, "height": 800}, color_scheme=scheme, offline=True
        )
        tab, errors, fetched = context.new_page(), [], []
        tab.on("console", lambda m: errors.append(m.text) if m.type == "error" else None)
        tab.on("request", lambda r: fetched.append(r.url))
        tab.goto(file.as_uri())
        assert tab.title() == "A <b> & co."
        assert tab.evaluate("document.documentElement.scrollWidth") <= width
        assert tab.locator("tr.alarm").count() >= 1
        assert tab.locator("svg[role=img][aria-label]").count() == 6
        colour = tab.evaluate("getComputedStyle(document.body).backgroundColor")
        assert (colour == "rgb(12, 15, 19)") == (scheme == "dark")
        assert fetched == [file.as_uri()]
        assert errors == []
        browser.close()


def test_the_workflow_and_the_page_travel_with_the_package():
    """Files that are no code are left out of a wheel unless the project says otherwise."""
    import tomllib

    root = Path(__file__).resolve().parent.parent
    packaged = tomllib.loads((root / "pyproject.toml").read_text())["tool"]["setuptools"]
    patterns = [p for ps in packaged["package-data"].values() for p in ps]
    for name in ("page.html", "canary.yaml", "gpt4_story.toml"):
        assert any(Path("watching", name).match(p) or Path(name).match(p) for p in patterns), name
