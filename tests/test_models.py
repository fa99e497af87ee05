"""The cards of the language models: a price that is wrong by a factor of ten costs real money."""

from __future__ import annotations

import dataclasses
import re
from dataclasses import dataclass
from datetime import date, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from shared.frontier import models
from shared.frontier.models import (
    ModelCard,
    all_models,
    as_of,
    dollars,
    find_model,
    table,
    warnings,
)

CHECKED = date(2026, 11, 21)
NEVER = date(2030, 1, 1)
LOCAL = {
    "meta-llama/Llama-3.1-8B-Instruct", "llama3.2", "Qwen/Qwen3-4B-Instruct-2507", "price-service"
}  # fmt: skip
FINE_TUNE = "ft:gpt-4o-mini-2024-07-18:my-shop:pricer:Ab12Cd"


@dataclass
class Usage:
    input: int = 0
    cached: int = 0
    output: int = 0


@st.composite
def usages(draw: st.DrawFn) -> Usage:
    tokens = st.integers(0, 10**9)
    total = draw(tokens)
    return Usage(total, draw(st.integers(0, total)), draw(tokens))


def a_card(**changes: object) -> ModelCard:
    return dataclasses.replace(find_model("gpt-6-luna"), name="invented", **changes)


cards = pytest.mark.parametrize("card", all_models(), ids=lambda card: card.name)
any_priced = st.sampled_from([*all_models(), find_model(FINE_TUNE)])


# --- the file ---


@cards
def test_card_is_complete(card: ModelCard) -> None:
    assert card.protocol in {"responses", "messages", "chat"}
    assert all((card.name, card.vendor, card.licence, card.source))
    assert card.name == card.name.strip()
    assert re.fullmatch(r"(20\d\d-(0[1-9]|1[0-2]))?", card.knowledge_cutoff)
    assert card.speed >= 0
    assert isinstance(card.fine_tuning, bool)
    assert type(card.shutdown_date) in {date, type(None)}
    assert card.context is None or card.context >= (card.max_output or 1)
    assert (card.protocol == "chat") == bool(card.base_url)
    local = card.base_url.startswith("http://localhost")
    assert local == (card.name in LOCAL)
    assert local or (card.base_url + "https://").startswith("https://")
    assert bool(re.fullmatch(r"[A-Z_]+_API_KEY", card.key)) != local, "a key, or a local server"


@cards
def test_prices_make_sense(card: ModelCard) -> None:
    """A cached token is never dearer, an answer never cheaper, and a fine-tune never cheaper."""
    assert 0 <= card.cached_input <= card.input <= card.output < 1000
    assert card.batch_discount in {0, 0.5}
    if card.name in LOCAL:
        assert card.output == 0
        assert "your own hardware" in card.note
    if card.fine_tuned:
        cached, price, output = sorted(card.fine_tuned)
        assert card.fine_tuned == (price, cached, output)
        assert price > card.input
        assert cached > card.cached_input
        assert output > card.output


def test_names_are_unique_and_cards_cannot_change() -> None:
    names = [card.name for card in all_models()]
    assert len(set(names)) == len(names)
    with pytest.raises(dataclasses.FrozenInstanceError):
        all_models()[0].input = 0.0
    assert len(set(all_models())) == len(names)  # they are hashable


def test_the_file_is_dated() -> None:
    assert type(as_of()) is date
    assert as_of() >= CHECKED
    assert all(
        not c.knowledge_cutoff or c.knowledge_cutoff < f"{as_of():%Y-%m}" for c in all_models()
    )


@pytest.mark.parametrize(
    ("name", "price"),
    [
        ("gpt-6-luna", (0.10, 0.50)),
        ("gpt-6-sol", (2, 10)),
        ("claude-haiku-5-5", (0.10, 0.50)),
        ("claude-sonnet-5-5", (2, 10)),
        ("claude-opus-5-5", (4, 20)),
    ],
)
def test_prices_that_were_checked(name: str, price: tuple[float, float]) -> None:
    card = find_model(name)
    assert (card.input, card.output, card.batch_discount) == (*price, 0.5)


@pytest.mark.parametrize("name", ["gpt-4o", "gpt-4o-mini", "gpt-4.1", "gpt-4.1-mini", FINE_TUNE])
def test_end_of_life_that_was_checked(name: str) -> None:
    assert find_model(name).shutdown_date == date(2027, 1, 14)


# --- find ---


@cards
def test_every_name_finds_its_card(card: ModelCard) -> None:
    assert find_model(card.name) == card


@pytest.mark.parametrize(
    ("snapshot", "name"),
    [
        ("gpt-4o-mini-2024-07-18", "gpt-4o-mini"),
        ("gpt-4o-2024-08-06", "gpt-4o"),
        ("gpt-4.1-2025-04-14", "gpt-4.1"),
        ("claude-haiku-5-5-20261007", "claude-haiku-5-5"),
    ],
)
def test_snapshot_has_the_undated_card(snapshot: str, name: str) -> None:
    assert find_model(snapshot) == find_model(name)


def test_name_that_ends_in_a_month_is_no_snapshot() -> None:
    assert find_model("Qwen/Qwen3-4B-Instruct-2507").name == "Qwen/Qwen3-4B-Instruct-2507"
    with pytest.raises(ValueError, match="Qwen/Qwen3-4B-Instruct-2507"):
        find_model("Qwen/Qwen3-4B-Instruct")


@pytest.mark.parametrize("name", [FINE_TUNE, "ft:gpt-4o-mini:me::x", "ft:gpt-4o-mini"])
def test_fine_tune_has_the_card_of_its_base(name: str) -> None:
    """A fine-tune billed at the price of its base looks half as dear as it is."""
    card, base = find_model(name), find_model("gpt-4o-mini")
    assert card.name == name
    assert (card.input, card.cached_input, card.output) == (0.30, 0.15, 1.20)
    same = {"name": base.name, "input": base.input, "output": base.output}
    assert dataclasses.replace(card, **same, cached_input=base.cached_input) == base


def test_fine_tune_of_a_model_without_such_a_price() -> None:
    card = find_model("ft:gpt-6-luna:me::x")
    assert card.input is None
    with pytest.raises(ValueError, match="not known"):
        dollars(card, Usage(1, 0, 1))


@pytest.mark.parametrize(
    ("name", "close"),
    [
        ("gpt-6-lunar", "gpt-6-luna"),
        ("claude-haiku-5.5", "claude-haiku-5-5"),
        ("gpt-4o-mni-2024-07-18", "gpt-4o-mini"),
        ("gpt-oss-120b", "openai/gpt-oss-120b"),
        ("ft:gpt-4o-mimi:me::x", "gpt-4o-mini"),
        ("zzzzzzzzzzzz", "There are: gpt-6-luna"),
        ("", "There are: gpt-6-luna"),
        ("ft:", "There are: gpt-6-luna"),
    ],
)
def test_unknown_name_names_close_ones(name: str, close: str) -> None:
    with pytest.raises(ValueError, match=re.escape(close)) as caught:
        find_model(name)
    assert repr(name) in str(caught.value)


# --- dollars ---


def test_a_bill_by_hand() -> None:
    """250 products at 300 tokens of prompt, 200 of them cached, and 10 of answer."""
    usage = Usage(250 * 300, 250 * 200, 250 * 10)
    by_hand = (25_000 * 0.10 + 50_000 * 0.01 + 2_500 * 0.50) / 1_000_000
    assert dollars(find_model("gpt-6-luna"), usage) == pytest.approx(by_hand, rel=1e-12)
    assert dollars(find_model("gpt-6-luna"), usage) == pytest.approx(0.00425)
    assert dollars(find_model("claude-opus-5-5"), Usage(output=1_000_000)) == pytest.approx(20)


@given(any_priced, usages(), st.integers(0, 10**6), st.booleans())
def test_dollars_are_monotone(card: ModelCard, usage: Usage, more: int, batch: bool) -> None:
    cost = dollars(card, usage, batch)
    assert cost >= 0
    more_input = Usage(usage.input + more, usage.cached, usage.output)
    more_output = Usage(usage.input, usage.cached, usage.output + more)
    more_cached = Usage(usage.input, min(usage.input, usage.cached + more), usage.output)
    assert dollars(card, more_input, batch) >= cost
    assert dollars(card, more_output, batch) >= cost
    assert dollars(card, more_cached, batch) <= cost * (1 + 1e-12)  # sums are rounded


@given(any_priced, st.booleans())
def test_no_tokens_cost_nothing(card: ModelCard, batch: bool) -> None:
    assert dollars(card, Usage(), batch) == 0


@given(any_priced, usages())
def test_batch_halves_where_there_is_one(card: ModelCard, usage: Usage) -> None:
    share = 0.5 if card.batch_discount else 1
    assert dollars(card, usage, batch=True) == dollars(card, usage) * share


@pytest.mark.parametrize("wrong", [Usage(5, 6), Usage(-1), Usage(5, -1), Usage(output=-1)])
def test_impossible_counts_are_refused(wrong: Usage) -> None:
    """An API whose input leaves the cached tokens out would give a negative bill."""
    with pytest.raises(ValueError, match="Cached tokens are part"):
        dollars(find_model("gpt-6-luna"), wrong)


@pytest.mark.parametrize("missing", ["input", "output"])
def test_unknown_price_is_never_zero(missing: str) -> None:
    with pytest.raises(ValueError, match="price of invented is not known"):
        dollars(a_card(**{missing: None}), Usage())


def test_unknown_cached_price_matters_only_for_cached_tokens() -> None:
    card = a_card(cached_input=None)
    assert dollars(card, Usage(1_000_000)) == pytest.approx(0.10)
    with pytest.raises(ValueError, match="not known"):
        dollars(card, Usage(10, 1))


# --- warnings ---


@pytest.mark.parametrize(
    ("days", "said"),
    [
        (-91, None),
        (-90, "(days left: 90)"),
        (-1, "(days left: 1)"),
        (0, "(days left: 0)"),
        (1, "is gone since 2027-01-14"),
        (400, "is gone since 2027-01-14"),
    ],
)
def test_warnings_around_the_end_of_a_model(days: int, said: str | None) -> None:
    lines = warnings(date(2027, 1, 14) + timedelta(days), ["gpt-4.1"])
    lines = [line for line in lines if "gpt-4.1" in line]
    assert len(lines) == (said is not None)
    for line in lines:
        assert line.startswith(f"gpt-4.1 {said}" if "gone" in said else "gpt-4.1 is shut down on")
        assert said in line
        assert "2027-01-14" in line
        assert "move to another model. OpenAI names gpt-6-luna" in line


@pytest.mark.parametrize(("age", "old"), [(0, False), (90, False), (91, True), (1000, True)])
def test_warning_of_an_old_file(age: int, old: bool) -> None:
    found = warnings(as_of() + timedelta(age), ["claude-haiku-5-5"])
    assert len(found) == old
    assert not old or f"models.toml is {age} days old ({as_of()})" in found[0]


def test_warnings_are_of_the_models_asked_for() -> None:
    assert warnings(CHECKED, ["gpt-6-luna", "llama3.2"]) == []
    assert warnings(CHECKED, []) == []
    (line,) = warnings(CHECKED, [FINE_TUNE])
    assert line.startswith(f"{FINE_TUNE} is shut down on 2027-01-14 (days left: 54): move")
    going = [line.split()[0] for line in warnings(CHECKED)]
    assert {"gpt-4o", "gpt-4o-mini", "gpt-4.1", "gpt-4.1-mini"} <= set(going)
    with pytest.raises(ValueError, match="gpt-6-luna"):
        warnings(CHECKED, ["gpt-6-lunar"])


# --- table ---


@pytest.mark.parametrize("today", [None, CHECKED, NEVER])
def test_table_is_aligned_and_fits(today: date | None) -> None:
    head, rule, *lines, legend = table(today=today).splitlines()
    assert max(map(len, (head, rule, legend, *lines))) <= models.WIDTH
    assert len(lines) == len(all_models())
    assert set(rule) == {"-"}
    assert str(as_of()) in legend
    start = head.index("licence")
    for card, line in zip(all_models(), lines, strict=True):
        assert line.startswith(card.name)
        assert line[start:].startswith(card.licence)
        assert line[start - 2 : start] == "  "


def test_table_says_what_is_known() -> None:
    _, _, luna, mini, flash, _ = table(["gpt-6-luna", "gpt-4o-mini", "deepseek-flash"]).splitlines()
    assert luna.split() == ["gpt-6-luna", "0.1/0.5", "1.05M", "closed", "131", "2026-05", "-"]
    assert mini.split()[-4:] == ["closed", "?", "2023-10", "2027-01-14"]
    assert flash.split()[-3:] == ["?", "?", "-"]


@pytest.mark.parametrize(
    ("today", "end"),
    [
        (date(2026, 10, 15), "2027-01-14"),
        (date(2026, 10, 16), "2027-01-14 !"),
        (date(2027, 1, 14), "2027-01-14 !"),
        (date(2027, 1, 15), "gone"),
    ],
)
def test_table_marks_what_is_going(today: date, end: str) -> None:
    assert table(["gpt-4o"], today).splitlines()[2].endswith(f"  {end}")


def test_long_names_are_cut_and_unknown_prices_are_asked_for() -> None:
    row = table([f"ft:gpt-6-luna:{'long' * 40}::x"]).splitlines()[2]
    assert len(row) <= models.WIDTH
    assert "…" in row
    assert "  ?  " in row


def test_unknown_context_is_a_question_mark(monkeypatch: pytest.MonkeyPatch) -> None:
    card = a_card(context=None)
    monkeypatch.setattr(models, "all_models", lambda: [card])
    row = table().splitlines()[2].split()
    assert row == ["invented", "0.1/0.5", "?", "closed", "131", "2026-05", "-"]
