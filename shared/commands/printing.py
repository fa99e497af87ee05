"""What the command line prints of the work that was done, for people or for programs."""

from __future__ import annotations

import json
import sys
from pathlib import Path


def print_json(value: object) -> None:
    """Print one value as one line of JSON."""
    print(json.dumps(value, ensure_ascii=False, allow_nan=False, default=str))


def print_manifest(manifest: dict, as_json: bool, headline: str) -> None:
    """Print what curation did: rows in, kept, and dropped by reason."""
    if as_json:
        return print_json(manifest)
    print(headline)
    for name in ("rows_in", "kept", "clusters"):
        print(f"  {name.replace('_', ' ')}: {manifest[name]:,}")
    for reason, count in manifest["dropped"].items():
        print(f"  dropped, {reason}: {count:,}")
    for split, count in manifest["splits"].items():
        print(f"  {split}: {count:,} items")
    print(f"  price: median ${manifest['price_median']:,.2f}, mean ${manifest['price_mean']:,.2f}")
    _print_malformed(manifest["origin"]["malformed"])


def print_priced(manifest: dict, as_json: bool, out: Path) -> None:
    """Print how many products were priced, and what a score on them would have to mind."""
    if as_json:
        return print_json(manifest)
    items = manifest["items"]
    label = f" ({manifest['label']})" if manifest["label"] else ""
    print(f"{out}: {items['n']:,} products priced by {manifest['pricer']}{label}")
    print(f"  failed: {manifest['failed']:,}")
    print(f"  with a known price, for scoring: {items['known_prices']:,}")
    print(f"  malformed lines, not priced: {manifest['malformed']:,}")
    _print_malformed(manifest["malformed_examples"])
    if seen := manifest["seen_in_training"]:
        print(
            f"Warning: {seen:,} of these products are in the training items; a score on them "
            "flatters.",
            file=sys.stderr,
        )


def _print_malformed(examples: list[str]) -> None:
    for example in examples[:3]:
        print(f"    {example}")
