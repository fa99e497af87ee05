"""Language models behind an API: one way to ask them all, with money under control.

``connect`` reaches a model, or a stand-in for it; a technique says how to ask; ``FrontierPricer``
makes a pricer of both.
"""

from shared.frontier.batches import buy_batch
from shared.frontier.connection import Connection, connect
from shared.frontier.messages import Reply, Request, Turn
from shared.frontier.pricer import FrontierPricer
from shared.frontier.techniques import Chain, MultiShot, SelfConsistency, ZeroShot
from shared.frontier.tools import ToolUse

__all__ = [
    "Chain",
    "Connection",
    "FrontierPricer",
    "MultiShot",
    "Reply",
    "Request",
    "SelfConsistency",
    "ToolUse",
    "Turn",
    "ZeroShot",
    "buy_batch",
    "connect",
]
