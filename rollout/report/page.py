"""The whole page: header, sections, style, script, and a policy that lets nothing else run."""

from __future__ import annotations

import base64
import hashlib
import os
from pathlib import Path

from rollout.report import drift, filtering, happened, head, learning, policy, review, scaffolds, seconds
from rollout.report.gather import Reader, Run
from rollout.report.html import Html, tag
from rollout.report.script import SCRIPT
from rollout.report.style import CHARTS, COLOURS, OUTCOMES, PAGE, PALETTE

LOOK = PALETTE + PAGE + CHARTS + COLOURS + OUTCOMES


def render(reader: Reader, run: Run, *, sample: int = review.SAMPLE, stamp: str | None = None) -> str:
    """The HTML of a run. With a `stamp` the page is live: it asks its server for news and sends decisions to it."""
    parts = [
        ("learning", "Reward and held-out pass rate", learning.section(run)),
        ("categories", "Categories", drift.section(run)),
        ("scaffolds", "Scaffolds", scaffolds.section(run)),
        ("filter", "Filter", filtering.section(run)),
        ("policy", "Off-policy health", policy.section(run)),
        ("time", "Where the time went", seconds.section(run)),
        ("happened", "What happened", happened.section(run)),
        ("review", "Human review", review.section(run, reader.whole, sample)),
    ]
    links = [tag("a", title, href=f"#{id}") for id, title, _ in parts]
    sections = [tag("section", tag("h2", title), inner, id=id) for id, title, inner in parts]
    live = "1" if stamp else None
    body = tag(
        "body",
        head.header(run),
        tag("nav", *links, aria_label="sections"),
        tag("main", *sections),
        tag("script", Html(SCRIPT)),
        data_run=str(run.folder.resolve()),
        data_live=live,
        data_stamp=stamp,
    )
    return f"<!doctype html>\n{tag('html', _head(run, is_live=bool(stamp)), body, lang='en')}\n"


def write(reader: Reader, out: Path, *, sample: int = review.SAMPLE) -> Run:
    """Make the report of the run as it is now, whole or not at all."""
    run = reader.read()
    partial = out.with_name(f".{out.name}.{os.getpid()}.partial")
    out.parent.mkdir(parents=True, exist_ok=True)
    try:
        partial.write_text(render(reader, run, sample=sample), encoding="utf-8")
        os.replace(partial, out)
    finally:
        partial.unlink(missing_ok=True)
    return run


def _head(run: Run, *, is_live: bool) -> Html:
    """Nothing may run or be loaded but the script and the style that stand here, whatever a policy wrote."""
    rules = [
        "default-src 'none'",
        f"script-src '{_digest(SCRIPT)}'",
        f"style-src '{_digest(LOOK)}'",
        "connect-src 'self'" if is_live else "connect-src 'none'",
        "base-uri 'none'",
        "form-action 'none'",
    ]
    return tag(
        "head",
        tag("meta", charset="utf-8"),
        tag("meta", http_equiv="Content-Security-Policy", content="; ".join(rules)),
        tag("meta", name="viewport", content="width=device-width, initial-scale=1"),
        tag("title", f"{head.name(run)}: ornith run report"),
        tag("style", Html(LOOK)),
    )


def _digest(source: str) -> str:
    return f"sha256-{base64.b64encode(hashlib.sha256(source.encode()).digest()).decode()}"
