"""What else a language model is good for here: it rewrites texts, judges them, and is watched.

Rewriting and judging ask for a few named texts, and what they need for that is here.
"""

from __future__ import annotations

import json

from shared import prompts
from shared.frontier.clients import CallError
from shared.frontier.connection import Connection
from shared.frontier.messages import Request, Turn
from shared.frontier.money import BudgetError
from shared.prompting.answers import Dialogue

DATA_ONLY = prompts.SYSTEM[prompts.SYSTEM.index("The text between <product>") :]
"""The sentence of all prompts here that says what a product's text is: data."""


class NoAnswer(ValueError):
    """A model's answer that has not the fields it was asked for; the message says what is wrong."""


FAILURES = (prompts.NotAPrice, NoAnswer, CallError, BudgetError)
"""What keeps one product from an answer, and none of the others; ``NotAPrice`` is raised by
``Dialogue`` for what was refused or cut off."""


def ask_fields(connection: Connection, request: Request) -> dict[str, str]:
    """Return the strings that ``request.schema`` asks for; an answer without them is repaired once.

    Raises one of ``FAILURES`` if there is no such answer.
    """
    dialogue = Dialogue(connection.ask)
    reply = dialogue.ask(request)
    try:
        return _fields(reply.text, request.schema["properties"])
    except NoAnswer as error:
        complaint = f"That cannot be used: {error}. Answer again, with the JSON object alone."
        said = Turn("assistant", reply.text or "(nothing)")
        again = dialogue.ask(request.then(said, Turn("user", complaint)))
        return _fields(again.text, request.schema["properties"])


def _fields(text: str, wanted: dict[str, dict]) -> dict[str, str]:
    try:
        value, _ = json.JSONDecoder().raw_decode(text[max(text.find("{"), 0) :])
    except (ValueError, RecursionError):
        raise NoAnswer("the answer holds no JSON object") from None
    for name, rule in wanted.items():
        if not isinstance(value, dict) or not isinstance(value.get(name), str):
            raise NoAnswer(f"the answer has no text {name!r}")
        if value[name] not in rule.get("enum", [value[name]]):
            raise NoAnswer(f"{name} is {value[name][:40]!r}, not one of {', '.join(rule['enum'])}")
    return {name: value[name] for name in wanted}
