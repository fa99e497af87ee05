"""Open models: a tiny base made here, and the training that turns any base into a pricer."""

from __future__ import annotations

from shared.lazy import lazy

_FROM = {
    "TINY": "pretraining.making",
    "TUNED": "open_models.adapters",
    "AdapterError": "open_models.adapters",
    "BaseModelError": "pretraining.making",
    "Plan": "training.fine_tuning",
    "TrainingError": "training.failures",
    "base_pricer": "open_models.pricer",
    "fine_tune": "training.fine_tuning",
    "merge": "open_models.adapters",
    "open_base": "pretraining.making",
    "open_model": "open_models.opening",
    "plan_for": "training.fine_tuning",
    "read_prices": "open_models.reading",
    "tuned_pricer": "open_models.pricer",
}
__all__ = list(_FROM)

# Import a part when it is asked for: torch alone takes seconds.
__getattr__ = lazy(__name__, _FROM)
