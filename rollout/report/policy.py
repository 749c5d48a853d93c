"""Off-policy health: how old the tokens were, how far engine and learner are apart, and what a sync costs."""

from __future__ import annotations

import math
import re
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any, TypeGuard

from rollout.report.gather import Run
from rollout.report.html import Html, folded, join, note, number, percent, share, table, tag
from rollout.report.svg import Series, columns, figure, legend, lines

AGE = re.compile(r"staleness/(\d+|beyond)")
CURVES = {  # title: (what it says, keys of metrics)
    "Loss": ("of each update", ("loss",)),
    "Importance ratio": ("learner over engine: mean", ("ratio/mean",)),
    "Largest ratio": ("one token's", ("ratio/max",)),
    "KL engine to learner": (
        "all tokens; fresh: same weights, so numerical mismatch",
        ("kl/engine", "kl/engine_fresh"),
    ),
    "Effective sample size": ("share of tokens that count fully", ("ratio/ess",)),
    "Clipped tokens": ("below and above", ("clip/low", "clip/high")),
    "Entropy": ("nats per token", ("entropy",)),
    "Gradient norm": ("before clipping", ("optim/grad_norm",)),
    "Groups without a signal": ("all their advantages are zero", ("group/no_signal",)),
}
COUNTS = ("samples/", "dropped/", "excluded/")
SYNCED = ("synced", "engine_synced")  # the tier of engines, one engine
SHARES = ("Effective sample size", "Clipped tokens")


def ages(run: Run) -> dict[str, float]:
    """Age in updates -> share of all trained tokens; "beyond": those that counted nothing."""
    weighed: dict[str, float] = {}
    for line in run.metrics:
        for name, value in line.items():
            if (found := AGE.fullmatch(name)) and _is_real(value):
                weighed[found[1]] = weighed.get(found[1], 0.0) + value * _tokens(line)
    total = sum(weighed.values())
    order = sorted(weighed, key=_age)
    oldest = max((_age(age) for age in order if weighed[age]), default=0)
    return {age: weighed[age] / total for age in order if _age(age) <= oldest} if total else {}


def _age(age: str) -> float:
    return math.inf if age == "beyond" else int(age)


def series_of(lines_: Sequence[Mapping[str, Any]], key: str, colour: int = 0) -> Series:
    """A key of the metrics by batch; lines without it, or with null, are no point."""
    found = [(line["batch"], line[key]) for line in lines_ if _is_real(line.get(key)) and _is_real(line.get("batch"))]
    return Series(name=key, x=[x for x, _ in found], y=[y for _, y in found], colour=colour)


def section(run: Run) -> Html:
    charts = [_ages(run), *(_curve(run, title) for title in CURVES), *_syncs(run)]
    shown = [chart for chart in charts if chart is not None]
    if not shown:
        return note("The learner has written no metrics yet.")
    return join(
        note(
            _bound(run),
            "Ratios are of the learner to the weights that wrote the token. The effective sample size is "
            "(sum r)² / (n sum r²): 1 when no token outweighs another.",
        ),
        tag("div", *shown, class_="multiples"),
        _numbers(run),
        _counts(run),
    )


def _bound(run: Run) -> str:
    bound, seen = run.setting("rollout.max_staleness"), series_of(run.metrics, "staleness/max").y
    told = f"Admission bounds the age of a token to {bound} updates. " if bound is not None else ""
    return told + (f"The oldest that was trained on was {number(max(seen))} updates old. " if seen else "")


def _ages(run: Run) -> Html | None:
    found = ages(run)
    if not found:
        return None
    stacks = [(age, {"share": share}) for age, share in found.items()]
    chart = columns(stacks, ["share"], name="Age of trained tokens", x_label="age in updates", shown=share, small=True)
    return figure(
        "Age of trained tokens", chart, numbers=table(["age", "share"], [(a, percent(s)) for a, s in found.items()])
    )


def _curve(run: Run, title: str) -> Html | None:
    says, keys = CURVES[title]
    series = [series_of(run.metrics, key, colour) for colour, key in enumerate(keys)]
    series = [one for one in series if one.x]
    if not series:
        return None
    chart = lines(series, name=title, x_label="batch", shown=share if title in SHARES else number, small=True)
    return figure(title, legend([one.name for one in series]) if len(series) > 1 else None, chart, _small(says))


def _syncs(run: Run) -> list[Html]:
    """Of every version: the largest difference that a canary showed, and the longest pause of generation."""
    shown = []
    for title, key, says in (
        ("Canary", "canary_max_diff", "largest log-probability difference of engine and learner"),
        ("Pause of a sync", "pause_s", "seconds from pause to resume"),
    ):
        found: dict[float, float] = {}
        for event in run.events:
            version, value = event.get("policy_version"), event.get(key)
            if event.get("event") in SYNCED and _is_real(version) and _is_real(value):
                found[version] = max(found.get(version, value), value)
        if found:
            series = Series(name=title, x=sorted(found), y=[found[version] for version in sorted(found)])
            chart = lines([series], name=title, x_label="version", small=True)
            shown.append(figure(title, chart, _small(says)))
    return shown


def _small(words: str) -> Html:
    return tag("p", words, class_="small")


def _numbers(run: Run) -> Html:
    keys = [key for _, found in CURVES.values() for key in found]
    found = [(key, series_of(run.metrics, key).y) for key in keys]
    rows = [
        (tag("code", key), number(y[0]), number(y[-1]), number(sum(y) / len(y)), number(min(y)), number(max(y)))
        for key, y in found
        if y
    ]
    return table(["metric", "first", "last", "mean", "least", "most"], rows) if rows else join()


def _counts(run: Run) -> Html:
    """What became of episodes on their way into the loss."""
    totals: Counter[str] = Counter()
    for line in run.metrics:
        totals.update({key: value for key, value in line.items() if key.startswith(COUNTS) and _is_real(value)})
    rows = [(tag("code", key), number(totals[key])) for key in sorted(totals)]
    return folded("samples made, left out and dropped", table(["what", "over all batches"], rows)) if rows else join()


def _tokens(line: Mapping[str, Any]) -> float:
    tokens = line.get("tokens")
    return tokens if _is_real(tokens) else 1.0


def _is_real(value: Any) -> TypeGuard[float]:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)
