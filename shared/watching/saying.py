"""What a signal says: a sentence with numbers, and what to do if it is an alarm."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from typing import TYPE_CHECKING

import numpy as np

from shared.watching.drift import category_counts

if TYPE_CHECKING:
    from shared.watching.cusum import Cusum
    from shared.watching.reference import Reference

_TODO = {
    "length": "See where these texts come from, and whether they are cut.",
    "unknown": "Read some of them: another language, another shop, broken characters?",
    "category": "Score the pricer on some of these before you trust it with them.",
    "price": "If what is asked is as it was, something else answers: check the model's version.",
    "failed": "Read the errors in the log.",
}


def drift(
    name: str, reference: Reference, values: Mapping[str, np.ndarray], alarm: bool, value: float
) -> str:
    """Say what a test of a window found."""
    what = name.split()[0]
    if not np.isfinite(value):
        return "Nothing to test: no values here, or none in the reference."
    said = _FOUND[what](reference, values)
    return f"{said} {_TODO[what]}" if alarm else f"{said} That is within chance."


def _length(reference: Reference, values: Mapping[str, np.ndarray]) -> str:
    now, usual = np.median(values["length"]), np.median(reference.length)
    return f"The median text has {now:,.0f} characters; usual are {usual:,.0f}."


def _unknown(reference: Reference, values: Mapping[str, np.ndarray]) -> str:
    now, usual = values["unknown"].mean(), reference.unknown.mean()
    return f"{now:.1%} of a text's words are unknown; usual are {usual:.1%}."


def _category(reference: Reference, values: Mapping[str, np.ndarray]) -> str:
    """Name the category that contributes most to the index."""
    names = np.unique(reference.category)
    counts = [category_counts(names, c) + 0.5 for c in (reference.category, values["category"])]
    usual, now = (count / count.sum() for count in counts)
    at = int(np.argmax((now - usual) * np.log(now / usual)))
    if at < len(names):
        name = names[at] or "No category"
        return f"{name}: {now[at]:.1%} of the products; usual are {usual[at]:.1%}."
    known = set(names.tolist())
    new = Counter(sorted(c for c in values["category"].tolist() if c not in known))
    most = new.most_common(1)[0][0] if new else ""
    return f"{new.total():,} products of categories never seen, most often {most!r}."


def _price(reference: Reference, values: Mapping[str, np.ndarray]) -> str:
    now, usual = np.nanmedian(values["price"]), np.nanmedian(reference.price)
    return f"The median estimate is {now:,.2f} dollars; usual are {usual:,.2f}."


def _failed(reference: Reference, values: Mapping[str, np.ndarray]) -> str:
    now, usual = np.isnan(values["price"]).mean(), np.isnan(reference.price).mean()
    return f"{now:.1%} of the products got no price; usual are {usual:.1%}."


_FOUND = {
    "length": _length, "unknown": _unknown, "category": _category, "price": _price,
    "failed": _failed,
}  # fmt: skip


def errors(cusum: Cusum, path: np.ndarray, values: np.ndarray, alarm: bool) -> str:
    """Say what a chart of the errors found, and since when: when its sum last was 0."""
    if not len(values):
        return "No true price of a product that was priced has arrived yet."
    if not alarm:
        return f"{len(values):,} true prices: the errors are as they were."
    which = int(np.argmax(path[:, -1]))
    zeros = np.flatnonzero(path[which] == 0)
    start = int(zeros[-1]) + 1 if len(zeros) else 0
    change = float(np.mean(values[start:]) - cusum.mean)
    since = f"since about true price {start + 1:,} of {len(values):,}"
    if cusum.name == "error level":
        share = np.expm1(change)
        way = "higher" if change > 0 else "lower"
        return (
            f"Estimates are {abs(share):.0%} {way} than usual against true prices, {since}: the "
            "market has moved, or the model has. Retrain on new prices, or roll back."
        )
    share = abs(change / cusum.mean) if cusum.mean else float("nan")
    if change > 0:
        return (
            f"Errors are {share:.0%} larger than usual, {since}: see on which products, then "
            "roll back or retrain."
        )
    return (
        f"Errors are {share:.0%} smaller than usual, {since}: were these products among those "
        "that the pricer learnt from?"
    )
