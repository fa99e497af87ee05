"""Tables as text: aligned for a console, or Markdown in which a name stays a name."""

from __future__ import annotations

import re
from collections.abc import Collection, Sequence


def aligned(
    titles: Sequence[str], cells: Sequence[Sequence[str]], words: Collection[str] = ()
) -> str:
    """Return a table for a console; columns whose titles are in ``words`` are set to the left."""
    table = [titles, *([" ".join(text.split()) for text in row] for row in cells)]
    widths = [max(map(len, column)) for column in zip(*table, strict=True)]
    lines = [
        "  ".join(
            text.ljust(width) if title in words else text.rjust(width)
            for text, width, title in zip(row, widths, titles, strict=True)
        ).rstrip()
        for row in table
    ]
    return "\n".join([lines[0], "  ".join("-" * width for width in widths), *lines[1:]])


def pipes(
    titles: Sequence[str], cells: Sequence[Sequence[str]], words: Collection[str] = ()
) -> str:
    """Return a table in Markdown; columns whose titles are in ``words`` are set to the left."""
    rule = [":--" if title in words else "--:" for title in titles]
    lines = [[escaped(t) for t in titles], rule, *([escaped(t) for t in row] for row in cells)]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def escaped(text: str) -> str:
    """Keep a text from being read as Markdown, HTML or mathematics."""
    return re.sub(r"([\\`*_|<>$\[\]#])", r"\\\1", " ".join(text.split()))
