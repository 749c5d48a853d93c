"""Intervals, pass@k, paired differences and many tests at once, each against a slow and obvious count."""

import itertools
import math
from statistics import NormalDist

import numpy as np
import pytest
from scipy import stats

from rollout.errors import RolloutError
from rollout.statistics import (
    Estimate,
    difference,
    fall_p_value,
    mean_over_tasks,
    mean_pass_at_k,
    pass_at_k,
    pooled,
    q_values,
    wilson,
)


def ends(estimate: Estimate) -> tuple[float, float, float]:
    return (estimate.value, estimate.low, estimate.high)


@pytest.mark.parametrize(
    ("passed", "n", "level"), [(9, 10, 0.95), (0, 10, 0.95), (10, 10, 0.9), (1, 3, 0.99), (2.5, 5, 0.9)]
)
def test_wilsons_ends_are_the_rates_that_the_data_would_only_just_not_reject(passed, n, level):
    """The score test of a rate p rejects when |passed/n - p| > z sqrt(p (1-p) / n): try every p."""
    z, grid = NormalDist().inv_cdf((1 + level) / 2), np.linspace(0, 1, 200_001)
    kept = grid[np.abs(passed / n - grid) <= z * np.sqrt(grid * (1 - grid) / n)]
    assert ends(wilson(passed, n, level)) == pytest.approx((passed / n, kept.min(), kept.max()), abs=1e-5)


def test_wilson_by_hand():
    assert ends(wilson(9, 10)) == pytest.approx((0.9, 0.5958, 0.9821), abs=1e-4)
    assert ends(wilson(0, 10)) == pytest.approx((0, 0, 0.2775), abs=1e-4)
    assert all(wilson(0, n).low == 0 and wilson(n, n).high == 1 for n in range(1, 50)), "beyond by rounding"
    nothing = wilson(0, 0)
    assert (nothing.low, nothing.high) == (0, 1)
    assert math.isnan(nothing.value)
    with pytest.raises(RolloutError, match="3 passed of 2"):
        wilson(3, 2)


def test_pass_at_k_is_the_share_of_all_choices_of_k_samples_with_a_pass():
    for n in range(1, 7):
        for c, k in itertools.product(range(n + 1), range(1, n + 1)):
            choices = list(itertools.combinations([True] * c + [False] * (n - c), k))
            assert pass_at_k(n, c, k) == pytest.approx(sum(map(any, choices)) / len(choices)), (n, c, k)
    assert pass_at_k(4, 1, 2) == 0.5
    assert pass_at_k(10_000, 5_000, 1) == pytest.approx(0.5)
    assert 0.999 < pass_at_k(10_000, 100, 1_000) < 1
    for bad in ((2, 3, 1), (2, 1, 3), (2, 1, 0)):
        with pytest.raises(RolloutError):
            pass_at_k(*bad)


def all_resamples(values: list[float], level: float = 0.95) -> tuple[float, float]:
    """The ends, from every way to draw the values anew, and Student's quantile from scipy."""
    n = len(values)
    tail = stats.norm.cdf(-math.sqrt(n / (n - 1)) * stats.t.ppf((1 + level) / 2, n - 1))
    means = [sum(drawn) / n for drawn in itertools.product(values, repeat=n)]
    return tuple(np.quantile(means, [tail, 1 - tail], method="inverted_cdf"))


def test_the_bootstrap_is_that_of_all_ways_to_draw_the_tasks_anew():
    values = [0.0, 0.2, 0.5, 0.6, 0.8, 1.0]
    for level in (0.5, 0.8, 0.95):
        assert ends(mean_over_tasks(values, level))[1:] == pytest.approx(all_resamples(values, level), abs=0.02)
    assert mean_over_tasks(values).value == pytest.approx(3.1 / 6)
    assert mean_over_tasks(values) == mean_over_tasks(values), "drawn differently in another call"
    assert mean_over_tasks(values, 0.5).low > mean_over_tasks(values).low + 0.1


def test_tasks_that_all_pass_do_not_make_certainty():
    assert mean_over_tasks([1.0] * 10) == wilson(10, 10)
    assert mean_over_tasks([0.5] * 4) == wilson(2, 4)
    assert mean_over_tasks([0.0]).high > 0.7


def test_a_mean_over_tasks_weighs_tasks_and_leaves_out_those_with_too_few_samples():
    outcomes = {"a": (1, 4), "b": (4, 4), "c": (1, 1), "d": (0, 0)}
    at_1, at_2 = mean_pass_at_k(outcomes, 1), mean_pass_at_k(outcomes, 2)
    assert at_1 is not None
    assert at_2 is not None
    assert (at_1.value, at_2.value) == pytest.approx(((0.25 + 1 + 1) / 3, (0.5 + 1) / 2))
    assert mean_pass_at_k(outcomes, 5) is None


@pytest.mark.parametrize(("tasks", "at_least"), [(5, 0.9), (10, 0.91), (20, 0.91)])
def test_few_tasks_are_covered_too(tasks, at_least):
    """4 samples of each, rates uniform over [0, 1]. Plain percentiles: 90 % with 5 tasks."""
    rng, held, runs = np.random.default_rng(5), 0, 150
    for _ in range(runs):
        passed = rng.binomial(4, rng.uniform(0, 1, tasks))
        found = mean_pass_at_k({str(i): (int(c), 4) for i, c in enumerate(passed)}, 1)
        assert found is not None
        held += found.low <= 0.5 <= found.high
    assert held / runs >= at_least


@pytest.mark.parametrize("seed", [0, 1])
def test_whole_tasks_are_drawn_because_their_samples_are_not_independent(seed):
    """30 tasks of 8 samples, half of them near 0 and half near 1: the interval over tasks holds the true rate about
    as often as it says; Wilson's over all samples, as if they were independent, far less often."""
    rng, held, naive, runs = np.random.default_rng(seed), 0, 0, 120
    for _ in range(runs):
        passed = rng.binomial(8, rng.beta(0.2, 0.2, 30))
        found = mean_pass_at_k({str(i): (int(c), 8) for i, c in enumerate(passed)}, 1)
        assert found is not None
        held += found.low <= 0.5 <= found.high
        all_samples = wilson(int(passed.sum()), 240)
        naive += all_samples.low <= 0.5 <= all_samples.high
    assert held / runs > 0.88
    assert naive / runs < 0.75


BEFORE = {"a": (1, 4), "b": (2, 4), "c": (4, 4), "only before": (4, 4), "lost": (0, 0)}
AFTER = {"a": (3, 4), "b": (2, 2), "c": (3, 4), "only after": (0, 4), "lost": (1, 1)}


def test_a_difference_is_paired_by_task():
    """a +0.5, b +0.5, c -0.25: mean 0.25. The other tasks have samples on one side only."""
    low, high = all_resamples([0.5, 0.5, -0.25])
    assert ends(difference(BEFORE, AFTER)) == pytest.approx((0.25, low, high), abs=1e-9)
    assert difference(BEFORE, BEFORE) == Estimate(0, 0, 0)
    with pytest.raises(RolloutError, match="evaluate the same tasks"):
        difference({"a": (1, 1)}, {"b": (1, 1)})


def test_pairing_finds_what_two_separate_intervals_hide():
    rng = np.random.default_rng(0)
    hard = rng.uniform(0, 0.9, 60)
    before = {str(i): (round(100 * p), 100) for i, p in enumerate(hard)}
    after = {str(i): (round(100 * (p + 0.08)), 100) for i, p in enumerate(hard)}
    one, other = mean_pass_at_k(before, 1), mean_pass_at_k(after, 1)
    assert one is not None
    assert other is not None
    assert one.high > other.low, "the intervals overlap"
    assert difference(before, after).low > 0.07


def test_the_p_value_of_a_fall_counts_all_signs():
    changes = {"a": -0.5, "b": -0.25, "c": 0.25, "d": -1.0}
    before = {task: (4, 4) if change < 0 else (0, 4) for task, change in changes.items()}
    after = {task: (round(4 * (before[task][0] / 4 + change)), 4) for task, change in changes.items()}
    flips = [
        sum(s * c for s, c in zip(signs, changes.values(), strict=True))
        for signs in itertools.product((1, -1), repeat=4)
    ]
    assert fall_p_value(before, after) == sum(flip <= sum(changes.values()) for flip in flips) / 16 == 3 / 16
    assert fall_p_value(before, before) == 1
    assert fall_p_value(after, before) == 15 / 16, "a rise is no fall"


def test_many_tasks_are_sampled_instead_and_come_to_the_same():
    rng = np.random.default_rng(3)
    before = {str(i): (int(rng.integers(2, 5)), 4) for i in range(14)}
    after = {str(i): (int(rng.integers(1, 4)), 4) for i in range(14)}
    changes = np.array([(after[i][0] - before[i][0]) / 4 for i in before])
    signs = np.array(list(itertools.product((1, -1), repeat=14)))
    exact = (signs @ changes <= changes.sum() + 1e-12).mean()
    assert 0.001 < exact < 0.2
    assert fall_p_value(before, after) == pytest.approx(exact, rel=0.2, abs=0.003)


def test_q_values_reject_what_the_step_up_procedure_rejects():
    rng = np.random.default_rng(1)
    for p_values in ([0.01, 0.02, 0.03, 0.5], [0.04, 0.05, 0.9], [0.2], rng.uniform(0, 0.3, 9).tolist()):
        found = q_values(p_values)
        for level in np.linspace(0.005, 1, 200):
            ranked = sorted(p_values)
            passing = [
                rank for rank in range(1, len(ranked) + 1) if ranked[rank - 1] <= level * rank / len(ranked) + 1e-12
            ]
            threshold = ranked[max(passing) - 1] if passing else -1
            assert [q <= level + 1e-12 for q in found] == [p <= threshold for p in p_values], (p_values, level)
    assert q_values([0.01, 0.02, 0.03, 0.5]) == pytest.approx([0.04, 0.04, 0.04, 0.5])


def tasks_of(rate: float, count: int) -> dict[str, tuple[int, int]]:
    return {f"{rate}/{i}": (int(i < rate * count), 1) for i in range(count)}


def test_small_categories_are_drawn_to_the_mean_and_large_ones_keep_their_rate():
    """Two of 100 tasks at 0.9 and 0.1, one of 10 at 0.9: mean 109/210; the spread is nearly all real."""
    found = pooled({"high": tasks_of(0.9, 100), "low": tasks_of(0.1, 100), "small": tasks_of(0.9, 10)})
    mean = 109 / 210
    noise = mean * (1 - mean) * (0.01 + 0.01 + 0.1) / 3
    strength = mean * (1 - mean) / (np.var([0.9, 0.1, 0.9], ddof=1) - noise) - 1
    assert found == pytest.approx(
        {
            name: (passed + strength * mean) / (n + strength)
            for name, passed, n in (("high", 90, 100), ("low", 10, 100), ("small", 9, 10))
        }
    )
    assert mean < found["small"] < found["high"] < 0.9


def test_a_spread_that_chance_gives_is_no_spread():
    assert pooled({"a": tasks_of(0.6, 5), "b": tasks_of(0.4, 5)}) == {"a": 0.5, "b": 0.5}
    assert pooled({"alone": tasks_of(0.75, 4)}) == {"alone": 0.75}
