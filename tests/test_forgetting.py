"""Forgetting: what is measured is right, the base can do it, and the study goes on when stopped."""

from __future__ import annotations

import json
import math
import re
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("bitsandbytes")

from transformers import LlamaConfig, LlamaForCausalLM  # noqa: E402

from shared.data.storage import file_hash  # noqa: E402
from shared.open_models.opening import open_model  # noqa: E402
from shared.pipeline import prepare  # noqa: E402
from shared.pretraining.corpus import price_then  # noqa: E402
from shared.pretraining.making import TINY  # noqa: E402
from shared.training import forgetting_study, studies  # noqa: E402
from shared.training.building import with_adapters  # noqa: E402
from shared.training.fine_tuning import Plan  # noqa: E402
from shared.training.forgetting import (  # noqa: E402
    Documents,
    documents_of,
    measure,
    other_documents,
)
from shared.training.forgetting_study import (  # noqa: E402
    CHOSEN_ON,
    SETTINGS,
    curve_chart,
    loss_and_dollars_chart,
    replay_texts,
    study,
    tradeoff_chart,
)

TASKS = {"perplexity", "old_dollars", "order", "noun", "unit"}


@pytest.fixture(scope="module")
def items(tmp_path_factory) -> pa.Table:
    folder = tmp_path_factory.mktemp("catalogue")
    return prepare("embedded", folder, seed=31, size=300, progress=False).table()


@pytest.fixture(scope="module")
def documents(items) -> Documents:
    return documents_of(items.slice(0, 130))


@pytest.fixture(scope="module")
def tiny():
    model, tokenizer, _ = open_model("tiny", 4)
    return model, tokenizer


def even_model(tokenizer) -> LlamaForCausalLM:
    """A model that takes all tokens to be equally likely: its perplexity is known."""
    config = LlamaConfig(
        vocab_size=len(tokenizer), hidden_size=16, intermediate_size=16, num_hidden_layers=1,
        num_attention_heads=2, num_key_value_heads=2, tie_word_embeddings=True,
    )  # fmt: skip
    model = LlamaForCausalLM(config)
    torch.nn.init.zeros_(model.get_input_embeddings().weight)
    return model.eval()


# The measure


def test_a_model_that_knows_nothing_guesses_among_all_tokens(tiny, documents) -> None:
    tokenizer = tiny[1]
    found = measure(even_model(tokenizer), tokenizer, Documents(documents.prose[:5]))
    assert found["perplexity"] == pytest.approx(len(tokenizer), rel=1e-5)
    assert found["perplexity_error"] == pytest.approx(0, abs=1e-2)
    assert set(found) == {"perplexity", "perplexity_error", "tokens"}


def test_perplexity_is_that_of_the_loss_that_transformers_computes(tiny) -> None:
    model, tokenizer = tiny
    text = "Made of stainless steel, with a lid for the whole family."
    ids = tokenizer(text, return_tensors="pt").input_ids
    with torch.no_grad():
        loss = float(model(input_ids=ids, labels=ids).loss)
    found = measure(model, tokenizer, Documents([text]))
    assert found["perplexity"] == pytest.approx(math.exp(loss), rel=1e-4)
    assert found["tokens"] == ids.shape[1] - 1


def test_padding_changes_nothing(tiny, documents) -> None:
    few = Documents(
        documents.prose[:12], documents.lists[:12], documents.dollars[:12],
        {task: pairs[:12] for task, pairs in documents.completions.items()},
    )  # fmt: skip
    one_by_one, together = (measure(*tiny, few, batch=size) for size in (1, 32))
    assert one_by_one == pytest.approx(together, rel=1e-4)


def test_the_error_is_about_what_the_bootstrap_says(tiny, documents) -> None:
    from shared.training.forgetting import _perplexity, _score

    scores = _score(*tiny, documents.prose, 32)
    draw = np.random.default_rng(0)
    again = [
        _perplexity([scores[row] for row in draw.integers(len(scores), size=len(scores))])
        for _ in range(300)
    ]
    spread = np.std([found["perplexity"] for found in again])
    assert _perplexity(scores)["perplexity_error"] == pytest.approx(spread, rel=0.2)


def test_texts_that_are_too_short_count_for_nothing_and_none_at_all_is_refused(tiny) -> None:
    some = measure(*tiny, Documents(["a lid", ""]))
    assert some["tokens"] == measure(*tiny, Documents(["a lid"]))["tokens"]
    for nothing in ([], [""]):
        with pytest.raises(ValueError, match="nothing to measure on"):
            measure(*tiny, Documents(nothing))


def test_measuring_leaves_the_mode_of_the_model(tiny) -> None:
    model, tokenizer = tiny
    model.train()
    measure(model, tokenizer, Documents(["a lid of steel"]))
    assert model.training
    model.eval()


def test_the_base_can_do_what_is_asked(tiny, documents) -> None:
    """Incident: a task that the base was no better at than chance could not be forgotten."""
    found = measure(*tiny, documents)
    assert set(found) == TASKS | {f"{task}_error" for task in TASKS} | {"tokens"}
    assert all(type(value) is float and np.isfinite(value) for value in found.values())
    wanted = np.array(documents.dollars)
    assert found["perplexity"] < 15
    assert found["old_dollars"] < 0.7 * np.abs(wanted - np.median(wanted)).mean()
    assert found["order"] > 0.8
    assert found["noun"] > 0.8
    assert found["unit"] > 0.8


def test_adapters_that_are_taken_off_leave_what_was_there(documents) -> None:
    model, tokenizer, _ = open_model("tiny", 4)
    prose = Documents(documents.prose[:10])
    before = measure(model, tokenizer, prose)
    tuned = with_adapters(model, Plan(rank=4))
    for name, parameter in tuned.named_parameters():
        if "lora_B" in name:
            parameter.data.normal_(std=0.3, generator=torch.Generator().manual_seed(1))
    assert measure(tuned, tokenizer, prose)["perplexity"] > 2 * before["perplexity"]
    with tuned.disable_adapter():
        assert measure(tuned, tokenizer, prose) == before


# The documents


def test_documents_say_what_the_corpus_says(items, documents) -> None:
    row = items.to_pylist()[0]
    year = int(documents.lists[0][:4])
    assert documents.lists[0] == f"{year}: {row['title']} - $"
    then = price_then(row["price"], row["category"], year)
    assert documents.dollars[0] == min(max(round(then), 1), 999)
    assert row["text"].startswith(f"{row['title']}\n{documents.prose[0]}"[:200])
    for task, pairs in documents.completions.items():
        assert len(pairs) > 20, task
        assert all(rest.startswith(" ") and text[-1] != " " for text, rest in pairs)


def test_order_is_judged_on_pairs_that_are_clearly_apart() -> None:
    from shared.training.forgetting import _order

    dollars = np.array([10.0, 12.0, 100.0, 900.0])
    assert _order(np.array([2.0, 1.0, 3.0, 4.0]), dollars)["order"] == 1  # 10 and 12 are alike
    assert _order(-dollars, dollars)["order"] == 0
    swapped = _order(np.array([1.0, 1.0, 9.0, 5.0]), dollars)
    assert swapped["order"] == pytest.approx(4 / 5)
    assert swapped["order_error"] > 0


def test_a_long_text_is_completed_at_its_end(tiny) -> None:
    """Incident: texts were cut to 512 tokens, and the place of the answer lay behind that."""
    model, tokenizer = tiny
    text = "a lid of steel, " * 200 + "a"
    ids = tokenizer(text, return_tensors="pt").input_ids
    with torch.no_grad():
        likeliest = tokenizer.decode(model(input_ids=ids).logits[0, -1].argmax())
    found = measure(model, tokenizer, Documents([text], completions={"lid": [(text, likeliest)]}))
    assert found["lid"] == 1
    assert found["tokens"] == 511


def test_documents_leave_out_what_is_known(tmp_path, monkeypatch) -> None:
    monkeypatch.setattr("shared.training.forgetting.RECORDS", 200)
    nothing = prepare("embedded", tmp_path / "known", seed=2, size=64, progress=False).table()
    whole = other_documents(tmp_path / "other", nothing)
    same = prepare("embedded", tmp_path / "other", seed=5_150, size=200, progress=False).table()
    rest = other_documents(tmp_path / "other", same.slice(0, 30))
    assert len(rest.prose) <= len(whole.prose) - 30


def test_replayed_texts_are_of_the_kind_the_base_has_read(items, tmp_path, monkeypatch) -> None:
    monkeypatch.setattr(forgetting_study, "REPLAY_RECORDS", 200)
    texts = replay_texts(0.5, 60, tmp_path, items)
    assert len(texts) == 30
    assert sum(bool(re.search(r" - \$\d+$", text)) for text in texts) > 8
    assert replay_texts(0.1, 60, tmp_path, items) == texts[:6]
    with pytest.raises(ValueError, match="there are 0 to"):
        replay_texts(30, 60, tmp_path, items)


# The study


@pytest.fixture
def small(monkeypatch) -> None:
    monkeypatch.setattr("shared.training.forgetting.RECORDS", 100)
    monkeypatch.setattr(forgetting_study, "REPLAY_RECORDS", 100)
    monkeypatch.setattr(forgetting_study, "SIZE", 32)
    monkeypatch.setattr(forgetting_study, "CHOSEN_ON", 20)
    short = {"text_tokens": 20, "evaluations": 1}
    settings = {"default": (short, 0.0), "replay": (short, 0.25)}
    monkeypatch.setattr(forgetting_study, "SETTINGS", settings)


def test_a_study_that_was_stopped_goes_on(items, small, tmp_path, monkeypatch) -> None:
    train, validation = items.slice(0, 40), items.slice(40, 40)
    whole = study(train, validation, items, tmp_path, [1], progress=False)
    assert [row["setting"] for row in whole] == ["base", "default", "replay"]
    assert [[c["step"] for c in row["checkpoints"]] for row in whole] == [[0], [2], [3]]
    assert all(set(c) > TASKS for row in whole for c in row["checkpoints"])
    journal = tmp_path / "rows.jsonl"
    lines = journal.read_text().splitlines()
    journal.write_text("\n".join(lines)[:-50])
    runs = []
    true_run = forgetting_study._run
    monkeypatch.setattr(
        forgetting_study, "_run", lambda *args: runs.append(args[0]) or true_run(*args)
    )
    again = study(train, validation, items, tmp_path, [1], progress=False)
    assert runs == ["replay"]
    for row in (*whole, *again):
        row.pop("seconds", None)
    assert again == whole
    study(train, validation, items, tmp_path, [1], progress=False)
    assert runs == ["replay"], "the line that was cut off swallowed the next one"


@pytest.fixture(scope="module")
def recorded() -> dict:
    return studies.recorded(forgetting_study.NAME)


def test_what_is_recorded_is_of_the_base_that_is_shipped(recorded) -> None:
    """When this fails, the base was made anew: run the study again, see ``study``."""
    assert recorded["base"] == file_hash(TINY / "model.safetensors")
    assert recorded["rows"][0]["setting"] == "base"
    seeds: dict[str, set[int]] = {}
    for row in recorded["rows"][1:]:
        seeds.setdefault(row["setting"], set()).add(row["seed"])
        change, share = SETTINGS[row["setting"]]
        assert change.items() <= row["plan"].items()
        assert row["replay"] == share
    assert set(seeds) == set(SETTINGS)
    assert len({frozenset(found) for found in seeds.values()}) == 1, seeds


def test_recorded_dollars_are_those_of_the_recorded_prices(recorded) -> None:
    prices = np.array(recorded["rows"][0]["prices"].split(), dtype=float)
    for row in recorded["rows"]:
        for found in row["checkpoints"]:
            misses = np.abs(np.array(found["medians"].split(), dtype=float) - prices)
            assert found["dollars"] == pytest.approx(misses[:CHOSEN_ON].mean(), abs=1e-3)
            assert found["dollars_elsewhere"] == pytest.approx(misses[CHOSEN_ON:].mean(), abs=1e-3)


def test_no_path_is_in_what_is_recorded() -> None:
    text = (Path(studies.RECORDED) / "forgetting.json").read_text()
    assert json.loads(text)
    assert not re.search(r"/(tmp|home|work)/", text)


# Charts


def rows() -> list[dict]:
    def at(step: int, loss: float, dollars: float, perplexity: float) -> dict:
        return {"step": step, "price_loss": loss, "dollars": dollars,
                "dollars_elsewhere": dollars + 1, "perplexity": perplexity}  # fmt: skip

    return [
        {"setting": "base", "seed": 0, "checkpoints": [at(0, 6.0, 80, 7.0)]},
        {"setting": "default", "seed": 1,
         "checkpoints": [at(5, 5.0, 50, 300.0), at(10, 5.2, 45, 900.0)]},
        {"setting": "replay 10 %", "seed": 1,
         "checkpoints": [at(5, 5.1, 52, 8.0), at(10, 4.9, 53, 9.0)]},
    ]  # fmt: skip


def test_charts_say_in_words_what_they_show() -> None:
    curve = curve_chart(rows(), ["default", "replay 10 %"], "perplexity", "perplexity", log=True)
    assert "7 before; after default 900, replay 10 % 9" in curve.alt
    assert "default: 7 at 0, 300 at 5, 900 at 10" in curve.alt
    trade = tradeoff_chart(rows())
    assert "default $46.00 and 900" in trade.alt
    assert "replay 10 % $53.00 and 8" in trade.alt
    both = loss_and_dollars_chart(rows()[1]["checkpoints"], "default")
    assert "lowest loss at step 5, dollars at 10" in both.alt
    for chart in (curve, trade, both):
        assert chart.png(dark=True).startswith(b"\x89PNG")
