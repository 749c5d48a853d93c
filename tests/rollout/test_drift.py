"""The alarm of a category that falls: by hand, and how often it is false or missing in simulated runs."""

import numpy as np
import pytest

from rollout.drift import Evaluation, drift
from rollout.statistics import mean_pass_at_k


def outcomes(category: str, *, tasks: int = 20, passed: float) -> dict[str, tuple[int, int]]:
    """Tasks of 4 samples, `passed` of which pass on average; the first tasks take the rest."""
    whole, rest = divmod(round(passed * 4 * tasks), tasks)
    return {f"{category}/{i}": (whole + (i < rest), 4) for i in range(tasks)}


def evaluation(**rates: float) -> Evaluation:
    return {name: outcomes(name, passed=rate) for name, rate in rates.items()}


def test_a_category_that_falls_while_the_mean_rises_is_an_alarm_and_hidden():
    before, after = evaluation(fix=0.4, edge=0.5, twin=0.9), evaluation(fix=0.8, edge=0.8, twin=0.6)
    trends = {trend.category: trend for trend in drift([before, after])}
    twin = trends["twin"]
    assert twin.alarm.startswith("30 points below evaluation 0")
    assert twin.is_hidden
    assert (twin.since, twin.change.value) == (0, pytest.approx(-0.3))
    assert twin.mean_change.value == pytest.approx((0.4 + 0.3 - 0.3) / 3)
    assert [rate.value for rate in twin.rates] == pytest.approx([0.9, 0.6])
    assert twin.rates[0] == mean_pass_at_k(before["twin"], 1)
    assert [trends[name].alarm for name in ("fix", "edge")] == ["", ""]


def test_when_all_fall_the_alarm_is_not_hidden():
    trends = drift([evaluation(fix=0.9, edge=0.9), evaluation(fix=0.5, edge=0.6)])
    assert all(trend.alarm and not trend.is_hidden for trend in trends)


def test_a_fall_from_the_best_counts_too():
    runs = [evaluation(fix=0.3, edge=0.3), evaluation(fix=0.9, edge=0.5), evaluation(fix=0.4, edge=0.9)]
    fix = next(trend for trend in drift(runs) if trend.category == "fix")
    assert (fix.since, fix.alarm[:9]) == (1, "50 points")


def test_small_falls_are_none_and_two_in_a_row_are():
    steps = [evaluation(fix=0.3, edge=0.8), evaluation(fix=0.3, edge=0.72), evaluation(fix=0.3, edge=0.65)]
    assert [trend.alarm for trend in drift(steps[:2])] == ["", ""]
    edge = {trend.category: trend for trend in drift(steps)}["edge"]
    assert edge.alarm
    assert edge.pooled[0] > edge.pooled[1] > edge.pooled[2]


def test_the_best_of_many_was_lucky():
    """12 tasks of 20 down by a sample, 3 up: p = 0.0176 (12 or more heads of 15). Enough after 2 evaluations, not
    when that one is the best of 9."""
    flat = {"fix": {str(i): (2, 4) for i in range(20)}}
    best = {"fix": {str(i): (3 if i < 12 else 1 if i < 15 else 2, 4) for i in range(20)}}
    [few], [many] = drift([flat, best, flat]), drift([flat, best, *[flat] * 8])
    assert few.q == pytest.approx(2 * 2 * 0.0176, rel=0.2)
    assert few.alarm
    assert many.q == pytest.approx(2 * 9 * 0.0176, rel=0.2)
    assert not many.alarm


def test_what_is_not_in_all_evaluations_has_no_trend():
    assert drift([]) == drift([evaluation(fix=0.5)]) == []
    lost = {"fix": {"fix/0": (0, 0)}, "edge": outcomes("edge", passed=0.5)}
    assert [trend.category for trend in drift([evaluation(fix=0.5, edge=0.5), lost])] == ["edge"]


def simulated(rng: np.random.Generator, evaluations: int, fall: float) -> list[Evaluation]:
    """6 categories of 20 tasks, each with its own rate; 4 samples. c0 falls in the last evaluation."""
    rates = rng.uniform(0, 1, (6, 20))
    runs = []
    for number in range(evaluations):
        now = rates.copy()
        if number == evaluations - 1:
            now[0] = np.clip(now[0] - fall, 0, 1)
        passed = rng.binomial(4, now)
        runs.append({f"c{c}": {f"{c}/{t}": (int(passed[c, t]), 4) for t in range(20)} for c in range(6)})
    return runs


def test_alarms_are_seldom_false_and_large_falls_seldom_missed(monkeypatch):
    monkeypatch.setattr("rollout.statistics.RESAMPLES", 1000)
    rng, runs = np.random.default_rng(0), 30
    false = [bool(trend.alarm) for _ in range(runs) for trend in drift(simulated(rng, 4, fall=0))]
    assert sum(false) / len(false) < 0.04
    seen = [bool(drift(simulated(rng, 4, fall=0.35))[0].alarm) for _ in range(runs)]
    assert sum(seen) / runs > 0.85
