"""A study as one page: the table, curves by sampled tokens, training curves by batch, and how it was done."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from experiments.study_results import shown
from rollout.report.html import Html, join, note, number, share, table, tag
from rollout.report.page import LOOK
from rollout.report.svg import Series, figure, legend, lines

BINS = 12  # points of a training curve
HOW = (
    "Rates are pass@1 on held-out tasks that no arm trains on, with the filter on, whatever an arm was trained with; "
    "intervals (95 %) come from drawing whole tasks anew, the tasks of all seeds together. They do not hold the spread "
    "between trainings: the difference of each seed stands beside them. Arms are compared at equal sampled tokens: "
    "each at its newest version that cost no more than the cheapest arm of its seed spent in all. A version costs what "
    "the versions before it sampled in training, of both stages, each proposal once, dropped groups included."
)


def render(found: Mapping[str, Any]) -> str:
    """The HTML of study.json's content. Nothing else is read, and it needs no other file."""
    body = tag(
        "body",
        tag(
            "header",
            tag("p", f"study, seeds {', '.join(map(str, found['seeds'])) or 'none yet'}", class_="kicker"),
            tag("h1", found["study"]),
            tag("p", found["question"], class_="result"),
        ),
        tag("main", *(tag("section", part) for part in _parts(found) if part)),
    )
    head = tag("head", tag("meta", charset="utf-8"), tag("title", found["study"]), tag("style", Html(LOOK)))
    return f"<!doctype html>\n{tag('html', head, body, lang='en')}\n"


def _parts(found: Mapping[str, Any]) -> list[Html]:
    arms = found["arms"]
    if not arms:
        return [note("Nothing has run yet.")]
    names = legend(list(arms))
    parts = [_table(found), note(HOW), figure("Held-out pass rate, filter on", names, _curves(arms, "all"))]
    parts.append(_by_category(arms, names))
    parts += [
        figure(title, names, _training({name: arm[key] for name, arm in arms.items()}, title, form))
        for key, title, form in (
            ("reward", "Mean reward in training, as the arm itself saw it", share),
            ("staleness", "Mean age of the tokens trained on, in updates", number),
            ("ess", "Effective sample size of the ratios", number),
        )
    ]
    for mark in sorted({mark for arm in arms.values() for mark in arm["marks"]}):
        values = {name: arm["marks"].get(mark, {}) for name, arm in arms.items()}
        chart = _training(values, mark, share, x_label="version")
        parts.append(figure(f"Share of training episodes: {mark}", names, chart))
    return parts


def _table(found: Mapping[str, Any]) -> Html:
    base = found["baseline"]
    rows, finer = [], []
    for name, arm in found["arms"].items():
        used = sum(tokens["used"] for tokens in arm["tokens"].values())
        by_seed = ", ".join(f"{100 * value:+.1f}" for value in arm["difference_by_seed"].values())
        rates = [shown(arm[column].get("all")) for column in ("before", "after")]
        changes = [shown(arm[column].get("all"), "+.1f") for column in ("gain", "difference")]
        rows.append([name, number(used), *rates, *changes, by_seed or "-", number(arm["staleness_max"])])
        for category in sorted(arm["after"].keys() - {"all"}):
            rates = [shown(arm[column].get(category)) for column in ("before", "after")]
            changes = [shown(arm[column].get(category), "+.1f") for column in ("gain", "difference")]
            finer.append([category, name, *rates, *changes])
    minus = f"minus {base}"
    heads = ["arm", "tokens used", "before", "after", "gain", minus, "by seed", "oldest token, updates"]
    columns = ["category", "arm", "before", "after", "gain", minus]
    return join(
        table(heads, rows, "At equal sampled tokens, in percent and points"),
        table(columns, sorted(finer), "By category"),
    )


def _curves(arms: Mapping[str, Any], category: str, *, small: bool = False) -> Html:
    """Pass rates with their bands by tokens, one line for each arm."""
    series = []
    for colour, (name, arm) in enumerate(arms.items()):
        known = [(point["tokens"], point["rates"][category]) for point in arm["curve"] if category in point["rates"]]
        series.append(
            Series(
                name=name,
                x=[tokens / 1000 for tokens, _ in known],
                y=[rate["value"] for _, rate in known],
                low=[rate["low"] for _, rate in known],
                high=[rate["high"] for _, rate in known],
                colour=colour,
            )
        )
    label = "thousand tokens sampled in training"
    return lines(series, name=f"pass rate, {category}", x_label=label, shown=share, y_range=(0, 1), small=small)


def _by_category(arms: Mapping[str, Any], names: Html) -> Html:
    known = {name for arm in arms.values() for point in arm["curve"] for name in point["rates"]} - {"all"}
    charts = [figure(category, _curves(arms, category, small=True)) for category in sorted(known)]
    return join(tag("h3", "By category"), names, tag("div", *charts, class_="multiples"))


def _training(
    arms: Mapping[str, Mapping[Any, float]],
    name: str,
    form: Callable[[float | None], str],
    *,
    x_label: str = "batch",
) -> Html:
    series = []
    for colour, (arm, values) in enumerate(arms.items()):
        x, y = binned(values)
        series.append(Series(name=arm, x=x, y=y, colour=colour))
    return lines(series, name=name, x_label=x_label, shown=form, y_range=(0, 1) if form is share else None)


def binned(values: Mapping[Any, float], bins: int = BINS) -> tuple[list[float], list[float]]:
    """Places and means of at most so many runs of neighbours, as even as can be."""
    found = sorted((float(place), value) for place, value in values.items())
    count = min(bins, len(found))
    cuts = [found[len(found) * n // count : len(found) * (n + 1) // count] for n in range(count)]
    return [sum(x for x, _ in cut) / len(cut) for cut in cuts], [sum(y for _, y in cut) / len(cut) for cut in cuts]
