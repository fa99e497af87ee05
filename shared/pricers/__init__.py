"""Every way to price a product, behind one protocol (``shared.evaluation.protocol.Pricer``)."""

from shared.pricers.baselines import (
    BagOfWords,
    ConstantMean,
    ConstantMedian,
    FittedPricer,
    Keywords,
    LinearFeatures,
    RandomPricer,
)
from shared.pricers.records import price_records
from shared.pricers.registry import PRICERS, make_pricer

__all__ = [
    "PRICERS",
    "BagOfWords",
    "ConstantMean",
    "ConstantMedian",
    "FittedPricer",
    "Keywords",
    "LinearFeatures",
    "RandomPricer",
    "make_pricer",
    "price_records",
]
