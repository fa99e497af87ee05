"""Reports: results as a leaderboard and a page, results and data as charts with alt text.

``collect`` builds the leaderboard from stored results; the charts show where the errors are.
"""

from shared.reports.charts import error_by_price, leaderboard_bars, running_mean, scatter
from shared.reports.data_charts import (
    category_bars,
    cluster_sizes,
    length_histogram,
    length_vs_price,
    price_histogram,
)
from shared.reports.figures import Chart
from shared.reports.leaderboard import Leaderboard, collect, to_console, to_html, to_markdown
from shared.reports.live import live_loss
from shared.reports.model_charts import (
    coverage_chart,
    learning_curves,
    line_chart,
    loss_curve,
    power_law,
)
from shared.reports.plane import cost_plane, pareto

__all__ = [
    "Chart",
    "Leaderboard",
    "category_bars",
    "cluster_sizes",
    "collect",
    "cost_plane",
    "coverage_chart",
    "error_by_price",
    "leaderboard_bars",
    "learning_curves",
    "length_histogram",
    "length_vs_price",
    "line_chart",
    "live_loss",
    "loss_curve",
    "pareto",
    "power_law",
    "price_histogram",
    "running_mean",
    "scatter",
    "to_console",
    "to_html",
    "to_markdown",
]
