"""Markup as values. Text becomes markup only by escaping, so what a policy wrote stays text wherever it is put."""

from __future__ import annotations

import html
import unicodedata
from collections.abc import Iterable, Sequence

HIDDEN = {"Cc", "Cf", "Cs", "Co", "Cn", "Zl", "Zp"}  # control, bidirectional, zero width, surrogate, unassigned
VOID = ("meta", "input", "br")


class Html(str):
    """Markup that is safe to put into a page. Only `tag` and `join` make it, and constants of this package."""

    __slots__ = ()


Child = str | int | float | None | Iterable["Child"]
"""Html stays as it is, None is nothing, every other text or number is escaped."""


def tag(element: str, /, *children: Child, **attributes: str | float | bool | None) -> Html:
    """<element ...>children</element>. `class_` is class, `data_id` is data-id; None and False leave an attribute out.

    Example: tag("p", "1 < 2", class_="note") is <p class="note">1 &lt; 2</p>.
    """
    found = [f" {_name(key)}" + _value(value) for key, value in attributes.items() if value not in (None, False)]
    inner = join(*children)
    return Html(f"<{element}{''.join(found)}>" + ("" if element in VOID else f"{inner}</{element}>"))


def join(*children: Child) -> Html:
    """One after the other."""
    return Html("".join(_markup(child) for child in children))


def text(words: str, limit: int | None = None) -> str:
    """Words as people may see them: hidden characters as \\u{...}, the middle cut when it is longer than `limit`."""
    if limit is not None and len(words) > limit:
        half = limit // 2
        words = f"{words[:half]}\n[... {len(words) - 2 * half:,} characters ...]\n{words[-half:]}"
    return "".join(c if c in "\n\t" or unicodedata.category(c) not in HIDDEN else f"\\u{{{ord(c):x}}}" for c in words)


def table(heads: Sequence[Child], rows: Iterable[Sequence[Child]], caption: str = "") -> Html:
    """Columns of numbers alone stand to the right."""
    rows = list(rows)
    sides = ["n" if rows and all(_is_number(row[place]) for row in rows) else None for place in range(len(heads))]
    body = [
        tag("tr", *(tag("td", _shown(cell), class_=side) for cell, side in zip(row, sides, strict=True)))
        for row in rows
    ]
    named = tag("caption", caption) if caption else None
    columns = [tag("th", name, scope="col", class_=side) for name, side in zip(heads, sides, strict=True)]
    return tag("div", tag("table", named, tag("thead", tag("tr", *columns)), tag("tbody", *body)), class_="scroll")


def folded(summary: Child, *children: Child, open_: bool = False, class_: str | None = None) -> Html:
    """Shown when it is asked for."""
    return tag("details", tag("summary", summary), *children, open=open_, class_=class_)


def note(*children: Child) -> Html:
    return tag("p", *children, class_="note")


def number(value: float | None, digits: int = 3) -> str:
    """A few significant digits: 0.1234 -> 0.123, 12345.6 -> 12,346. None is a dash."""
    if value is None or value != value:
        return "–"
    if value == int(value) and abs(value) < 1e15:
        return f"{int(value):,}"
    return f"{value:,.0f}" if abs(value) >= 10**digits else f"{value:.{digits}g}"


def percent(value: float | None) -> str:
    """0.1234 -> 12.3 %"""
    return "–" if value is None or value != value else f"{100 * value:.1f} %"


def share(value: float | None) -> str:
    """0.123 -> 12.3 %, 1.0 -> 100 %: for the axes of charts."""
    return "–" if value is None else f"{100 * value:.3g} %"


def duration(seconds: float | None) -> str:
    """75 -> 1 min 15 s"""
    if seconds is None:
        return "–"
    if seconds < 60:
        return f"{seconds:.3g} s"
    minutes, left = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours} h {minutes:02} min" if hours else f"{minutes} min {left:02} s"


def _shown(cell: Child) -> Child:
    return number(cell) if isinstance(cell, int | float) else cell


def _is_number(cell: Child) -> bool:
    if isinstance(cell, str):
        return cell == "–" or cell[:1].isdigit() or (cell[:1] in "+-" and cell[1:2].isdigit())
    return isinstance(cell, int | float)


def _markup(child: Child) -> str:
    if child is None:
        return ""
    if isinstance(child, Html):
        return child
    if isinstance(child, str | int | float):
        return html.escape(text(str(child)))
    return "".join(_markup(inner) for inner in child)


def _name(key: str) -> str:
    return key.rstrip("_").replace("_", "-")


def _value(value: str | float | bool | None) -> str:
    return "" if value is True else f'="{html.escape(text(str(value)))}"'
