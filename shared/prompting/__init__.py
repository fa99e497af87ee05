"""Ways to ask a language model for a price: each technique makes a pricer of a connection."""

from shared.prompting.pricer import FrontierPricer
from shared.prompting.techniques import Chain, MultiShot, SelfConsistency, ZeroShot
from shared.prompting.tools import ToolUse

__all__ = ["Chain", "FrontierPricer", "MultiShot", "SelfConsistency", "ToolUse", "ZeroShot"]
