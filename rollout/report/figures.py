"""The charts of a page as files: each an SVG that needs nothing else, with its name and its legend in it."""

from __future__ import annotations

import html
import os
import re
from collections import Counter
from pathlib import Path

from rollout.report.html import Html, tag
from rollout.report.style import CHARTS, COLOURS, PALETTE

FIGURE = re.compile(
    r"<figure><figcaption>(?P<name>.*?)</figcaption>(?P<legend><p class=\"legend\">.*?</p>)?"
    r"<svg viewBox=\"0 0 (?P<width>\d+) (?P<height>\d+)\"[^>]*>(?P<chart>.*?)</svg>",
    re.DOTALL,
)
KEY = re.compile(r"<span><i class=\"k(\d)\"></i>(.*?)</span>")
HEAD, LETTER = 44, 6.2  # room above the chart; width of a small letter
EXTRA = "text { font-family: system-ui, sans-serif } .name { font-size: 13.5px; font-weight: 600; fill: var(--ink) }"


def figures(page: str) -> dict[str, str]:
    """{file name: SVG} of every chart of a page that `rollout.report` or a study made, in their order."""
    found: dict[str, str] = {}
    seen: Counter[str] = Counter()
    for match in FIGURE.finditer(page):
        stem = re.sub(r"\W+", "-", html.unescape(match["name"]).lower()).strip("-")
        seen[stem] += 1
        number = f"-{seen[stem]}" if seen[stem] > 1 else ""
        found[f"{stem}{number}.svg"] = _alone(match)
    return found


def write_figures(page: str, folder: Path) -> list[Path]:
    """Each whole or not at all; files of the same names are replaced."""
    folder.mkdir(parents=True, exist_ok=True)
    paths = []
    for name, svg in figures(page).items():
        partial = folder / f".{name}.partial"
        partial.write_text(svg, encoding="utf-8")
        os.replace(partial, folder / name)
        paths.append(folder / name)
    return paths


def _alone(match: re.Match[str]) -> str:
    width, height = int(match["width"]), int(match["height"])
    keys, x = [], 0.0
    for number, name in KEY.findall(match["legend"] or ""):
        square = tag("rect", x=x, y=-18, width=10, height=10, class_=f"f{number}")
        keys += [square, tag("text", Html(name), x=x + 16, y=-9)]
        x += 16 + LETTER * len(html.unescape(name)) + 14
    ground = tag("rect", x=0, y=-HEAD, width=width, height=height + HEAD, style="fill: var(--bg)")
    name = tag("text", Html(match["name"]), x=0, y=-30, class_="name")
    style = tag("style", Html(PALETTE + CHARTS + COLOURS + EXTRA))
    box = f"0 {-HEAD} {width} {height + HEAD}"
    inner = [style, ground, name, *keys, Html(match["chart"])]
    return tag("svg", *inner, xmlns="http://www.w3.org/2000/svg", viewBox=box) + "\n"
