"""Did it learn? The one-sentence result, and pass rates over training and on held-out tasks."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from rollout.errors import RolloutError
from rollout.outcomes import compare
from rollout.report.curves import Point, Rates, as_series, curve, group_rates, together
from rollout.report.gather import Run
from rollout.report.html import Html, join, note, percent, share, table, tag
from rollout.report.svg import Series, figure, legend, lines
from rollout.statistics import Estimate

MOST, LEAST = 40, 4  # points of the curve
GROUPS = 6  # of one point, if there are so many
EDGE = 5  # batches that "at the start" and "at the end" mean
ARMS = ("self", "fixed", "none")


def result(run: Run) -> str:
    """What came out, in one sentence."""
    found = max(arms(run).values(), key=lambda evals: (len(versions(evals)) > 1, len(evals)), default=[])
    if len(versions(found)) > 1:
        return _held_out(found[0], found[-1])
    rates = together(group_rates(run))
    if not rates:
        return f"Nothing was trained yet; {len(run.trajectories):,} episodes have ended."
    start, end = edges(rates)
    if start.last >= end.first:
        return f"Too short to tell: {percent(end.rate.value)} of the training episodes passed so far."
    return (
        f"In training, the mean reward of a group went from {percent(start.rate.value)} (batches {start.first} to "
        f"{start.last}) to {percent(end.rate.value)} (batches {end.first} to {end.last}); held-out tasks were not "
        "evaluated at two versions yet."
    )


def arms(run: Run) -> dict[str, list[Mapping[str, Any]]]:
    """Arm -> its evaluations, by version; those of the project first. Only evaluations of the same tasks are one line:
    where an arm has several sets of tasks, each is called by its first evaluation too."""
    found: dict[tuple[str, frozenset[str]], list[Mapping[str, Any]]] = defaultdict(list)
    for one in run.evals:
        found[str(one["arm"]), frozenset(one["per_task"])].append(one)
    order = {arm: place for place, arm in enumerate(ARMS)}
    ranked = sorted(found, key=lambda key: (order.get(key[0], len(order)), key[0], str(found[key][0].get("name"))))
    sets = Counter(arm for arm, _ in found)
    return {arm if sets[arm] == 1 else f"{arm} ({found[arm, of][0].get('name')})": found[arm, of] for arm, of in ranked}


def versions(evals: Sequence[Mapping[str, Any]]) -> set[int]:
    return {one.get("policy_version") or 0 for one in evals}


def edges(rates: Rates) -> tuple[Point, Point]:
    """The first and the last few batches, each as one point."""
    batches = sorted(rates)
    size = max(1, min(EDGE, len(batches) // 2))
    first, last = ({batch: rates[batch] for batch in part} for part in (batches[:size], batches[-size:]))
    return curve(first, 1)[0], curve(last, 1)[0]


def section(run: Run) -> Html:
    rates = together(group_rates(run))
    groups = sum(len(values) for values in rates.values())
    points = curve(rates, max(LEAST, min(MOST, groups // GROUPS)))
    series = [as_series(points, "training groups")] if points else []
    batches = batch_of_version(run)
    series += [held_out(evals, f"held out, arm {arm}", batches) for arm, evals in arms(run).items()]
    series = [replace(one, colour=place) for place, one in enumerate(series)]
    if not series:
        return note("No batch was trained and nothing was evaluated yet.")
    names = [one.name for one in series]
    chart = lines(series, name="Pass rate over batches", x_label="batch", shown=share, y_range=(0, 1))
    numbers = join(_training_table(points), _eval_table(run))
    return join(
        figure("Pass rate", legend(names), chart, numbers=numbers),
        note(
            "Training: mean reward of a group, averaged over groups; the band is a 95 % bootstrap over groups, because "
            "the episodes of a group share one task. Held out: pass@1 at the batch that made the version, with a 95 % "
            "bootstrap over tasks. Flagged and infrastructure failures are outside the training mean."
        ),
    )


def held_out(evals: Sequence[Mapping[str, Any]], name: str, batches: Mapping[int, int], category: str = "") -> Series:
    """pass@1 with its interval, of everything or of one category, at the batch that made the version."""
    found = []
    for one in evals:
        value = estimate(one["by_category"].get(category) if category else one["pass@1"])
        version = one.get("policy_version") or 0
        if value is not None:
            found.append((batches.get(version, version), value))
    return Series(
        name=name,
        x=[x for x, _ in found],
        y=[value.value for _, value in found],
        low=[value.low for _, value in found],
        high=[value.high for _, value in found],
        marks=True,
    )


def estimate(found: Mapping[str, Any] | None) -> Estimate | None:
    return None if found is None else Estimate(found["value"], found["low"], found["high"])


def batch_of_version(run: Run) -> dict[int, int]:
    """Policy version -> the first batch after which it was there. Differs from the version by skipped updates."""
    found: dict[int, int] = {}
    for line in run.metrics:
        if isinstance(line.get("step"), int) and isinstance(line.get("batch"), int):
            found.setdefault(line["step"], line["batch"])
    return found


def with_interval(value: Estimate | None) -> str:
    """31.0 % [22.1, 41.0]"""
    if value is None:
        return "–"
    return f"{percent(value.value)} [{100 * value.low:.1f}, {100 * value.high:.1f}]"


def points(change: Estimate) -> str:
    """+37.0 [+25.1, +48.9], in points of percent"""
    return f"{100 * change.value:+.1f} [{100 * change.low:+.1f}, {100 * change.high:+.1f}]"


def _held_out(before: Mapping[str, Any], after: Mapping[str, Any]) -> str:
    start, end = estimate(before["pass@1"]), estimate(after["pass@1"])
    try:
        _, tasks, change = compare(before, after)[0]
    except (RolloutError, KeyError):
        return f"Of held-out tasks {with_interval(start)} passed before, {with_interval(end)} of others after."
    moved = "rose" if change.low > 0 else "fell" if change.high < 0 else "did not clearly change: it went"
    return (
        f"The held-out pass rate (arm {after['arm']}) {moved} from {with_interval(start)} at version "
        f"{before['policy_version']} to {with_interval(end)} at version {after['policy_version']}: "
        f"{points(change)} points, paired over {tasks} tasks."
    )


def _training_table(points: Sequence[Point]) -> Html | None:
    if not points:
        return None
    rows = [(f"{p.first} to {p.last}", p.groups, with_interval(p.rate)) for p in points]
    return table(["batches", "groups", "mean reward"], rows, "In training")


def _eval_table(run: Run) -> Html | None:
    if not run.evals:
        return None
    best = max((name for one in run.evals for name in one if name.startswith("pass@")), key=lambda k: int(k[5:]))
    rows = [
        (
            tag("code", str(one.get("name"))),
            one.get("arm"),
            one.get("policy_version"),
            one.get("tasks"),
            one.get("samples"),
            with_interval(estimate(one["pass@1"])),
            with_interval(estimate(one.get(best))),
        )
        for one in run.evals
    ]
    return table(["evaluation", "arm", "version", "tasks", "samples", "pass@1", best], rows, "Held out")
