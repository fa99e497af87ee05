"""Every way to price a product, behind one protocol (``shared.evaluation.protocol.Pricer``)."""

from shared.pricers.baselines import FittedPricer
from shared.pricers.records import price_records
from shared.pricers.registry import PRICERS, make_pricer

__all__ = ["PRICERS", "FittedPricer", "make_pricer", "price_records"]
