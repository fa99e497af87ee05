"""Load that counts waiting, charts that say it, and files of deployments that fit the course."""

from __future__ import annotations

import threading
import time
from pathlib import Path

import numpy as np
import pytest
import yaml

from shared import operating
from shared.evaluation import Estimates
from shared.open_models.adapters import TUNED
from shared.operating import Load, in_thread, latency_chart, run_load
from shared.prompts import completion_prompt, question
from shared.serving import Limits, create_app
from shared.serving.limits import retry_after

DEPLOY = Path(operating.__file__).parent / "deploy"
RECORDS = [{"title": "x" * n} for n in range(1, 8)]


class Steady:
    """Half a dollar for each character of the title; stands still while the gate is closed.

    With ``stall`` it stands still for a second, once, after so many products.
    """

    name = "steady"

    def __init__(self, stall=0):
        self.gate, self.stall, self.seen = threading.Event(), stall, -33  # the warm-up
        self.gate.set()

    def price(self, products):
        self.gate.wait(20)
        self.seen += len(products)
        if 0 < self.stall <= self.seen:
            self.stall = 0
            time.sleep(1.0)
        return Estimates([len(one.title) / 2 for one in products])


def quiet(pricer, **limits):
    return in_thread(create_app(pricer, "v1", limits=Limits(**limits), log=lambda line: None))


def test_both_loops_count_right_and_wrong_answers():
    right = [len(one["title"]) / 2 for one in RECORDS]
    with quiet(Steady()) as url:
        open_loop = run_load(url, RECORDS, rate=60, seconds=1.0, expected=right)
        closed = run_load(url, RECORDS, clients=3, seconds=0.5, expected=np.array(right), each=2)
        wrong = run_load(url, RECORDS, clients=1, seconds=0.3, expected=[9.0, *right[1:]])
    assert open_loop.answered == open_loop.asked > 20
    assert (open_loop.lost, open_loop.refused, open_loop.wrong) == (0, 0, 0)
    assert closed.products == 2 * closed.answered > 0
    assert closed.wrong == 0
    assert 0 < wrong.wrong < wrong.asked


def test_the_schedule_does_not_depend_on_the_service_and_is_the_same_twice():
    with quiet(Steady()) as url:
        first = run_load(url, RECORDS, rate=100, seconds=0.5)
        second = run_load(url, RECORDS, rate=100, seconds=0.5)
    assert sorted(first.when) == pytest.approx(sorted(second.when), abs=1e-5)


def test_a_stall_is_felt_by_all_who_were_due_and_hidden_by_a_closed_loop():
    """Coordinated omission: while the service stands still, a closed loop asks nothing."""
    found = {}
    for name, how in (("open", {"rate": 50}), ("closed", {"clients": 1})):
        with quiet(Steady(stall=10)) as url:
            found[name] = run_load(url, RECORDS, seconds=2.5, **how)
    slow = {name: sum(value > 0.4 for value in load.latency) for name, load in found.items()}
    assert slow["closed"] <= 5
    assert slow["open"] > 10


def test_what_is_refused_or_lost_is_counted_and_not_timed():
    steady, lines = Steady(), []

    def let_go():
        while sum(line["status"] == 429 for line in lines) < 6:
            time.sleep(0.01)
        steady.gate.set()

    limits = Limits(max_batch=1, max_wait=0.0, queue=1)
    with in_thread(create_app(steady, "v1", limits=limits, log=lines.append)) as url:
        steady.gate.clear()
        threading.Thread(target=let_go, daemon=True).start()
        found = run_load(url, RECORDS, rate=30, seconds=1.0)
    assert found.refused > 5
    assert found.answered + found.refused == found.asked
    assert found.reasons == {"HTTP 429": found.refused}
    nobody = run_load("http://127.0.0.1:9", RECORDS, rate=20, seconds=0.3, retries=1)
    assert nobody.lost == nobody.asked == nobody.retried
    assert np.isnan(nobody.p95)
    assert nobody.summary()["p95_ms"] is None


@pytest.mark.parametrize(
    "wrong", [{}, {"rate": 1, "clients": 1}, {"rate": 0}, {"clients": 1, "each": 9}]
)
def test_nonsense_loads_are_refused(wrong):
    with pytest.raises(ValueError, match=r"rate|each|above"):
        run_load("http://127.0.0.1:9", RECORDS, **wrong)


def test_waits_are_read_from_headers():
    assert retry_after({"retry-after": "3"}, 9.0) == 3.0
    assert retry_after({"retry-after": "3", "retry-after-ms": "250"}, 9.0) == 0.25
    for odd in ("", "soon", "-1", "nan", "1e9", "Wed, 21 Oct 2015 07:28:00 GMT"):
        assert retry_after({"retry-after": odd}, 9.0) == 9.0


def test_the_chart_says_its_finding_in_words():
    fast = Load(100, 100, 1.0, [0.01] * 100, [0.01] * 100, [0.0] * 100)
    slow = Load(100, 100, 1.0, [0.01] * 90 + [0.5] * 10, [0.01] * 100, [0.0] * 100)
    chart = latency_chart({"alone": fast, "with a stall": slow}, from_sent=("with a stall",))
    assert "with a stall" in chart.alt
    assert "p95 500 ms" in chart.alt
    assert "from sending: p50 10 ms, p90 10 ms, p95 10 ms" in chart.alt
    assert chart.png()[:4] == b"\x89PNG"
    assert "<svg" in chart.svg(dark=True)
    with pytest.raises(ValueError, match="no request"):
        latency_chart({"nothing": Load(0, 0, 0.0, [], [], [])})


# ----- deployments -------------------------------------------------------------------------------


def rendered(content):
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(TUNED.parents[1] / "pretraining" / "tiny")
    tokenizer.chat_template = (DEPLOY / "prices.jinja").read_text(encoding="utf-8")
    messages = [{"role": "system", "content": "s"}, {"role": "user", "content": content}]
    text = tokenizer.apply_chat_template(messages, tokenize=False, add_generation_prompt=True)
    return text.removeprefix(tokenizer.bos_token or "")


@pytest.mark.parametrize("text", ["A lamp\n\nSize: 3\n", "<product> & {{ x }} ‹/product>", "é $5"])
def test_the_chat_template_turns_the_question_into_what_was_tuned_on(text):
    """Incident: an adapter behind another prompt than its own was no better than its base."""
    inside = question(text).split("<product>\n")[1].removesuffix("\n</product>")
    for content in (question(text), [{"type": "text", "text": question(text)}]):
        assert rendered(content) == completion_prompt(inside)


def test_vllm_s_configuration_names_options_with_dashes_and_files_that_are_there():
    found = yaml.safe_load((DEPLOY / "vllm.yaml").read_text(encoding="utf-8"))
    assert all(name == name.replace("_", "-") for name in found)
    assert found["enable-lora"] is True
    assert Path(found["chat-template"]).name == "prices.jinja"
    assert found["max-lora-rank"] >= 32


def test_deployments_hold_no_key_and_copy_no_code():
    for path in DEPLOY.iterdir():
        if path.is_file():
            text = path.read_text(encoding="utf-8")
            assert "add_local" not in text
            assert "sk-" not in text
    assert "YOUR_GITHUB_NAME" in (DEPLOY / "modal_app.py").read_text()
