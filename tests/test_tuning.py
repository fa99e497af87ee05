"""Fine-tuning: examples that are checked, a job that survives restarts, a model that has learnt."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import openai
import pyarrow as pa
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from pytest_httpserver import HTTPServer

from shared.data import Product, products
from shared.evaluation import Pricer, evaluate
from shared.frontier.clients import OpenAIClient
from shared.frontier.connection import Connection
from shared.frontier.models import find_model
from shared.frontier.secrets import Secret
from shared.pipeline import course_items
from shared.prompting.pricer import FrontierPricer
from shared.prompting.techniques import MOST_CHARS
from shared.prompts import SYSTEM, answer, question
from shared.settings import Settings
from shared.standin import StandIn
from shared.tuning.jsonl import JsonlError, prepare, text_of, validate
from shared.tuning.local_tuner import LocalTuner, local_tuned_pricer
from shared.tuning.openai_tuner import AsTaught, OpenAITuner, tuned_connection
from shared.tuning.protocol import Notes, Step, Tuner, TunerError

ROOT = Path(__file__).resolve().parent.parent
BASE = "gpt-4.1-mini"


@pytest.fixture(scope="module")
def items():
    return course_items(Settings.from_environment(), progress=False)


@pytest.fixture(scope="module")
def files(items, tmp_path_factory) -> tuple[Path, Path]:
    folder = tmp_path_factory.mktemp("examples")
    prepare(items.table("train"), folder / "train.jsonl", examples=300)
    prepare(items.table("validation"), folder / "validation.jsonl", examples=40)
    return folder / "train.jsonl", folder / "validation.jsonl"


@pytest.fixture(scope="module")
def server() -> Iterator[StandIn]:
    with StandIn(speed=20.0) as running:
        yield running


@pytest.fixture
def base(server: StandIn) -> Connection:
    """A connection to the base model, at the stand-in."""
    client = OpenAIClient(Secret("stand-in"), f"{server.url}/v1", retries=0)
    return Connection(find_model(BASE), client, address="stand-in", label="stand-in")


def tuner_of(connection: Connection, folder: Path) -> OpenAITuner:
    return OpenAITuner(connection.client.sdk, folder, training_price=5.0, poll=0.02)


def jobs_at(connection: Connection) -> int:
    return len(list(connection.client.sdk.fine_tuning.jobs.list()))


def files_at(sdk: openai.OpenAI) -> int:
    return len(list(sdk.files.list()))


def lesson(text: str, price: float | str, **changes) -> dict:
    said = price if isinstance(price, str) else answer(price)
    contents = zip(("system", "user", "assistant"), (SYSTEM, question(text), said), strict=True)
    return {"messages": [{"role": r, "content": c} for r, c in contents]} | changes


def write(path: Path, *lines: dict | str | bytes) -> Path:
    raw = [json.dumps(line) if isinstance(line, dict) else line for line in lines]
    raw = [line.encode() if isinstance(line, str) else line for line in raw]
    path.write_bytes(b"".join(line + b"\n" for line in raw))
    return path


def good(count: int) -> list[dict]:
    return [lesson(f"lamp of model {n} with {n} bulbs", 10.0 + n) for n in range(count)]


# ---------------------------------------------------------------------------------- examples


def test_prepared_examples_are_the_course_s_wording(items, tmp_path):
    train = items.table("train")
    made = prepare(train, tmp_path / "a.jsonl", examples=50, seed=1)
    again = prepare(train, tmp_path / "b.jsonl", examples=50, seed=1)
    other = prepare(train, tmp_path / "c.jsonl", examples=50, seed=2)
    assert made.digest == again.digest != other.digest
    known = {question(row["text"][:2000]): row["price"] for row in train.to_pylist()}
    for line in made.path.read_text().splitlines():
        system, asked, said = (turn["content"] for turn in json.loads(line)["messages"])
        assert system == SYSTEM
        assert said == answer(known[asked])
    check = validate(made.path, test_items=items.table("test"), model=BASE, training_price=5.0)
    assert check.ok, check
    assert check.cost_usd == pytest.approx(check.tokens * 3 * 5 / 1e6)
    assert sum(check.bands.values()) == pytest.approx(1)
    assert check.quartiles == tuple(sorted(check.quartiles))
    assert "50 examples, 0 problems" in str(check)


def test_what_is_prepared_passes_the_check_though_texts_differ_in_case_only(items, tmp_path):
    table = items.table("train").slice(0, 30)
    twins = table.set_column(
        table.schema.get_field_index("text"), table.schema.field("text"),
        pa.array([text.upper() for text in table["text"].to_pylist()], pa.string()),
    )  # fmt: skip
    both = pa.concat_tables([table, twins])
    made = prepare(both, tmp_path / "a.jsonl", examples=30)
    assert made.examples == 30
    assert validate(made.path).problems == []
    with pytest.raises(ValueError, match="from 30 different items"):
        prepare(both, tmp_path / "b.jsonl", examples=31)


def test_the_test_split_and_impossible_samples_are_refused(items, tmp_path):
    with pytest.raises(ValueError, match="test split"):
        prepare(items.table("test"), tmp_path / "x.jsonl")
    few = items.table("train").slice(0, 5)
    with pytest.raises(ValueError, match="different items"):
        prepare(few, tmp_path / "x.jsonl", examples=6)
    with pytest.raises(ValueError, match="different items"):
        prepare(pa.concat_tables([few, few]), tmp_path / "x.jsonl", examples=6)
    at = few.column_names.index("price")
    free = few.set_column(at, "price", pa.array([0.001] * 5))
    with pytest.raises(ValueError, match="0 dollars; leave it out"):
        prepare(free, tmp_path / "x.jsonl", examples=5)
    assert not list(tmp_path.iterdir()), "a refused sample leaves a file"


WRONG = {
    "no JSON": '{"messages": [',
    "no JSON ('utf-8'": b'\xff{"messages": []}',
    "no JSON (Expecting": "",
    "no JSON (Unexpected UTF-8 BOM": b"\xef\xbb\xbf{}",
    "messages: missing": {"prompt": "how much?", "completion": "$3"},
    "messages: missing,": lesson("a lamp", 3.0, weight=1),
    "role: ['system', 'user']": {"messages": lesson("a lamp", 3.0)["messages"][:2]},
    "role: ['user', 'system', 'assistant']": {
        "messages": [lesson("a lamp", 3.0)["messages"][at] for at in (1, 0, 2)]
    },
    "role: ['system', 'user', 'assistant', 'assistant']": {
        "messages": lesson("a lamp", 3.0)["messages"] + [{"role": "assistant", "content": "$3"}]
    },
    "role: [None]": {"messages": ["hello"]},
    "messages[2].content: empty": lesson("a lamp", " "),
    "messages[1].content: another question": lesson(" ", 3.0),
    "messages[2].content: no number": lesson("a lamp", "no idea"),
    "messages[2].content: a range": lesson("a lamp", "$3-5"),
    "messages[2].content: a price of 0": lesson("a lamp", "$0.00"),
    "messages[2].content: a price in another": lesson("a lamp", "€3"),
    "messages[1].content: half a character": lesson("a lamp \ud800", 3.0),
    "messages[0]: fields": {
        "messages": [
            {"role": "system", "content": SYSTEM, "name": "me"},
            *lesson("a lamp", 3.0)["messages"][1:],
        ]
    },
    "messages[0].content: other instructions": {
        "messages": [
            {"role": "system", "content": "Be kind."},
            *lesson("a lamp", 3.0)["messages"][1:],
        ]
    },
    "the product of line 1": lesson("lamp of model 0 with 0 bulbs", 99.0),
}


@pytest.mark.parametrize("told", WRONG)
def test_a_bad_line_is_named(tmp_path, told):
    check = validate(write(tmp_path / "bad.jsonl", *good(12), WRONG[told], *good(14)[12:]))
    assert len(check.problems) == 1, check
    assert check.problems[0].startswith("bad.jsonl, line 13")
    assert told in check.problems[0]
    assert not check.ok
    assert check.problems[0].count(";") >= 1, "it names no remedy"


def test_files_as_a_whole(tmp_path):
    with pytest.raises(JsonlError, match="No such file"):
        validate(tmp_path / "none.jsonl")
    assert "0 good examples" in validate(write(tmp_path / "empty.jsonl")).problems[0]
    assert not validate(write(tmp_path / "few.jsonl", *good(9))).ok
    long = lesson("lamp " * 60_000, 3.0)
    check = validate(write(tmp_path / "long.jsonl", *good(10), long))
    assert check.too_long == [11]
    assert check.longest > 65_536
    many = validate(write(tmp_path / "many.jsonl", *["?"] * 30))
    assert "… 31 in all" in str(many)
    assert (
        "cannot be fine-tuned" in validate(tmp_path / "few.jsonl", model="gpt-6-luna").problems[0]
    )


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: (
        st.lists(inner, max_size=4)
        | st.dictionaries(st.sampled_from(["messages", "role", "content", "x"]), inner, max_size=3)
    ),
)


@given(st.lists(st.one_of(st.binary(max_size=60), JSON.map(json.dumps)), max_size=5))
@settings(max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_no_line_breaks_the_check(tmp_path, lines):
    check = validate(write(tmp_path / "any.jsonl", *lines))
    assert not check.ok
    assert str(check)


@given(st.text())
def test_the_product_is_read_back_from_the_question(text):
    found = text_of(question(text))
    assert found is not None
    assert question(found) == question(text)
    assert text_of(text) is None or question(text_of(text)) == text


def test_leaks_are_found_near_duplicates_too(items, tmp_path):
    test = items.table("test")
    prepare(items.table("train"), tmp_path / "train.jsonl", examples=60)
    same, near, chain = test.slice(3, 3).to_pylist()
    words = near["text"].split(" ")
    near_text = " ".join([*words[:-2], "indigo", *words[-1:]])
    with (tmp_path / "train.jsonl").open("a") as file:
        for row, text in ((same, same["text"]), (near, near_text), (chain, chain["text"].upper())):
            file.write(json.dumps(lesson(text[:2000], row["price"])) + "\n")
    check = validate(tmp_path / "train.jsonl", test_items=test)
    assert {line for line, _ in check.leaks} == {61, 62, 63}
    assert dict(check.leaks)[61] == same["id"]
    assert len(check.problems) == 3
    assert validate(tmp_path / "train.jsonl").ok, "without test items nothing can be leaked"


def test_a_duplicate_is_one_whatever_its_spaces_and_case(tmp_path):
    copy = lesson("Product  NUMBER 1, of steel\n", 21.0)
    path = write(tmp_path / "a.jsonl", *good(10), lesson("Product number 1, of steel", 20.0), copy)
    assert validate(path).duplicates == [(12, 11)]
    train, other = tmp_path / "c.jsonl", write(tmp_path / "b.jsonl", copy)
    write(train, *good(10), lesson("Product number 1, of steel", 20.0))
    with pytest.raises(TunerError, match="use different splits"):
        Notes(tmp_path).take_files(train, other)


def test_only_a_title_is_compared_as_one(items, tmp_path):
    """Incident: products without a title begin with their weight, and equal weights were leaks."""
    item = items.table("test").slice(0, 1).to_pylist()[0]
    weight = "Item Weight: 3.4 pounds, boxed\n"
    untitled = {"title": "", "text": weight + "a chair of oak with arms and a tall back"}
    titled = {"title": "Sturdy lamp for the reading room", "id": "lamp"}
    titled["text"] = titled["title"] + "\nshade of linen, foot of brass, cord of two metres"
    test = pa.Table.from_pylist([item | untitled, item | titled], items.table("test").schema)
    other = lesson(weight + "guard for a drill, red, comes with screws", 9.0)
    same = lesson(titled["title"] + "\ndimmable and bright, a bulb is included in the box", 9.0)
    check = validate(write(tmp_path / "a.jsonl", *good(10), other, same), test_items=test)
    assert check.leaks == [(12, "lamp")]


# ------------------------------------------------------------------------------- the vendor's


def test_from_upload_to_a_tuned_model_that_is_asked_by_name(base, files, items, tmp_path, capsys):
    tuner = tuner_of(base, tmp_path)
    assert isinstance(tuner, Tuner)
    tuner.upload(*files)
    tuner.create(base=BASE, epochs=3, suffix="prices", cap=20)
    assert "cap $20.00" in capsys.readouterr().out
    steps = list(tuner.follow(progress=False))
    assert [step.step for step in steps] == list(range(1, len(steps) + 1))
    assert len(steps) > 100, "events come in pages: some are missing"
    late, early = steps[-20:], steps[:20]
    assert np.mean([s.train_loss for s in late]) < np.mean([s.train_loss for s in early])
    held_out = [s.validation_loss for s in steps if s.validation_loss is not None]
    assert len(held_out) == 3
    model = tuner.result()
    assert model.startswith(f"ft:{BASE}:")
    assert [c["step"] for c in tuner.checkpoints()] == sorted(
        c["step"] for c in tuner.checkpoints()
    )
    assert len(tuner.checkpoints()) == 3

    test = learnt_from(files[0], items)  # what it was taught, it must have learnt
    asked = FrontierPricer(base, AsTaught(), progress=False)
    tuned = FrontierPricer(tuned_connection(base, model, cap=5), AsTaught(), progress=False)
    found = evaluate(tuned, test, progress=False)
    assert not any(found.predictions["error"].to_pylist())
    assert found.manifest["label"] == "stand-in"
    assert error_of(found) < error_of(evaluate(asked, test, progress=False))


def learnt_from(path, items):
    """Return the training items whose texts are in a file of examples."""
    lines = map(json.loads, path.read_text(encoding="utf-8").splitlines())
    texts = {text_of(line["messages"][1]["content"]) for line in lines}
    train = items.table("train")
    return train.filter(pa.array([t[:MOST_CHARS] in texts for t in train["text"].to_pylist()]))


def error_of(found) -> float:
    true, guess = (found.predictions[n].to_numpy() for n in ("price_true", "price_estimate"))
    return float(np.abs(true - guess).mean())


def test_a_restart_goes_on_with_the_same_job(base, files, tmp_path):
    before = jobs_at(base)
    tuner_of(base, tmp_path).upload(*files)
    held = files_at(base.client.sdk)
    tuner_of(base, tmp_path).upload(*files)
    assert files_at(base.client.sdk) == held, "uploaded twice"
    job = tuner_of(base, tmp_path).create(base=BASE, epochs=1, cap=20)
    assert tuner_of(base, tmp_path).create(base=BASE, epochs=1, cap=20) == job
    steps = tuner_of(base, tmp_path).follow(progress=False)
    seen = [next(steps) for _ in range(5)]
    steps.close()
    again = list(tuner_of(base, tmp_path).follow(progress=False))
    assert again[:5] == seen
    assert [step.step for step in again] == list(range(1, len(again) + 1))
    assert list(tuner_of(base, tmp_path).follow(progress=False)) == again
    assert jobs_at(base) == before + 1
    with pytest.raises(TunerError, match="use another folder"):
        tuner_of(base, tmp_path).create(base=BASE, epochs=2, cap=20)
    with pytest.raises(TunerError, match="other files"):
        tuner_of(base, tmp_path).upload(files[0])


def test_two_at_once_in_one_folder_start_one_job(base, files, tmp_path):
    jobs, held = jobs_at(base), files_at(base.client.sdk)

    def start(_: int) -> str:
        tuner = tuner_of(base, tmp_path)
        tuner.upload(*files)
        return tuner.create(base=BASE, epochs=1, cap=20)

    with ThreadPoolExecutor(4) as threads:
        assert len(set(threads.map(start, range(4)))) == 1
    assert jobs_at(base) == jobs + 1
    assert files_at(base.client.sdk) == held + 2


def test_a_job_whose_answer_was_lost_is_found_again(base, files, tmp_path):
    """Incident waiting to happen: the job exists, the note of it does not, and money runs twice."""
    tuner = tuner_of(base, tmp_path)
    tuner.upload(*files)
    job = tuner.create(base=BASE, epochs=1, cap=20)
    before = jobs_at(base)
    request = Notes(tmp_path).read()["request"]
    Notes(tmp_path).write(job=None, request=None, creating=request)
    with pytest.raises(TunerError, match="use another folder"):
        tuner_of(base, tmp_path).create(base=BASE, epochs=2, cap=20)
    assert tuner_of(base, tmp_path).create(base=BASE, epochs=1, cap=20) == job
    assert jobs_at(base) == before


def test_a_failed_job_says_why(base, tmp_path, files):
    tuner = tuner_of(base, tmp_path / "job")
    path = tmp_path / "train.jsonl"
    path.write_bytes(files[0].read_bytes())
    tuner.upload(path)
    # What our own check lets pass and the vendor does not: a file that was emptied on its side.
    file = Notes(tmp_path / "job").read()["training"]
    sdk = base.client.sdk
    short = sdk.files.create(file=("short.jsonl", b'{"messages": []}\n'), purpose="fine-tune")
    sdk.files.delete(file)
    Notes(tmp_path / "job").write(training=short.id)
    tuner.create(base=BASE, cap=20)
    with pytest.raises(TunerError, match=r"failed .*Line 1"):
        list(tuner.follow(progress=False))
    with pytest.raises(TunerError, match="failed"):
        tuner.result()


def test_the_cap_holds_and_the_price_is_needed(base, files, tmp_path, capsys):
    tuner, before = tuner_of(base, tmp_path), jobs_at(base)
    with pytest.raises(TunerError, match="upload files first"):
        tuner.create(base=BASE, cap=1)
    tuner.upload(*files)
    for cap in (0.0, 0.01, float("nan")):
        with pytest.raises(TunerError, match="more than cap"):
            tuner.create(base=BASE, cap=cap)
    with pytest.raises(TunerError, match="training_price"):
        OpenAITuner(base.client.sdk, tmp_path).create(base=BASE, cap=100)
    with pytest.raises(TunerError, match="cannot be tuned"):
        tuner.create(base="gpt-6-luna", cap=100)
    for price in (-5.0, float("nan"), float("inf")):  # a negative one once passed every cap
        with pytest.raises(ValueError, match="0 or more"):
            OpenAITuner(base.client.sdk, tmp_path, training_price=price)
        with pytest.raises(ValueError, match="0 or more"):
            validate(files[0], training_price=price)
    with pytest.raises(ValueError, match="a whole number"):
        tuner.create(base=BASE, epochs=1.5, cap=100)
    assert jobs_at(base) == before
    for does in (tuner.result, tuner.cancel, lambda: list(tuner.follow())):
        with pytest.raises(TunerError, match="create one first"):
            does()


def test_cancel_and_clean_up(files, tmp_path):
    with StandIn(speed=0.1) as slow:
        sdk = openai.OpenAI(base_url=f"{slow.url}/v1", api_key="stand-in", max_retries=0)
        tuner = OpenAITuner(sdk, tmp_path, training_price=0, poll=0.02)
        tuner.upload(*files)
        tuner.create(base=BASE)
        with pytest.raises(TunerError, match="cancel it first"):
            tuner.clean_up()
        tuner.cancel()
        tuner.cancel()
        assert list(tuner.follow(progress=False)) == []
        with pytest.raises(TunerError, match="is cancelled"):
            tuner.result()
        tuner.clean_up()
        tuner.clean_up()
        assert files_at(sdk) == 0


def test_clean_up_deletes_the_model_if_asked(base, files, tmp_path):
    tuner = tuner_of(base, tmp_path)
    tuner.upload(*files)
    tuner.create(base=BASE, epochs=1, cap=20)
    list(tuner.follow(progress=False))
    models = lambda: [model.id for model in base.client.sdk.models.list()]  # noqa: E731
    tuner.clean_up()
    model = tuner.result()
    assert model in models()
    tuner.clean_up(model=True)
    tuner.clean_up(model=True)
    assert model not in models()
    for again in (tuner.result, lambda: tuner.upload(*files), lambda: tuner.create(base=BASE)):
        with pytest.raises(TunerError, match="was deleted; use another folder"):
            again()


def test_files_that_the_vendor_deleted_are_uploaded_again(base, files, tmp_path):
    tuner = tuner_of(base, tmp_path)
    tuner.upload(*files)
    base.client.sdk.files.delete(Notes(tmp_path).read()["training"])
    tuner.upload(*files)
    tuner.create(base=BASE, epochs=1, cap=20)
    assert list(tuner.follow(progress=False))
    assert tuner.result()


def test_two_followers_of_one_job_see_the_same_steps(base, files, tmp_path):
    tuner = tuner_of(base, tmp_path)
    tuner.upload(*files)
    tuner.create(base=BASE, epochs=3, cap=20)
    with ThreadPoolExecutor(3) as threads:
        follow = lambda _: list(tuner_of(base, tmp_path).follow(progress=False))  # noqa: E731
        seen = list(threads.map(follow, range(3)))
    assert [[step.step for step in steps] for steps in seen] == [
        list(range(1, len(seen[0]) + 1))
    ] * 3


@pytest.mark.parametrize(
    ("status", "message", "closed"),
    [
        (403, "You are not allowed to do that", True),
        (403, "Fine-tuning is no longer available to your organization.", True),
        (400, "Creating new fine-tuning jobs is not available.", True),
        (400, "Model gpt-4.1-mini is not available for fine-tuning or does not exist", False),
        (403, "You have insufficient permissions: missing scopes: api.fine_tuning", False),
        (429, "You exceeded your current quota", False),
    ],
)
def test_closed_fine_tuning_is_explained(
    httpserver: HTTPServer, files, tmp_path, status, message, closed
):
    for path, method in (("/v1/files", "POST"), ("/v1/fine_tuning/jobs", "POST")):
        body = {"error": {"message": message, "type": "invalid_request_error", "code": None}}
        if path == "/v1/files":
            body = {"id": "file-1", "object": "file", "bytes": 1, "created_at": 1}
            body |= {"filename": "t.jsonl", "purpose": "fine-tune", "status": "processed"}
        code = 200 if path == "/v1/files" else status
        httpserver.expect_request(path, method=method).respond_with_json(body, status=code)
    sdk = openai.OpenAI(base_url=httpserver.url_for("/v1"), api_key="sk-secret-123456789")
    tuner = OpenAITuner(sdk, tmp_path, training_price=5.0)
    tuner.upload(*files)
    with pytest.raises(TunerError) as caught:
        tuner.create(base=BASE, cap=20)
    told = str(caught.value)
    assert message in told
    assert ("2026-05-07" in told) is closed
    assert ("LocalTuner" in told) is closed
    asked = [request for request, _ in httpserver.log if "jobs" in request.path]
    assert len(asked) == 1, "a refused job is asked for again"
    assert asked[0].json["method"]["supervised"] == {"hyperparameters": {"n_epochs": 3}}
    assert asked[0].json["validation_file"] == "file-1"
    assert "creating" not in Notes(tmp_path).read()


def test_a_server_that_is_gone_and_damaged_notes_are_explained(files, tmp_path):
    sdk = openai.OpenAI(base_url="http://127.0.0.1:9/v1", api_key="none", max_retries=0)
    with pytest.raises(TunerError, match="no answer"):
        OpenAITuner(sdk, tmp_path, training_price=5.0).upload(*files)
    (tmp_path / "tuner.json").write_text("[1")
    with pytest.raises(TunerError, match="damaged"):
        OpenAITuner(sdk, tmp_path).result()


# ------------------------------------------------------------------------------ on this machine


def tuned_here(folder: Path, files, **options) -> tuple[LocalTuner, list[Step]]:
    tuner = LocalTuner(folder)
    tuner.upload(*files)
    tuner.create(**options)
    return tuner, list(tuner.follow(progress=False))


def test_local_tuning_learns(items, files, tmp_path):
    tuner, steps = tuned_here(tmp_path, files, epochs=5)
    assert isinstance(tuner, Tuner)
    assert len(steps) == 5 * -(-300 // 7)
    assert steps[-1].validation_loss < 0.8 * steps[0].validation_loss
    assert steps[-1].train_loss < steps[0].train_loss
    pricer = local_tuned_pricer(tuner.result())
    assert isinstance(pricer, Pricer)
    test = items.table("test").slice(0, 300)
    constant = validate(files[0]).quartiles[1]
    base = float(np.abs(test["price"].to_numpy() - constant).mean())
    assert error_of(evaluate(pricer, test, progress=False)) < 0.85 * base
    assert list(LocalTuner(tmp_path).follow(progress=False)) == steps
    assert LocalTuner(tmp_path).create(epochs=5) == tuner.create(epochs=5)


def test_the_local_pricer_reads_only_the_text(items, files, tmp_path):
    tuner, _ = tuned_here(tmp_path, files, epochs=1)
    pricer = local_tuned_pricer(tuner.result())
    some = products(items.table("test").slice(0, 20))
    blind = [Product(str(n), "", product.text, "", "{}") for n, product in enumerate(some)]
    assert np.array_equal(pricer.price(some).price, pricer.price(blind).price)
    assert len(pricer.price([]).price) == 0
    assert np.isfinite(pricer.price([Product("", "", "", "", "")]).price).all()


def test_same_seed_same_weights_and_settings_tell_them_apart(files, tmp_path):
    weights = {
        local_tuned_pricer(tuned_here(tmp_path / name, files, epochs=1, **options)[0].result())
        .settings["weights"]: name
        for name, options in {
            "a": {}, "same": {}, "seed": {"seed": 1}, "base": {"base": 30.0},
        }.items()
    }  # fmt: skip
    assert sorted(weights.values()) == ["base", "same", "seed"]


def test_bad_bases_and_changed_files_are_refused(files, tmp_path):
    tuner = LocalTuner(tmp_path)
    tuner.upload(*files)
    for wrong in ("gpt-4.1-mini", 0, -3, float("nan"), float("inf"), None):
        with pytest.raises(TunerError, match="number of dollars"):
            tuner.create(base=wrong)
    for epochs in (0, -1, 1.5, True, "3"):
        with pytest.raises(ValueError, match="a whole number"):
            tuner.create(epochs=epochs)
    tuner.create(base="25", epochs=1)
    (tmp_path / "training.jsonl").write_text("")
    with pytest.raises(TunerError, match="upload the file again"):
        list(tuner.follow(progress=False))
    with pytest.raises(TunerError, match="too; use different splits"):
        LocalTuner(tmp_path / "both").upload(files[0], files[0])
    with pytest.raises(TunerError, match="0 good examples"):
        LocalTuner(tmp_path / "bad").upload(write(tmp_path / "empty.jsonl"), None)


def test_local_cancel_clean_up_and_damage(files, tmp_path):
    tuner = LocalTuner(tmp_path / "a")
    tuner.upload(*files)
    tuner.create(epochs=5)
    steps = tuner.follow(progress=False)
    seen = [next(steps) for _ in range(15)]
    with pytest.raises(TunerError, match="not over"):
        tuner.clean_up()
    LocalTuner(tmp_path / "a").cancel()
    assert list(steps) == []
    assert list(tuner.follow(progress=False)) == seen
    with pytest.raises(TunerError, match="cancelled"):
        tuner.result()
    tuner.clean_up(model=True)
    assert sorted(p.name for p in (tmp_path / "a").iterdir()) == ["tuner.json"]

    tuner, _ = tuned_here(tmp_path / "b", files, epochs=1)
    weights = Path(tuner.result()) / "weights.safetensors"
    weights.write_bytes(weights.read_bytes()[:100])
    with pytest.raises(TunerError, match="damaged"):
        local_tuned_pricer(tuner.result())
    tuner.clean_up(model=True)
    with pytest.raises(TunerError, match="was deleted"):
        tuner.result()


SCRIPT = """
import sys, time
from pathlib import Path
from shared.tuning.local_tuner import LocalTuner
tuner = LocalTuner(Path(sys.argv[1]))
tuner.upload(Path(sys.argv[2]), Path(sys.argv[3]))
tuner.create(epochs=3, seed=7)
for step in tuner.follow(progress=False):
    print(step.step, flush=True)
    time.sleep(float(sys.argv[4]))
"""


def test_killed_and_resumed_weights_are_identical(files, tmp_path):
    """kill -9 between two checkpoints, then the same command."""
    command = [sys.executable, "-c", SCRIPT, str(tmp_path / "killed"), *map(str, files)]
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    process = subprocess.Popen(
        [*command, "0.01"], env=environment, stdout=subprocess.PIPE, text=True
    )
    deadline = time.monotonic() + 60
    for line in process.stdout:
        if int(line) >= 34 or time.monotonic() > deadline:
            break
    process.send_signal(signal.SIGKILL)
    assert process.wait() == -signal.SIGKILL
    process.stdout.close()
    checkpoint = tmp_path / "killed" / "checkpoint.safetensors"
    assert checkpoint.exists()
    assert not (tmp_path / "killed" / "model").exists()
    subprocess.run([*command, "0"], env=environment, check=True, capture_output=True)

    whole, steps = tuned_here(tmp_path / "whole", files, epochs=3, seed=7)
    killed = LocalTuner(tmp_path / "killed")
    assert list(killed.follow(progress=False)) == steps
    first, second = (Path(t.result()) / "weights.safetensors" for t in (whole, killed))
    assert first.read_bytes() == second.read_bytes()
