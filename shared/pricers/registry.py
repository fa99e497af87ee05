"""The pricers by name: what the command line's ``--pricer`` and the leaderboard call them."""

from __future__ import annotations

from shared.pricers.baselines import (
    BagOfWords,
    ConstantMean,
    ConstantMedian,
    Keywords,
    LinearFeatures,
    RandomPricer,
)
from shared.pricers.boosting import Boosting
from shared.pricers.classical import LsaSvr, RandomForest, TfidfRidge
from shared.pricers.fitted import FittedPricer
from shared.pricers.neighbours import Neighbours
from shared.pricers.neural import NeuralNetwork
from shared.pricers.stack import Stack

PRICERS: dict[str, type[FittedPricer]] = {
    cls.name: cls
    for cls in (
        RandomPricer,
        ConstantMean,
        ConstantMedian,
        Keywords,
        LinearFeatures,
        BagOfWords,
        RandomForest,
        LsaSvr,
        Neighbours,
        TfidfRidge,
        NeuralNetwork,
        Boosting,
        Stack,
    )
}
"""Name -> class, from the floor up."""


def make_pricer(name: str, seed: int = 42) -> FittedPricer:
    """Return a new pricer by its name; raise ValueError listing the names if there is none."""
    if name not in PRICERS:
        raise ValueError(f"there is no pricer {name!r}; there are: {', '.join(PRICERS)}")
    return PRICERS[name](seed=seed)
