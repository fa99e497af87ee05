"""The story of GPT-4 and the prime numbers, with its flaw: a test of one class measures a habit.

In 2023 a paper reported that GPT-4 had all but forgotten how to tell prime numbers. Its test held
primes alone. A model that always says "prime" scores 100 % on such a test, one that never does
0 %, and neither can tell primes at all. What had changed was which of both it tended to say.
"""

from __future__ import annotations

import tomllib
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np

FILE = Path(__file__).with_name("gpt4_story.toml")


@cache
def reported() -> dict[str, Any]:
    """Return the figures that were reported, in percent, each with its source."""
    return tomllib.loads(FILE.read_text(encoding="utf-8"))


@dataclass(frozen=True)
class Answerer:
    """A model of a model: how often it says "prime" of a prime, and of a composite number."""

    name: str
    of_primes: float
    of_composites: float

    @property
    def skill(self) -> float:
        """How much better than a habit: 0 if what it says does not depend on the number."""
        return self.of_primes - self.of_composites


HABITS = (
    Answerer("always says prime", 1.0, 1.0),
    Answerer("never says prime", 0.0, 0.0),
    Answerer("tosses a coin", 0.5, 0.5),
    Answerer("can tell, 9 times in 10", 0.9, 0.1),
)
"""Models that show what a test measures."""


def numbers(n: int = 500, primes: float = 1.0, seed: int = 42) -> np.ndarray:
    """Return n odd numbers below 20,000, a share ``primes`` of them prime, in a drawn order."""
    odd = np.arange(1_001, 20_000, 2)
    prime = is_prime(odd)
    wanted, rng = round(n * primes), np.random.default_rng(seed)
    chosen = [rng.choice(odd[prime], wanted), rng.choice(odd[~prime], n - wanted)]
    return rng.permutation(np.concatenate(chosen))


def is_prime(values: np.ndarray) -> np.ndarray:
    """Tell which of some numbers above 1 are prime, by trial division."""
    values = np.asarray(values)
    by = np.arange(2, int(np.sqrt(values.max(initial=4))) + 1)
    divided = (values[:, None] % by == 0) & (by < values[:, None])
    return ~divided.any(axis=1)


def accuracy(model: Answerer, asked: np.ndarray, seed: int = 42) -> float:
    """Return the share of right answers, 0 to 1, that a model gives about numbers."""
    prime = is_prime(asked)
    says = np.random.default_rng(seed).random(len(asked)) < np.where(
        prime, model.of_primes, model.of_composites
    )
    return float(np.mean(says == prime))


def implied(primes_only: float, half_primes: float) -> Answerer:
    """Return the model that scores so (0 to 1) on primes alone, and with as many composites.

    Supposed: it answers primes in both tests alike. The two tests that were reported were held
    weeks apart, and asked a little differently.
    """
    right = 2 * half_primes - primes_only
    if not 0 <= right <= 1:
        raise ValueError(f"no model scores {primes_only:.1%} on primes and {half_primes:.1%} mixed")
    return Answerer("implied by both scores", primes_only, 1 - right)


def scores(models: tuple[Answerer, ...] = HABITS, n: int = 2_000) -> list[Mapping[str, Any]]:
    """Return what models score on primes alone, and on as many composites: a row each."""
    tests = numbers(n), numbers(n, 0.5)
    return [
        {
            "model": m.name,
            "primes only": accuracy(m, tests[0]),
            "half primes": accuracy(m, tests[1]),
        }
        for m in models
    ]
