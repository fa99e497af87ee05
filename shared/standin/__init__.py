"""A local server that speaks the protocols of OpenAI and Anthropic, for learners without a key.

The unmodified SDKs talk to it. Its "model" is plain code with rough general knowledge of prices;
whatever it answers is labelled ``stand-in`` by the course.
"""

from shared.standin.faults import Fault
from shared.standin.probe import is_local, is_stand_in
from shared.standin.server import StandIn, serve

__all__ = ["Fault", "StandIn", "is_local", "is_stand_in", "serve"]
