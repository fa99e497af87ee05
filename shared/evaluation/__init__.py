"""Evaluation: what everything later stands on. Prices are hidden, errors come with intervals.

``evaluate`` lets a pricer price items and scores it; ``compare`` tells whether two of them differ.
"""

from shared.evaluation.compare import Comparison, compare, compare_many, holm
from shared.evaluation.evaluate import Evaluation, evaluate, predict
from shared.evaluation.metrics import BANDS, by_category, by_price_band, score, weighted_error
from shared.evaluation.predictions import read_predictions
from shared.evaluation.protocol import Estimates, Pricer, Product

__all__ = [
    "BANDS",
    "Comparison",
    "Estimates",
    "Evaluation",
    "Pricer",
    "Product",
    "by_category",
    "by_price_band",
    "compare",
    "compare_many",
    "evaluate",
    "holm",
    "predict",
    "read_predictions",
    "score",
    "weighted_error",
]
