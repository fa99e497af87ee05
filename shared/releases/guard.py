"""Does the new version fail too often? Watched after every call, and answered at once.

A sum of evidence (Page's CUSUM, 1954): each failure adds ln(bad / fine), each success adds
ln((1 - bad) / (1 - fine)), and it never falls below 0, so that a version that begins to fail after
a good week is found as fast as one that fails from the start. From any start it passes ln(1 / risk)
with a chance of at most ``risk`` while no more than a share ``fine`` fails (Ville's inequality).
"""

from __future__ import annotations

import math

FINE, BAD = 0.01, 0.10
"""Shares of attempts that fail: as many are nobody's fault, and so many are not to be borne."""
RISK = 1e-6
"""From each attempt on; so in 10,000 attempts at most 1 % that a version that is fine is stopped.
Six failures in a row stop it, and of a version that fails every tenth time some 100 attempts."""

_UP, _DOWN = math.log(BAD / FINE), math.log((1 - BAD) / (1 - FINE))


class Guard:
    """Counts attempts and failures; ``tripped`` once there are too many."""

    def __init__(self) -> None:
        self.of = self.failed = 0
        self.evidence = 0.0
        self.tripped = False

    def add(self, failed: int, of: int) -> None:
        """Add the attempts of a call."""
        self.of, self.failed = self.of + of, self.failed + failed
        self.evidence = max(self.evidence + failed * _UP + (of - failed) * _DOWN, 0.0)
        self.tripped = self.tripped or self.evidence >= math.log(1 / RISK)

    def __str__(self) -> str:
        return f"{self.failed:,} of {self.of:,} attempts failed"
