"""The data card: what a data set holds, where it comes from, and what it cannot tell.

After "Datasheets for Datasets" (Gebru et al., 2021), as far as it can be computed.
"""

from __future__ import annotations

import numpy as np

from shared.data.curation import MAX_CHARS, MAX_PRICE, MIN_CHARS, MIN_PRICE, Report
from shared.data.duplicates import THRESHOLD
from shared.data.items import price_mix
from shared.data.schema import SPLITS
from shared.pipeline.merge import Written

PERCENTILES = (0, 5, 25, 50, 75, 95, 100)

ORIGINS = {
    "embedded": {
        "source": "Embedded product catalogue of this course (shared/embedded).",
        "licence": "MIT; made by code, with invented brands and products.",
        "limits": "Stand-in data: a model that does well here has learnt a generator, not a shop.",
    },
    "amazon": {
        "source": "Amazon Reviews 2023, metadata (McAuley Lab, UC San Diego).",
        "licence": "For research; belongs to others. Cite Hou et al. (2024), arXiv:2403.03952.",
        "limits": "Prices of one shop in one country, as crawled up to September 2023.",
    },
    "file": {
        "source": "Local file or folder.",
        "licence": "Unknown: state it yourself before you share anything made from it.",
        "limits": "Nothing is known of how these records were collected.",
    },
}
LIMITS = (
    f"Only prices from ${MIN_PRICE:.2f} to ${MAX_PRICE:.2f} are kept, and texts of at least "
    f"{MIN_CHARS} characters; longer ones are cut at {MAX_CHARS:,}.",
    "Records without a price are dropped, and nothing says that they are like the others.",
    "Prices are asking prices of one moment; what was paid is not known.",
    "Language is told by script and small words; mixed and very short texts may be misjudged.",
    "Near-duplicates are found by MinHash: some pairs are missed, and some are joined in error.",
)


def make_card(source: str, report: Report, written: Written, firsts: np.ndarray) -> dict:
    """Return the card of items that were written, as JSON-able values.

    ``firsts`` is the cluster of each item, as ``merge.cluster_items`` returns it. The same items
    give the same card: there is no date in it, and no path.
    """
    kind = "amazon" if source.startswith("amazon:") else source
    origin = ORIGINS.get(kind, ORIGINS["file"])
    return {
        "source": origin["source"],
        "licence": origin["licence"],
        "fingerprint": written.fingerprint,
        "records": report.rows_in,
        "items": report.kept,
        "dropped": report.to_dict()["dropped"],
        "repaired": report.to_dict()["notes"],
        "price_dollars": _quantiles(written.prices, 2),
        "price_bands": {band: round(s, 4) for band, s in price_mix(written.prices).items()},
        "text_characters": _quantiles(written.lengths, 0),
        "categories": dict(sorted(written.categories.items(), key=lambda c: (-c[1], c[0]))),
        "duplicates": _duplicates(report, firsts),
        "splits": {name: written.splits[name] for name in SPLITS},
        "limits": [origin["limits"], *LIMITS],
    }


def _quantiles(values: np.ndarray, digits: int) -> dict[str, float]:
    found = {f"p{q}": np.percentile(values, q) for q in PERCENTILES} | {"mean": values.mean()}
    return {name: round(float(value), digits) for name, value in found.items()}


def _duplicates(report: Report, firsts: np.ndarray) -> dict:
    sizes = np.bincount(firsts)
    near = int(sizes[sizes > 1].sum())
    return {
        "exact_dropped": report.dropped["duplicate"],
        "near_threshold_jaccard": THRESHOLD,
        "clusters": int((sizes > 0).sum()),
        "clusters_of_two_or_more": int((sizes > 1).sum()),
        "items_in_them": near,
        "share_of_items": round(near / max(len(firsts), 1), 4),
        "largest_cluster": int(sizes.max(initial=0)),
    }


def to_markdown(card: dict) -> str:
    """Write a card for people to read."""
    lines = ["# Data card", "", card["source"], "", f"Licence: {card['licence']}", ""]
    lines += [f"{card['records']:,} records gave {card['items']:,} items "
              f"(fingerprint `{card['fingerprint']}`).", ""]  # fmt: skip
    for title, name, unit in (
        ("Dropped records, by reason", "dropped", "records"),
        ("Repaired on the way", "repaired", "records"),
        ("Prices", "price_dollars", "dollars"),
        ("Price bands", "price_bands", "share of items"),
        ("Length of texts", "text_characters", "characters"),
        ("Categories", "categories", "items"),
        ("Duplicates", "duplicates", "value"),
        ("Splits", "splits", "items"),
    ):
        lines += [f"## {title}", "", f"| | {unit} |", "|---|---:|"]
        lines += [f"| {_words(key)} | {value:,} |" for key, value in card[name].items()] + [""]
    lines += ["## Known limits", "", *(f"- {limit}" for limit in card["limits"])]
    return "\n".join(lines) + "\n"


def _words(key: str) -> str:
    return key.replace("_", " ").replace("|", "\\|")
