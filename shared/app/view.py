"""What the tabs show, as HTML: what came from outside is escaped, no colour speaks alone."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from html import escape
from pathlib import Path
from string import Template

from shared.app.mattered import Mattered, marked
from shared.data import Product
from shared.evaluation.inputs import reason
from shared.evaluation.metrics import number
from shared.reports.figures import DARK, LIGHT

ANNOUNCE = """(html) => {
  let box = document.getElementById('announcer');
  if (!box) {
    box = document.createElement('div');
    Object.assign(box, {id: 'announcer'});
    box.setAttribute('role', 'status');
    box.style.cssText =
      'position:absolute;width:1px;height:1px;overflow:hidden;clip-path:inset(50%)';
    document.body.append(box);
  }
  const text = new DOMParser().parseFromString(html || '', 'text/html').body.textContent;
  if (box.textContent !== text) box.textContent = text;
}"""
"""Reads a message to whoever listens instead of looking; its box outlives what gradio redraws."""

_FOLDERS = re.compile(r"(?<![\w:/])(?:[A-Za-z]:)?[/\\](?:[^\s/\\'\"]+[/\\])+")

BARS = 8
"""Words whose effects are listed as bars, the largest."""


def style() -> str:
    """Return the page's style sheet: the charts' colours, which are tested for contrast."""
    template = Template(Path(__file__).with_name("style.html").read_text(encoding="utf-8"))
    light, dark = (" ".join(f"--{k}: {v};" for k, v in vars(t).items()) for t in (LIGHT, DARK))
    return template.substitute(light=light, dark=dark)


def failure(error: Exception) -> str:
    """Return an exception in one line for visitors: without the folders of this machine.

    A ValueError of ours is a sentence already; of others the type is told, too.
    """
    ours = isinstance(error, ValueError) and str(error)
    return _FOLDERS.sub("…/", str(error) if ours else reason(error))


def note(text: str, wrong: bool = False) -> str:
    """Return a message as a box; nothing for an empty one."""
    kind = "note wrong" if wrong else "note"
    return f"<p class='{kind}'>{escape(text)}</p>" if text else ""


def muted(text: str) -> str:
    """Return an explanation, set smaller than what it explains."""
    return f"<p class='muted'>{escape(text)}</p>"


def part(title: str, *content: str) -> str:
    """Return a part of a page under its heading; the content is HTML."""
    return f"<section class='part'><h3>{escape(title)}</h3>{''.join(content)}</section>"


def table(
    caption: str, titles: Sequence[str], rows: Iterable[Sequence[str]], words: Sequence[str] = ()
) -> str:
    """Return a table that scrolls by itself where it is wide; the first cell names its row.

    Columns whose titles are in ``words`` are set to the left, as the first always is.
    """
    kinds = [" class='word'" if i == 0 or t in words else "" for i, t in enumerate(titles)]
    head = "".join(
        f"<th scope='col' role='columnheader'{kind}>{escape(title)}</th>"
        for title, kind in zip(titles, kinds, strict=True)
    )
    body = "".join(f"<tr role='row'>{_cells(row, titles, kinds)}</tr>" for row in rows)
    return (
        f"<h3>{escape(caption)}</h3>"
        f"<div class='scroll' role='region' tabindex='0' aria-label='{escape(caption)}'>"
        f"<table role='table'><thead role='rowgroup'><tr role='row'>{head}</tr></thead>"
        f"<tbody role='rowgroup'>{body}</tbody></table></div>"
    )


def _cells(row: Sequence[str], titles: Sequence[str], kinds: Sequence[str]) -> str:
    """Return the cells of a row. On a phone they stand below each other, each after its title."""
    first = f"<th scope='row' role='rowheader'{kinds[0]}>{escape(row[0])}</th>"
    rest = zip(row[1:], titles[1:], kinds[1:], strict=True)
    return first + "".join(
        f"<td role='cell' data-title='{escape(title)}'{kind}>{escape(text)}</td>"
        for text, title, kind in rest
    )


def dollars(value: float) -> str:
    """Return dollars to the cent, a dash where there is no number."""
    return number(value, "${:,.2f}")


def signed(value: float) -> str:
    """Return an effect in dollars with its sign in front: +$12.30."""
    sign = "+" if value >= 0 else "−"
    return f"{sign}${abs(value):,.2f}" if abs(value) < 100 else f"{sign}${abs(value):,.0f}"


def mattered(product: Product, found: Mattered) -> str:
    """Return the words that mattered: a list of bars, and the text with their effects in it."""
    if not found.effects:
        words = "No single word matters: without any one of them the estimate stays within 1 %."
        return part("What mattered", muted(words), _text(product, found))
    widest = max(abs(effect.dollars) for effect in found.effects)
    bars = "".join(
        f"<li class='{'more' if e.dollars >= 0 else 'less'}'><span>{escape(e.word)}</span>"
        f"<span class='line' aria-hidden='true' style='width: {_width(e.dollars, widest)}%'></span>"
        f"<span class='amount'>{_verb(e.dollars)} {dollars(abs(e.dollars))}</span></li>"
        for e in found.effects[:BARS]
    )
    how = (
        f"Each of {found.tried} words was left out, and the product priced again: the difference "
        "is what the word adds, or takes off. "
        "Words that say the same cover for each other, the effects do not add up to the price, and "
        "without a word the text may describe another product. This is about the model, not about "
        "what buyers pay for."
    )
    unread = (
        f"The last {found.unread:,} characters were not tried: the shipped model does not read as "
        "far, another may."
    )
    return part(
        "What mattered", f"<ul class='bars'>{bars}</ul>", _text(product, found), muted(how),
        muted(unread) if found.unread else "",
    )  # fmt: skip


def _verb(effect: float) -> str:
    return "adds" if effect >= 0 else "takes off"


def _width(effect: float, widest: float) -> str:
    return f"{max(100 * abs(effect) / widest, 1):.0f}"


def _text(product: Product, found: Mattered) -> str:
    pieces = "".join(
        escape(piece) if effect is None else _mark(piece, effect)
        for piece, effect in marked(product.text, found.effects)
    )
    return (
        "<p class='muted'>The text as models see it: cleaned as in training, prices and part "
        "numbers taken out.</p>"
        "<div class='read' tabindex='0' role='region' aria-label='The text, with what each word "
        f"adds or takes off'>{pieces}</div>"
    )


def _mark(piece: str, effect: float) -> str:
    kind = "more" if effect >= 0 else "less"
    return f"<mark class='{kind}'>{escape(piece)} <small>{signed(effect)}</small></mark>"
