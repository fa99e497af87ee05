"""A map of products by how alike their texts are: 128 directions, say, made flat.

It is a picture with alt text, and in a notebook a point that is pointed at says what it is. No
script is run and nothing fetched; what sellers wrote is escaped.
"""

from __future__ import annotations

import base64
from collections import Counter
from collections.abc import Callable, Sequence
from html import escape
from pathlib import Path
from string import Template
from textwrap import shorten
from typing import Any
from urllib.parse import quote

import numpy as np
import pyarrow as pa
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from shared.data.curation import UNKNOWN
from shared.reports.figures import LIGHT, Chart, Theme, canvas, dollars, legend, plain_text

COLOURS = ("#0b7fd6", "#d95f02", "#0a9a6b", "#d1569f", "#8d6bd6", "#0f93ab", "#8f8a14", "#b07030")
"""Of the largest categories; each stands out from a light and from a dark surface (3 to 1)."""

MARKS = "os^DvPX*"
"""A shape for each colour: colour alone is not for everybody."""

LEAST, NEAR = 10, 5
"""Points that a map needs; nearest ones that it is judged by."""

LONGEST = 60
"""Characters of a title that are shown."""


class LikenessMap(Chart):
    """The map as a chart, and as a page's part with a spot over each point.

    ``places`` are the points, shape (n, 2), in the axes' coordinates; ``names`` says what each is.
    """

    def __init__(
        self, draw: Callable[[Theme], Figure], alt: str, places: np.ndarray, names: Sequence[str]
    ) -> None:
        super().__init__(draw, alt)
        self.places, self.names = places, names

    def html(self) -> str:
        """Return the picture and its spots; where styles are stripped, the picture is left."""
        figure = self.figure()
        figure.draw_without_rendering()  # places the axes
        pixels = (figure.axes[0].transData.transform(self.places) / figure.bbox.size).tolist()
        spots = [
            f'<i class="{"l" * (x > 0.5)}{"u" * (y < 0.5)}" style="left:{100 * x:.1f}%;'
            f'top:{100 - 100 * y:.1f}%" data-name="{escape(name)}"></i>'
            for (x, y), name in zip(pixels, self.names, strict=True)
        ]
        template = Template(Path(__file__).with_name("map.html").read_text(encoding="utf-8"))
        picture = quote(base64.b64encode(self.png()).decode(), safe="+=")  # no "/" like a path's
        return template.substitute(
            vars(LIGHT), picture=picture, alt=escape(self.alt), spots="".join(spots)
        )

    def _repr_mimebundle_(self, include: object = None, exclude: object = None) -> tuple:
        data, metadata = super()._repr_mimebundle_()
        return data | {"text/html": self.html()}, metadata


def likeness_map(
    items: pa.Table, vectors: np.ndarray, query: str = "", near: int = 0, *, seed: int = 42
) -> LikenessMap:
    """Draw n items (``title``, ``price``, ``category``) by their vectors, shape (n, size).

    With a query, its vector is one more row, the last; the last ``near`` items are its neighbours,
    and get numbers. t-SNE (van der Maaten and Hinton 2008) keeps who is near whom, and little else:
    how far groups are apart means nothing. The alt text says how much it keeps, and what straight
    axes would. Raises ValueError for too few points, or points that are all alike.
    """
    places, known = flattened(vectors, seed), slice(0, len(items))
    kinds = [kind or UNKNOWN for kind in items["category"].to_pylist()]
    title, alt = _said(vectors[known], places[known], kinds)
    rows = (items[name].to_pylist() for name in ("title", "price", "category"))
    names = [label(*row) for row in zip(*rows, strict=True)]
    first = len(items) - near
    if query:
        listed = "; ".join(f"{i}. {name}" for i, name in enumerate(names[first:], 1))
        alt += f" The star is the query, {short(query)}; numbered: {listed or 'nothing'}."
        names.append(f"The query: {short(query)}")

    def draw(theme: Theme) -> Figure:
        figure, axes = canvas(theme, title, "", "", 6.8)
        _draw_products(axes, theme, places[known], kinds)
        _draw_query(axes, theme, places[first:], near)
        return figure

    return LikenessMap(draw, alt, places, names)


def flattened(vectors: np.ndarray, seed: int) -> np.ndarray:
    """Return places on a plane for n vectors, shape (n, 2), by t-SNE."""
    from sklearn.manifold import TSNE
    from threadpoolctl import threadpool_limits

    if len(vectors) < LEAST or np.ptp(vectors, axis=0).max() < 1e-6:
        raise ValueError(f"{len(vectors)} points: a map needs {LEAST} that are not all alike")
    wide = min(20.0, len(vectors) / 4)
    tsne = TSNE(perplexity=wide, max_iter=300, angle=0.8, init="pca", random_state=seed)
    with threadpool_limits(1):  # on a busy machine its threads mostly wait for each other
        return tsne.fit_transform(vectors).astype(float)


def nearest(points: np.ndarray, k: int = NEAR) -> np.ndarray:
    """Return the rows of the k nearest others of each of n points, shape (n, k)."""
    squares = (points**2).sum(axis=1)
    apart = squares[:, None] + squares - 2 * points @ points.T
    np.fill_diagonal(apart, np.inf)
    return np.argsort(apart, axis=1, kind="stable")[:, :k]


def label(title: str, price: float, category: str) -> str:
    """Return a product in a line."""
    return f"{short(title)}, {dollars(price)} ({category or UNKNOWN})"


def short(text: str) -> str:
    """Return the first line of a text, and not too much of it."""
    line = " ".join((text.strip().splitlines() or [""])[0].split())
    if len(line) > LONGEST and len(line.split(" ", 1)[0]) > LONGEST - 2:
        return f"{line[: LONGEST - 2]} …"  # a first word that is too long, or no spaces at all
    return shorten(line, LONGEST, placeholder=" …") or "no title"


def _said(vectors: np.ndarray, places: np.ndarray, kinds: Sequence[str]) -> tuple[str, str]:
    """Return what the map shows: a title, and alt text."""
    true, kind = nearest(vectors), np.array(kinds)
    kept = np.mean(
        [len(set(a) & set(b)) / NEAR for a, b in zip(true, nearest(places), strict=True)]
    )
    spread = np.linalg.svd(vectors - vectors.mean(axis=0), compute_uv=False) ** 2
    pairs = (kind[:, None] != UNKNOWN) & (kind[true] != UNKNOWN)
    title = f"{len(kind):,} products, the more alike the nearer"
    if pairs.any():
        same = (kind[:, None] == kind[true])[pairs].mean()
        counts = np.array(list(Counter(kind[kind != UNKNOWN].tolist()).values()))
        chance = ((counts / counts.sum()) ** 2).sum()
        title = (
            f"{same:.0%} of the nearest share a product's category; by chance {chance:.0%} would"
        )
    return title, (
        f"Map of {len(kind):,} products. {title}. Made flat by t-SNE, which keeps {kept:.0%} of "
        f"each one's {NEAR} nearest; the two best straight axes would hold "
        f"{spread[:2].sum() / spread.sum():.0%} of the variance."
    )


def _draw_products(axes: Axes, theme: Theme, places: np.ndarray, kinds: Sequence[str]) -> None:
    counts = Counter(kind for kind in kinds if kind != UNKNOWN).most_common(len(COLOURS))
    named = np.array([kind if kind in dict(counts) else "" for kind in kinds])
    style: dict[str, Any] = {"linewidths": 0, "alpha": 0.85}
    for (kind, count), colour, mark in zip(counts, COLOURS, MARKS, strict=False):
        axes.scatter(*places[named == kind].T, s=17, c=colour, marker=mark, **style,
                     label=plain_text(f"{short(kind)[:27]}: {count:,}"))  # fmt: skip
    if rest := int((named == "").sum()):
        axes.scatter(*places[named == ""].T, s=8, c=theme.plain, zorder=0.5, **style,
                     label=f"other or unknown: {rest:,}")  # fmt: skip
    axes.set(xticks=[], yticks=[])
    axes.margins(0.03)
    legend(axes, theme, loc="upper center", bbox_to_anchor=(0.5, 0), ncols=3, columnspacing=1,
           handletextpad=0)  # fmt: skip


def _draw_query(axes: Axes, theme: Theme, places: np.ndarray, near: int) -> None:
    """Number the first places, in a ring around each; one that comes after them is a star."""
    style: dict[str, Any] = {"edgecolors": theme.text, "zorder": 4}
    axes.scatter(*places[:near].T, s=70, facecolors="none", linewidths=1.4, **style)
    axes.scatter(*places[near:].T, s=240, c=theme.surface, marker="*", linewidths=1.4, **style)
    for i, place in enumerate(places[:near]):
        turn = 2 * np.pi * i / near  # near ones stand together: their numbers go all around
        axes.annotate(str(i + 1), place, (24 * np.sin(turn), 24 * np.cos(turn)), ha="center",
                      va="center", textcoords="offset points", zorder=5, color=theme.text,
                      fontweight="bold", arrowprops={"arrowstyle": "-", "color": theme.muted},
                      )  # fmt: skip
