"""What the tests of the deal finder share: a pricer that knows its products, and small feeds."""

import numpy as np

from shared.agents.finder import find_deals
from shared.agents.fixtures import document, item
from shared.agents.messenger import LogMessenger
from shared.evaluation import Estimates
from shared.feeds.fetching import Fetcher

WORTH = {"lamp": 100.0, "desk": 300.0, "kettle": 40.0, "drum": 200.0, "mixer": 80.0}
"""Word of a title -> dollars; the interval is a factor of two. Everything else is worth 50."""


class Knowing:
    """A pricer that knows what some words are worth; it counts what it is asked."""

    name, label = "knowing", ""

    def __init__(self, cost=None):
        self.asked, self.cost = [], cost

    def price(self, products):
        self.asked += [product.id for product in products]
        found = np.array([worth(product.title) for product in products], dtype=float)
        cost = None if self.cost is None else np.full(len(products), self.cost)
        return Estimates(found, low=found / 2, high=found * 2, cost_usd=cost)


def worth(title):
    return next((dollars for word, dollars in WORTH.items() if word in title.lower()), 50.0)


def offer(name, title, asked, **more):
    link = more.pop("link", f"https://shop.example/{name}")
    prices = {"g:sale_price": f"{asked} USD"} if asked is not None else {}
    return item(name, title, more.pop("body", ""), link, **prices)


GOOD = [offer("lamp", "A brass lamp", 30), offer("desk", "A standing desk", 90)]
FAIR = [offer("kettle", "A kettle", 38), offer("drum", "A snare drum", 170)]
BAD = [offer("mixer", "A mixer", 160), offer("unpriced", "A lamp without price", None)]


def feeds_of(*items):
    return {"/feed.xml": document(items)}


def run(server, folder, pricer=None, **options):
    """One run on all feeds of a server, its files in a folder."""
    options.setdefault("fetcher", Fetcher(allow=(server.url,), seconds=20))
    return find_deals(
        options.pop("feeds", server.feeds), pricer or Knowing(),
        options.pop("messenger", LogMessenger(folder / "alerts.jsonl")),
        folder / "memory.sqlite", **options,
    )  # fmt: skip


def states(outcome):
    """Link's last part -> state, estimate in dollars and reason."""
    return {
        deal.link.rpartition("/")[2]: (deal.state, deal.price, deal.reason)
        for deal in outcome.deals
    }
