"""Every way to price a product, behind one protocol (``shared.evaluation.protocol.Pricer``)."""

from shared.pricers.conformal import WithIntervals, conformal_quantile
from shared.pricers.fitted import FittedPricer
from shared.pricers.ladder import climb, learning_curve
from shared.pricers.records import price_records
from shared.pricers.registry import PRICERS, make_pricer
from shared.pricers.saving import load_pricer, save_pricer

__all__ = [
    "PRICERS",
    "FittedPricer",
    "WithIntervals",
    "climb",
    "conformal_quantile",
    "learning_curve",
    "load_pricer",
    "make_pricer",
    "price_records",
    "save_pricer",
]
