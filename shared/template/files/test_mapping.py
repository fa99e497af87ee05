"""Is project.toml right about your table? Run with: python -m pytest tests"""

import re
from pathlib import Path

from shared.template import open_project
from shared.template.door import amount, enter

PROJECT = open_project(Path(__file__).parent.parent)


def test_nearly_all_rows_can_be_used() -> None:
    """A wrong column, delimiter or range shows here first."""
    entry = enter(PROJECT)
    assert sum(entry.dropped.values()) < 0.1 * entry.rows, (entry.dropped, entry.examples)


def test_the_answer_is_not_in_the_question() -> None:
    """A text that names its own number makes every model look good, until it is used.

    Some do by chance (20 volts for 20 dollars): about as many as name the number of the next row.
    """
    told = [record for record in enter(PROJECT).records if record["price"]][:500]
    answers = [round(float(record["price"]) * PROJECT.number.scale, 2) for record in told]
    texts = [numbers_in(" ".join([r["title"], *r["description"], r["details"]])) for r in told]
    own, next_row = (
        sum(answer in text for answer, text in zip(numbers, texts, strict=True))
        for numbers in (answers, answers[1:] + answers[:1])
    )
    assert own - next_row < 0.02 * len(told), f"{own} of {len(told)} texts name their own number"


def numbers_in(text: str) -> set[float | None]:
    """Return all numbers that a text names, with a decimal point or a comma."""
    found = re.findall(r"\d(?:[\d.,]*\d)?", text)
    read = [amount(digits, decimal) for digits in found for decimal in ".,"]
    return {round(number, 2) for number in read if number is not None}
