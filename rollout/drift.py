"""Does a category fall while the mean rises? The trend of every category over the evaluations of a run. Pure.

With 20 tasks of 4 samples in a category only falls of about 20 points can be told from chance; what is said of smaller
categories leans on the others (`statistics.pooled`).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from rollout.statistics import Estimate, Outcomes, difference, fall_p_value, mean_pass_at_k, pooled, q_values

FALL = 0.10  # of pass@1: a smaller fall is no alarm
Q = 0.10  # the share of false alarms among those of one evaluation

Evaluation = Mapping[str, Outcomes]
"""Category -> outcomes of its tasks, of one evaluation."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Trend:
    """One category over all evaluations, oldest first. The fall is from the first or from the category's best one."""

    category: str
    rates: tuple[Estimate, ...]  # pass@1
    pooled: tuple[float, ...]  # the same, drawn towards the other categories
    since: int  # the evaluation from which the last one fell; its number from 0
    change: Estimate  # paired, since then
    mean_change: Estimate  # of all tasks, since then
    q: float  # of such a fall, among all categories
    alarm: str = ""  # why somebody should look; empty: nothing

    @property
    def is_hidden(self) -> bool:
        """An alarm that the mean does not show: the category falls while the mean rises."""
        return bool(self.alarm) and self.mean_change.value > 0


def drift(evaluations: Sequence[Evaluation]) -> list[Trend]:
    """The trends of the categories that are in all evaluations. Fewer than two evaluations have none.

    Alarm: a fall of 10 points or more since the first evaluation or since the category's best one, with q < 0.10
    (Benjamini and Hochberg over categories; the best is the highest of many, so its p-value is multiplied by their
    number); or the pooled rate down in each of the last two evaluations, by 10 points together.
    """
    counted = [{name for name in found if any(n for _, n in found[name].values())} for found in evaluations]
    names = sorted(set.intersection(*counted)) if counted else []
    if len(evaluations) < 2 or not names:
        return []
    smooth = [pooled({name: found[name] for name in names}) for found in evaluations]
    falls = [_fall([found[name] for found in evaluations]) for name in names]
    found = zip(names, falls, q_values([p for _, p in falls]), strict=True)
    return [_trend(evaluations, name, [rates[name] for rates in smooth], since, q) for name, (since, _), q in found]


def _fall(outcomes: Sequence[Outcomes]) -> tuple[int, float]:
    """(the evaluation that the last one is compared with, the p-value of the fall): the clearer of first and best."""
    earlier, last = outcomes[:-1], outcomes[-1]
    first = fall_p_value(earlier[0], last)
    if len(earlier) == 1:
        return 0, first
    best = max(range(len(earlier)), key=lambda i: _rate(earlier[i]).value)
    from_best = min(1.0, len(earlier) * fall_p_value(earlier[best], last))
    p, since = min((first, 0), (from_best, best))
    return since, min(1.0, 2 * p)


def _trend(evaluations: Sequence[Evaluation], name: str, smooth: Sequence[float], since: int, q: float) -> Trend:
    change = difference(evaluations[since][name], evaluations[-1][name])
    mean_change = difference(_all(evaluations[since]), _all(evaluations[-1]))
    alarm = ""
    if q < Q and change.value <= -FALL + 1e-9:
        alarm = f"{-100 * change.value:.0f} points below evaluation {since} (q = {q:.2g})"
    elif len(smooth) > 2 and smooth[-3] > smooth[-2] > smooth[-1] and smooth[-3] - smooth[-1] >= FALL - 1e-9:
        alarm = f"down twice in a row, {100 * (smooth[-3] - smooth[-1]):.0f} points together"
    return Trend(
        category=name,
        rates=tuple(_rate(found[name]) for found in evaluations),
        pooled=tuple(smooth),
        since=since,
        change=change,
        mean_change=mean_change,
        q=q,
        alarm=alarm,
    )


def _rate(outcomes: Outcomes) -> Estimate:
    found = mean_pass_at_k(outcomes, 1)
    assert found is not None
    return found


def _all(evaluation: Evaluation) -> Outcomes:
    return {task: found for outcomes in evaluation.values() for task, found in outcomes.items()}
