"""Operating the service of ``shared.serving``: what it serves, its processes, and who asks it.

``Server`` runs it in a process of its own, in lessons and tests; ``PriceClient`` asks it, and again
where that may help; ``run_load`` finds out what it can take; ``deploy`` is for larger machines.
"""

from __future__ import annotations

from shared.lazy import lazy

_FROM = {
    "Load": "operating.load",
    "PriceClient": "operating.client",
    "ServedPricer": "operating.client",
    "Server": "operating.started",
    "batching_table": "operating.charts",
    "capacity": "operating.load",
    "in_thread": "operating.started",
    "open_served": "operating.opening",
    "latency_chart": "operating.charts",
    "recorded": "operating.charts",
    "run_load": "operating.load",
}
__all__ = list(_FROM)

# A client needs neither FastAPI nor matplotlib.
__getattr__ = lazy(__name__, _FROM)
