"""Open models: a tiny base made here, and the training that turns any base into a pricer."""

from __future__ import annotations

import importlib
import logging
from typing import Any

# bitsandbytes warns where it finds no faster kernel, and with eight bits at each multiplication.
for _name in ("backends.cpu.ops", "autograd._functions"):
    logging.getLogger(f"bitsandbytes.{_name}").setLevel(logging.ERROR)

_FROM = {
    "TINY": "making",
    "TUNED": "open_pricer",
    "BaseModelError": "making",
    "Plan": "fine_tuning",
    "TrainingError": "failures",
    "base_pricer": "open_pricer",
    "fine_tune": "fine_tuning",
    "merge": "open_pricer",
    "open_base": "making",
    "open_model": "opening",
    "plan_for": "fine_tuning",
    "read_prices": "reading",
    "tuned_pricer": "open_pricer",
}
__all__ = list(_FROM)


def __getattr__(name: str) -> Any:
    """Import a part when it is asked for: torch alone takes seconds."""
    if name not in _FROM:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(f"{__name__}.{_FROM[name]}"), name)
