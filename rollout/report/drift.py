"""Category by category: curves, and the alarm when one falls while the mean does not show it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from rollout.drift import FALL, Evaluation, Q, Trend, drift
from rollout.outcomes import by_category
from rollout.report.curves import Point, as_series, curve, group_rates, trained_outcomes
from rollout.report.gather import Run
from rollout.report.html import Html, join, note, share, table, tag
from rollout.report.learning import arms, batch_of_version, held_out, points, with_interval
from rollout.report.svg import Series, figure, legend, lines

MOST = 8  # points of a small curve
LEAST_TASKS = 5  # of a category, drawn both early and late, before its training groups are compared


def alarms(run: Run) -> list[tuple[str, Trend]]:
    """(where, trend) of every category that somebody should look at."""
    return [(where, trend) for where, trends in _all_trends(run) for trend in trends if trend.alarm]


def section(run: Run) -> Html:
    rates = group_rates(run)
    held = {name for one in run.evals for name in one.get("by_category", {})}
    names = sorted(rates.keys() | held)
    if not names:
        return note("No category has a result yet.")
    multiples = [_multiple(run, name, curve(rates.get(name, {}), MOST)) for name in names]
    found = _all_trends(run)
    tables = [_trend_table(where, trends) for where, trends in found]
    if not tables:
        tables = [
            note("No alarm can be given yet: it takes two evaluations of one arm, or tasks drawn early and late.")
        ]
    rule = (
        f"Alarm: a fall of {100 * FALL:.0f} points or more since the first evaluation or since the category's best, "
        f"with q < {Q:g} (one-sided randomization test over tasks, Benjamini and Hochberg over categories); or the "
        f"pooled rate down twice in a row, by {100 * FALL:.0f} points together. With 20 tasks of 4 samples only falls "
        "of about 20 points can be told from chance."
    )
    keys = legend(["training", *(f"held out, {arm}" for arm in arms(run))])
    return join(_verdict(alarms(run)), *tables, note(rule), keys, tag("div", *multiples, class_="multiples"))


def _verdict(found: Sequence[tuple[str, Trend]]) -> Html | None:
    told = [tag("li", tag("b", trend.category), f" ({where}): {trend.alarm}", _hidden(trend)) for where, trend in found]
    return tag("div", tag("strong", "Drift alarm"), tag("ul", *told), class_="alarm", role="alert") if told else None


def _hidden(trend: Trend) -> str:
    return f", while the mean rose by {100 * trend.mean_change.value:.1f} points" if trend.is_hidden else ""


def _all_trends(run: Run) -> list[tuple[str, list[Trend]]]:
    found = [(f"held out, arm {arm}", drift([by_category(one) for one in evals])) for arm, evals in arms(run).items()]
    found.append(("training, first third against last third", drift(_thirds(run))))
    return [(where, trends) for where, trends in found if trends]


def _thirds(run: Run) -> list[Evaluation]:
    """The first and the last third of the batches, on the tasks that were drawn in both."""
    batches = sorted(set(run.batch_of.values()))
    third = len(batches) // 3
    if not third:
        return []
    early = trained_outcomes(run, batches[0], batches[third - 1])
    late = trained_outcomes(run, batches[-third], batches[-1])
    both = {name: early[name].keys() & late[name].keys() for name in early.keys() & late.keys()}
    kept = {name: tasks for name, tasks in both.items() if len(tasks) >= LEAST_TASKS}
    return [
        {name: {task: part[name][task] for task in tasks} for name, tasks in kept.items()} for part in (early, late)
    ]


def _trend_table(where: str, trends: Sequence[Trend]) -> Html:
    rows = [
        (
            trend.category,
            with_interval(trend.rates[0]),
            with_interval(trend.rates[-1]),
            points(trend.change),
            trend.since,
            points(trend.mean_change),
            f"{trend.q:.2g}",
            tag("b", trend.alarm + _hidden(trend)) if trend.alarm else "none",
        )
        for trend in trends
    ]
    heads = ["category", "first", "last", "change", "since", "mean's change", "q", "alarm"]
    return table(heads, rows, f"{where[0].upper()}{where[1:]}")


def _multiple(run: Run, name: str, trained: Sequence[Point]) -> Html:
    series: list[Series] = [as_series(trained, "training")] if trained else []
    batches = batch_of_version(run)
    for place, (arm, evals) in enumerate(arms(run).items(), 1):
        one = held_out(evals, f"held out, {arm}", batches, name)
        series.append(replace(one, colour=place))
    chart = lines(series, name=f"Pass rate of {name}", x_label="batch", shown=share, y_range=(0, 1), small=True)
    rows = [(f"{p.first} to {p.last}", p.groups, with_interval(p.rate)) for p in trained]
    return figure(name, chart, numbers=table(["batches", "groups", "mean reward"], rows))
