"""A loss curve that grows while somebody watches."""

from __future__ import annotations

import time
from collections.abc import Iterable
from typing import Any

from shared.reports.model_charts import loss_curve


def live_loss(steps: Iterable[Any], every: float = 1.0, unit: str = "loss") -> list:
    """Draw the loss curve of steps as they come, once in ``every`` seconds; return the steps.

    ``unit`` is that of the losses, as in ``loss_curve``. In a notebook the chart is redrawn in
    place; elsewhere nothing is shown.
    """
    from IPython import get_ipython
    from IPython.display import display

    seen, shown, drawn = [], None, -every
    for step in steps:
        seen.append(step)
        if get_ipython() is None or time.monotonic() - drawn < every:
            continue
        shown, drawn = _draw(seen, shown, display, unit), time.monotonic()
    if shown is not None:
        _draw(seen, shown, display, unit)
    return seen


def _draw(seen: list, shown: Any, display: Any, unit: str) -> Any:
    chart = loss_curve(seen, unit)
    if shown is None:
        return display(chart, display_id=True)
    shown.update(chart)
    return shown
