"""What all charts share: colours for light and dark that are tested for contrast, and alt text."""

from __future__ import annotations

import io
import re
import textwrap
from collections.abc import Callable
from dataclasses import dataclass
from html import escape
from pathlib import Path

import matplotlib
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter

from shared.evaluation.metrics import number

LOWEST = 0.5  # dollars: where a logarithmic axis starts; cheaper estimates are drawn there


@dataclass(frozen=True)
class Theme:
    """Colours by what they are for. Marks: ``good``, ``bad`` and ``plain``; never by colour alone.

    ``good`` and ``bad`` are a blue and an orange that colour-blind readers can tell apart
    (after Okabe and Ito 2008). All roles differ, so that an SVG can be re-coloured by CSS.
    """

    surface: str
    text: str
    muted: str
    grid: str
    good: str
    bad: str
    plain: str


LIGHT = Theme("#ffffff", "#1b1f24", "#57606a", "#e4e7eb", "#0b62b8", "#b8460e", "#6e7681")
DARK = Theme("#14181d", "#eef1f4", "#a6afba", "#2b323a", "#5cb0ff", "#ff9d57", "#8a939f")


def contrast(one: str, other: str) -> float:
    """Return the contrast ratio of two ``#rrggbb`` colours, 1 to 21 (WCAG 2.2)."""
    lighter, darker = sorted((_luminance(one), _luminance(other)), reverse=True)
    return (lighter + 0.05) / (darker + 0.05)


class Chart:
    """A chart and its alt text; ``draw`` makes the figure in a theme.

    Jupyter shows the light one on an opaque surface, readable on a dark page too.
    """

    def __init__(self, draw: Callable[[Theme], Figure], alt: str):
        self.draw = draw
        self.alt = alt

    def figure(self, dark: bool = False) -> Figure:
        """Return a new matplotlib figure, to change or to save in another format."""
        return self.draw(DARK if dark else LIGHT)

    def png(self, dark: bool = False, dpi: int = 120) -> bytes:
        """Return the chart as PNG, 120 pixels an inch unless told otherwise."""
        buffer = io.BytesIO()
        metadata = {"Description": self.alt, "Software": None}
        self.figure(dark).savefig(buffer, format="png", dpi=dpi, metadata=metadata)
        return buffer.getvalue()

    def svg(self, dark: bool | None = False) -> str:
        """Return the chart as an ``<svg>`` element with its alt text and real text in it.

        With ``dark=None`` its colours are CSS variables (``--surface``, ``--text``, …), so that
        the page it stands in decides.
        """
        buffer = io.StringIO()
        with matplotlib.rc_context({"svg.fonttype": "none", "svg.hashsalt": self.alt}):
            self.figure(bool(dark)).savefig(buffer, format="svg", metadata={"Date": None})
        svg = _embeddable(buffer.getvalue())
        if dark is None:
            for role, colour in vars(LIGHT).items():
                svg = svg.replace(colour, f"var(--{role})")
        return svg.replace("<svg", f'<svg role="img" aria-label="{escape(self.alt)}"', 1)

    def save(self, path: str | Path, dark: bool = False) -> Path:
        """Write a ``.png`` or ``.svg`` file and return its path."""
        path = Path(path)
        if path.suffix not in (".png", ".svg"):
            raise ValueError(f"{path.name}: a chart is saved as .png or .svg")
        content = self.png(dark) if path.suffix == ".png" else self.svg(dark).encode()
        path.write_bytes(content)
        return path

    def _repr_mimebundle_(self, include: object = None, exclude: object = None) -> tuple:
        return {"image/png": self.png(), "text/plain": self.alt}, {"image/png": {"alt": self.alt}}

    def __repr__(self) -> str:
        return self.alt


def canvas(theme: Theme, title: str, x: str, y: str, height: float = 4.2) -> tuple[Figure, Axes]:
    """Return an empty figure of 7.2 inches with its title and named axes, in the theme."""
    figure = Figure(figsize=(7.2, height), facecolor=theme.surface, layout="constrained")
    axes = figure.add_subplot(facecolor=theme.surface)
    figure.get_layout_engine().set(w_pad=0.12, h_pad=0.1)
    figure.suptitle(
        plain_text("\n".join(textwrap.wrap(title, 68))),
        x=0.02, ha="left", fontsize=12.5, fontweight="bold", color=theme.text,
    )  # fmt: skip
    axes.set_xlabel(plain_text(x), color=theme.muted)
    axes.set_ylabel(plain_text(y), color=theme.muted)
    axes.tick_params(which="both", colors=theme.muted, length=0, labelsize=9)
    axes.grid(True, color=theme.grid, linewidth=0.8)
    axes.set_axisbelow(True)
    axes.spines[:].set_visible(False)
    return figure, axes


def legend(axes: Axes, theme: Theme, **where: object) -> None:
    """Add a legend on the theme's surface."""
    box = axes.legend(frameon=True, fontsize=9, labelcolor=theme.text, **where)
    box.get_frame().set(facecolor=theme.surface, edgecolor=theme.grid, alpha=0.9)


def plain_text(text: str) -> str:
    """Escape dollar signs: matplotlib reads what is between two of them as mathematics."""
    return text.replace("$", r"\$")


def log_dollars(axes: Axes, which: str) -> None:
    """Make the ``x`` or ``y`` axis logarithmic, in dollars."""
    getattr(axes, f"set_{which}scale")("log")
    axis = getattr(axes, f"{which}axis")
    axis.set_major_locator(LogLocator(10, subs=(1, 2, 5)))
    axis.set_major_formatter(DOLLARS)
    axis.set_minor_formatter(NullFormatter())


def dollars(value: float) -> str:
    """Return dollars for prose: cents only below $100."""
    return number(value, "${:,.0f}" if abs(value) >= 100 else "${:,.2f}")


DOLLARS = FuncFormatter(lambda value, _: plain_text(f"${value:,.10g}"))
THOUSANDS = FuncFormatter(lambda value, _: f"{value:,.10g}")


def _embeddable(svg: str) -> str:
    """Keep the element alone, and of its ids those it refers to: a page may hold several."""
    svg = re.sub(r"<metadata>.*?</metadata>", "", svg[svg.index("<svg") :], flags=re.DOTALL)
    used = set(re.findall(r"#([\w-]+)", svg))
    return re.sub(r' id="([^"]+)"', lambda found: found[0] if found[1] in used else "", svg)


def _luminance(colour: str) -> float:
    channels = (int(colour[i : i + 2], 16) / 255 for i in (1, 3, 5))
    red, green, blue = (
        c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in channels
    )
    return 0.2126 * red + 0.7152 * green + 0.0722 * blue
