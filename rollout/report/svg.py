"""Charts as inline SVG: lines with bands, stacked columns, a split bar, a tree. Colours are the page's."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from rollout.report.html import Html, join, number, percent, tag

WIDE, SMALL = (1000, 300), (270, 150)
LEFT, RIGHT, TOP, BOTTOM = 46, 12, 10, 34
MOST = 240  # points of one line; more are drawn as means with their extremes
COLOURS = 8


@dataclass(frozen=True, slots=True, kw_only=True)
class Series:
    """Points by x. `low` and `high` are a band around the line, or whiskers when only `marks` are drawn."""

    name: str
    x: Sequence[float]
    y: Sequence[float]
    low: Sequence[float] = ()
    high: Sequence[float] = ()
    marks: bool = False
    colour: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Node:
    """One dot of a tree: `parent` is the index of another node, `value` its height, None at the bottom."""

    depth: int
    value: float | None
    parent: int | None
    label: str
    is_marked: bool = False


@dataclass(frozen=True, slots=True)
class Frame:
    """From values to places. y grows upwards in values, downwards in places."""

    x: tuple[float, float]
    y: tuple[float, float]
    size: tuple[int, int]

    def at(self, x: float, y: float) -> tuple[float, float]:
        width, height = self.size
        x_share = (x - self.x[0]) / ((self.x[1] - self.x[0]) or 1)
        y_share = (y - self.y[0]) / ((self.y[1] - self.y[0]) or 1)
        return LEFT + x_share * (width - LEFT - RIGHT), height - BOTTOM - y_share * (height - TOP - BOTTOM)


def lines(
    series: Sequence[Series],
    *,
    name: str,
    x_label: str,
    shown: Callable[[float | None], str] = number,
    y_range: tuple[float, float] | None = None,
    small: bool = False,
) -> Html:
    """`shown` writes a value of the y axis. Without a point: an empty frame."""
    series = [_thinned(one) for one in series]
    xs = [x for one in series for x in one.x]
    ys = [y for one in series for y in (*one.y, *one.low, *one.high)]
    frame = Frame(_widened(xs, 0.0), y_range or _widened(ys, 0.06), SMALL if small else WIDE)
    drawn = [_axes(frame, x_label, shown), *(_series(frame, one, shown, x_label) for one in series)]
    return _svg(frame.size, name, *drawn)


def columns(
    stacks: Sequence[tuple[str, Mapping[str, float]]],
    names: Sequence[str],
    *,
    name: str,
    x_label: str,
    shown: Callable[[float | None], str] = number,
    small: bool = False,
) -> Html:
    """One column for each (label, heights by name), stacked in the order of `names`, which gives the colours too."""
    top = max((sum(heights.values()) for _, heights in stacks), default=0) or 1
    frame = Frame((0, max(1, len(stacks))), (0, top), SMALL if small else WIDE)
    drawn = [_axes(frame, x_label, shown, x_ticks=False)]
    every = math.ceil(len(stacks) / 10)
    for place, (label, heights) in enumerate(stacks):
        floor = 0.0
        for colour, part in enumerate(names):
            value = heights.get(part, 0)
            if value > 0:
                (x0, y0), (x1, y1) = frame.at(place + 0.08, floor), frame.at(place + 0.92, floor + value)
                title = tag("title", f"{label}: {part} {shown(value)}")
                bar = tag("rect", x=_f(x0), y=_f(y1), width=_f(x1 - x0), height=_f(y0 - y1))
                drawn.append(tag("g", title, bar, class_=f"f{colour % COLOURS}"))
                floor += value
        if place % every == 0:
            x, y = frame.at(place + 0.5, 0)
            drawn.append(tag("text", label, x=_f(x), y=_f(y + 14), text_anchor="middle"))
    return _svg(frame.size, name, *drawn)


def split(parts: Mapping[str, float], *, name: str) -> Html:
    """One bar, split by shares; a share too narrow for its words has none."""
    total, x, drawn = sum(parts.values()) or 1, 0.0, []
    for colour, (part, value) in enumerate(parts.items()):
        width = 1000 * value / total
        words = f"{part} {percent(value / total)}"
        bar = tag("rect", x=_f(x), y=0, width=_f(width), height=40)
        fits = width > 8 * len(words)
        inner = tag("text", words, x=_f(x + width / 2), y=25, text_anchor="middle", class_="in") if fits else None
        drawn.append(tag("g", tag("title", words), bar, inner, class_=f"f{colour % COLOURS}"))
        x += width
    return _svg((1000, 40), name, *drawn)


def tree(nodes: Sequence[Node], *, name: str, shown: Callable[[float | None], str] = number) -> Html:
    """Generations to the right, values upwards; each dot is tied to its parent, marked ones are drawn strong."""
    frame = Frame((-0.3, max((node.depth for node in nodes), default=0) + 0.3), (-0.05, 1.05), WIDE)
    ties, dots = [], []
    for node in nodes:
        x, y = frame.at(node.depth, node.value or 0.0)
        kind = "marked" if node.is_marked else "faint"
        if node.parent is not None:
            before = nodes[node.parent]
            x0, y0 = frame.at(before.depth, before.value or 0.0)
            ties.append(tag("line", x1=_f(x0), y1=_f(y0), x2=_f(x), y2=_f(y), class_=f"tie {kind}"))
        dot = tag("circle", cx=_f(x), cy=_f(y), r=5 if node.is_marked else 3)
        dots.append(tag("g", tag("title", node.label), dot, class_=f"dot {kind}"))
    return _svg(frame.size, name, _axes(frame, "generation", shown), *ties, *dots)


def legend(names: Sequence[str]) -> Html:
    """In the order of the colours."""
    keys = [tag("span", tag("i", class_=f"k{place % COLOURS}"), name) for place, name in enumerate(names)]
    return tag("p", *keys, class_="legend")


def _series(frame: Frame, one: Series, shown: Callable[[float | None], str], x_label: str) -> Html:
    colour = f"s{one.colour % COLOURS}"
    points = [frame.at(x, y) for x, y in zip(one.x, one.y, strict=True)]
    lows = [frame.at(x, y) for x, y in zip(one.x, one.low, strict=False)]
    highs = [frame.at(x, y) for x, y in zip(one.x, one.high, strict=False)]
    drawn = []
    if lows and one.marks:
        for (x, low), (_, high) in zip(lows, highs, strict=True):
            drawn.append(tag("line", x1=_f(x), x2=_f(x), y1=_f(low), y2=_f(high), class_="whisker"))
    elif lows:
        drawn.append(tag("polygon", points=_places([*highs, *reversed(lows)]), class_="band"))
    if len(points) > 1:
        drawn.append(tag("path", d="M" + "L".join(_places([p]) for p in points), class_="line"))
    for place, (x, y) in enumerate(points):
        words = f"{one.name}, {x_label} {number(one.x[place], 6)}: {shown(one.y[place])}"
        if one.low:
            words += f" ({shown(one.low[place])} to {shown(one.high[place])})"
        small = len(points) > 40 and not one.marks
        dot = tag("circle", cx=_f(x), cy=_f(y), r=2 if small else 3, class_="point")
        drawn.append(tag("g", tag("title", words), dot))
    return tag("g", *drawn, class_=colour)


def _axes(frame: Frame, x_label: str, shown: Callable[[float | None], str], *, x_ticks: bool = True) -> Html:
    width, height = frame.size
    drawn = []
    for value in _ticks(*frame.y, 3 if height < 200 else 4):
        _, y = frame.at(frame.x[0], value)
        drawn.append(tag("line", x1=LEFT, x2=width - RIGHT, y1=_f(y), y2=_f(y), class_="grid"))
        words = number(value, 6) if shown is number else shown(value)
        drawn.append(tag("text", words, x=LEFT - 6, y=_f(y + 3.5), text_anchor="end"))
    for value in _ticks(*frame.x, 3 if width < 400 else 6) if x_ticks else ():
        if value == int(value):
            x, y = frame.at(value, frame.y[0])
            drawn.append(tag("text", number(value, 6), x=_f(x), y=_f(y + 14), text_anchor="middle"))
    middle = LEFT + (width - LEFT - RIGHT) / 2
    drawn.append(tag("text", x_label, x=_f(middle), y=height - 4, text_anchor="middle", class_="axis"))
    return tag("g", *drawn, class_="axes")


def _svg(size: tuple[int, int], name: str, *drawn: Html) -> Html:
    box = f"0 0 {size[0]} {size[1]}"
    return tag("svg", *drawn, viewBox=box, role="img", aria_label=name)


def _ticks(low: float, high: float, least: int) -> list[float]:
    """At least so many round values within the range, and not many more."""
    if not high > low:
        return [low]
    power = 10.0 ** math.ceil(math.log10(high - low))
    for step in (power / down for down in (1, 2, 5, 10, 20, 50, 100)):
        first, last = math.ceil(low / step - 1e-9), math.floor(high / step + 1e-9)
        if last - first + 1 >= least:
            break
    return [float(f"{step * place:.12g}") for place in range(first, last + 1)]


def _widened(values: Sequence[float], share: float) -> tuple[float, float]:
    """The range of the values and a little more; one value stands in the middle."""
    if not values:
        return 0.0, 1.0
    low, high = min(values), max(values)
    room = share * (high - low) if high > low else abs(high) / 2 or 0.5
    return (low - room if low < 0 else max(0.0, low - room)), high + room


def _thinned(one: Series) -> Series:
    """Long lines as means of neighbours, with the smallest and the largest as their band."""
    if len(one.x) <= MOST:
        return one
    size = math.ceil(len(one.x) / MOST)
    cuts = [slice(start, start + size) for start in range(0, len(one.x), size)]
    x = [sum(one.x[cut]) / len(one.x[cut]) for cut in cuts]
    y = [sum(one.y[cut]) / len(one.y[cut]) for cut in cuts]
    low = [min(one.low[cut] if one.low else one.y[cut]) for cut in cuts]
    high = [max(one.high[cut] if one.high else one.y[cut]) for cut in cuts]
    return Series(name=one.name, x=x, y=y, low=low, high=high, colour=one.colour)


def _places(points: Sequence[tuple[float, float]]) -> str:
    return " ".join(f"{_f(x)},{_f(y)}" for x, y in points)


def _f(value: float) -> str:
    return f"{value:.1f}"


def figure(title: str, *parts: Html | None, numbers: Html | None = None) -> Html:
    """A chart with its name above and its numbers, for those who cannot see it, folded below."""
    below = tag("details", tag("summary", "numbers"), numbers) if numbers is not None else None
    return tag("figure", tag("figcaption", title), join(*parts), below)
