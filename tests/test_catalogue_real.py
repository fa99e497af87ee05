"""The embedded catalogue next to real records: the figures that matter stay close.

Measured when this was written (catalogue / real, 20,000 records each): see the ratios in BOUNDS.
A generator has fewer words than the world: its vocabulary is the figure that stays furthest off.
"""

import gzip
import json
import random
from pathlib import Path

import pytest
from yardstick import compare

from shared.embedded.catalogue import generate

ROOT = Path(__file__).resolve().parent.parent
REAL = ROOT.parent / "shared" / "data" / "amazon_meta.jsonl.gz"

BOUNDS = {
    "priced": (0.9, 1.1),
    "price mean": (0.8, 1.25),
    "price p25": (0.75, 1.3),
    "price p50": (0.75, 1.3),
    "price p75": (0.75, 1.3),
    "price log deviation": (0.85, 1.15),
    "length mean": (0.8, 1.25),
    "length p25": (0.8, 1.25),
    "length p50": (0.8, 1.25),
    "length p75": (0.8, 1.25),
    "title p50": (0.8, 1.25),
    "detail keys p50": (0.75, 1.3),
    "words in 1000": (0.7, 1.3),
    "words in 5000": (0.75, 1.25),
    "alphabetic words in 1000": (0.6, 1.4),
    "alphabetic words in 5000": (0.65, 1.35),
}
"""Figure of ``compare`` -> smallest and largest ratio catalogue / real."""


@pytest.fixture(scope="module")
def ratios():
    if not REAL.is_file():
        pytest.skip(f"the real records ({REAL.name}) are not beside this repository")
    with gzip.open(REAL, "rt", encoding="utf-8") as lines:
        real = [json.loads(line) for line in lines]
    # The file is sorted by where its records came from; the first 1,000 would be one shop corner.
    random.Random(0).shuffle(real)
    return compare(list(generate(10_000)), real[:10_000])


@pytest.mark.parametrize("figure", BOUNDS)
def test_catalogue_is_close_to_real_records(ratios, figure):
    low, high = BOUNDS[figure]
    row = ratios[figure]
    assert low <= row["ratio"] <= high, f"{figure}: catalogue {row['a']:.1f}, real {row['b']:.1f}"
