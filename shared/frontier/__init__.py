"""Language models behind an API: one way to ask them all, with money under control.

``connect`` reaches a model, or a stand-in for it; ``shared.prompting`` makes a pricer of one.
"""

from shared.frontier.batches import buy_batch
from shared.frontier.connection import Connection, connect
from shared.frontier.messages import Reply, Request, Turn

__all__ = ["Connection", "Reply", "Request", "Turn", "buy_batch", "connect"]
