"""Watching: is what a served pricer is asked, and what it answers, still what it was built for?

A service leaves observations without product text. They are compared with a reference, made from
products that the pricer did not learn from; when true prices arrive, late, so are its errors.
Every threshold comes from a stated rate of false alarms.
"""

from __future__ import annotations

from shared.lazy import lazy

_FROM = {
    "Alerts": "watching.alerts",
    "Observation": "watching.observations",
    "ObservationLog": "watching.observations",
    "Reference": "watching.reference",
    "Setting": "watching.simulations",
    "Signal": "watching.watch",
    "Truths": "watching.observations",
    "Vocabulary": "watching.reference",
    "Watch": "watching.watch",
    "CanaryJob": "watching.scheduled",
    "cusum_chart": "watching.charts",
    "drift_chart": "watching.charts",
    "item_key": "watching.observations",
    "observe": "watching.observations",
    "psi_thresholds": "watching.drift",
    "simulate": "watching.simulations",
    "to_html": "watching.page",
    "to_markdown": "watching.noticed",
}
__all__ = list(_FROM)

# Import a part when it is asked for: a service writes observations, and draws no charts.
__getattr__ = lazy(__name__, _FROM)
