"""Reports: results as a leaderboard and a page, results and data as charts with alt text.

``collect`` builds the leaderboard from stored results; the charts show where the errors are.
"""

from __future__ import annotations

from shared.lazy import lazy

_FROM = {
    "Chart": "reports.figures",
    "Leaderboard": "reports.leaderboard",
    "category_bars": "reports.data_charts",
    "cluster_sizes": "reports.data_charts",
    "collect": "reports.leaderboard",
    "cost_plane": "reports.plane",
    "coverage_chart": "reports.model_charts",
    "error_by_price": "reports.charts",
    "leaderboard_bars": "reports.charts",
    "learning_curves": "reports.model_charts",
    "length_histogram": "reports.data_charts",
    "length_vs_price": "reports.data_charts",
    "line_chart": "reports.model_charts",
    "live_loss": "reports.live",
    "loss_curve": "reports.model_charts",
    "pareto": "reports.plane",
    "power_law": "reports.model_charts",
    "price_histogram": "reports.data_charts",
    "running_mean": "reports.charts",
    "scatter": "reports.charts",
    "to_console": "reports.leaderboard",
    "to_html": "reports.leaderboard",
    "to_markdown": "reports.leaderboard",
}
__all__ = list(_FROM)

# Import a part when it is asked for: a service that prints a table is to start without matplotlib.
__getattr__ = lazy(__name__, _FROM)
