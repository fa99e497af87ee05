"""Evaluation: what everything later stands on. Prices are hidden, errors come with intervals.

``evaluate`` lets a pricer price items and scores it; ``compare`` tells whether two of them differ;
``collect`` builds the leaderboard from stored results; the charts show where the errors are.
"""

from shared.evaluation.charts import error_by_price, leaderboard_bars, running_mean, scatter
from shared.evaluation.compare import Comparison, compare, compare_many, holm
from shared.evaluation.data_charts import (
    category_bars,
    length_histogram,
    length_vs_price,
    price_histogram,
)
from shared.evaluation.evaluate import Evaluation, evaluate, predict
from shared.evaluation.figures import Chart
from shared.evaluation.leaderboard import Leaderboard, collect, to_console, to_html, to_markdown
from shared.evaluation.metrics import BANDS, by_category, by_price_band, score
from shared.evaluation.predictions import read_predictions
from shared.evaluation.protocol import Estimates, Pricer, Product

__all__ = [
    "BANDS",
    "Chart",
    "Comparison",
    "Estimates",
    "Evaluation",
    "Leaderboard",
    "Pricer",
    "Product",
    "by_category",
    "by_price_band",
    "category_bars",
    "collect",
    "compare",
    "compare_many",
    "error_by_price",
    "evaluate",
    "holm",
    "leaderboard_bars",
    "length_histogram",
    "length_vs_price",
    "predict",
    "price_histogram",
    "read_predictions",
    "running_mean",
    "scatter",
    "score",
    "to_console",
    "to_html",
    "to_markdown",
]
