"""The deal finder: an agent that reads feeds, prices what is offered, and tells of good offers.

A language model may plan the work, through four tools that name deals and nothing else. What is a
deal, what it costs and who is told is decided by code, within limits on steps, seconds and dollars.
"""

from __future__ import annotations

from shared.lazy import lazy

_FROM = {
    "AgentScore": "agents.evaluation",
    "AppriseMessenger": "agents.messenger",
    "Deal": "feeds.scanner",
    "FeedServer": "agents.fixtures",
    "Fetcher": "feeds.fetching",
    "Limits": "agents.planner",
    "LogMessenger": "agents.messenger",
    "Memory": "agents.memory",
    "Message": "agents.messenger",
    "Outcome": "agents.finder",
    "Rule": "agents.rules",
    "evaluate_finder": "agents.evaluation",
    "find_deals": "agents.finder",
    "make_feeds": "agents.fixtures",
    "read_feed": "feeds.scanner",
    "read_trace": "agents.trace",
    "replay": "agents.replaying",
    "scan": "feeds.scanner",
    "to_html": "agents.viewing",
    "to_text": "agents.viewing",
}
__all__ = list(_FROM)

# Import a part when it is asked for: a page that shows a trace needs no SDK.
__getattr__ = lazy(__name__, _FROM)
