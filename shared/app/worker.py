"""The one worker of a process: models opened once and asked in turn, however many tabs are open."""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from shared.app.knowledge import Knowledge
from shared.compression.recorded import shipped
from shared.data import Product
from shared.evaluation.protocol import Estimates
from shared.releases import Release, shipped_release
from shared.settings import Settings

CAP = 0.05
"""Dollars that a process spends on hosted models at most; opening the page again starts anew."""


@dataclass
class Model:
    """A model of the comparison: what it is called, what opening it takes, and how it is opened.

    ``hosted``: asking it costs money (or, with the label stand-in, would).
    """

    name: str
    takes: str
    opener: Callable[[], Any]
    hosted: bool = False
    label: str = ""
    error: str = ""
    _pricer: Any = None
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def pricer(self) -> Any:
        """Return the model, opened at the first call; raises what opening it raises."""
        with self._lock:
            self._pricer = self._pricer or self.opener()
            return self._pricer

    def price(self, products: Sequence[Product]) -> Estimates:
        """Price products, one caller at a time: two at once would take twice the memory."""
        pricer = self.pricer()
        with self._lock:
            return pricer.price(products)

    def close(self) -> None:
        """Let go of what the model holds: a connection, a stand-in server."""
        connection = getattr(self._pricer, "connection", None)
        if connection is not None:
            connection.close()
        self._pricer = None


class Worker:
    """What all tabs of one process share: a released model, known products, models to compare."""

    def __init__(
        self, release: Release, knowledge: Knowledge, settings: Settings,
        observations: Path | None = None,
    ) -> None:  # fmt: skip
        self.release, self.knowledge, self.settings = release, knowledge, settings
        self.observations = observations
        self.model = Model(f"{release.name} ({release.version})", "", release.open)
        self.model.pricer()
        self.models = {model.name: model for model in [self.model, *_others(settings)]}

    def price(self, products: Sequence[Product]) -> Estimates:
        """Price products with the released model: dollars, each with its interval."""
        return self.model.price(products)

    def close(self) -> None:
        """Close what was opened."""
        for model in self.models.values():
            model.close()


def released(registry: Path | None, version: str | None = None) -> Release:
    """Return a version of a registry, by default the promoted one; without a registry the shipped.

    Raises ReleaseError if there is no such version.
    """
    if registry is None:
        return shipped_release()
    from shared.releases import Registry

    found = Registry(registry)
    return found.release(version) if version else found.current()


def _others(settings: Settings) -> list[Model]:
    small = Model("smallest student", "ready at once", _smallest)
    tuned = Model("tuned tiny model", "loads PyTorch first: some seconds", _tuned)
    return [small, tuned, *_fitted(settings.home), *_hosted()]


def _smallest() -> Any:
    from shared.compression import StudentPricer

    return StudentPricer(shipped("smallest"))


def _tuned() -> Any:
    from shared.open_models.pricer import tuned_pricer

    return tuned_pricer()


def _fitted(home: Path) -> list[Model]:
    """Return pricers that ``python -m shared fit`` left in the folder of results, or below."""
    cards = [*home.glob("*/pricer.json"), *home.glob("*/*/pricer.json")]
    return [
        Model(f"{card.parent.name} (fitted)", "opens in a second", _loader(card.parent))
        for card in sorted(cards)
    ]


def _loader(folder: Path) -> Callable[[], Any]:
    def load() -> Any:
        from shared.pricers import load_pricer

        return load_pricer(folder)

    return load


def _hosted() -> list[Model]:
    """Return the cheapest model of each vendor whose key is set; without any key, a stand-in."""
    from shared.frontier.models import all_models
    from shared.frontier.secrets import get_secret

    cheapest: dict[str, Any] = {}
    priced = [card for card in all_models() if None not in (card.input, card.output)]
    for card in sorted(priced, key=lambda card: card.input + card.output):
        if card.key and get_secret(card.key):
            cheapest.setdefault(card.vendor, card)
    if not cheapest:
        takes = "plain code on this machine plays a hosted model; its prices say nothing about one"
        name = "gpt-6-luna"
        return [Model(f"{name} (stand-in)", takes, _asker(name), True, "stand-in")]
    return [
        Model(card.name, f"hosted by {card.vendor}: costs money", _asker(card.name), True)
        for card in cheapest.values()
    ]


def _asker(name: str) -> Callable[[], Any]:
    def ask() -> Any:
        from shared.frontier.connection import connect
        from shared.prompting import FrontierPricer, ZeroShot

        connection = connect(name, cap=CAP, concurrency=1, timeout=30, retries=1)
        return FrontierPricer(connection, ZeroShot(), progress=False)

    return ask
