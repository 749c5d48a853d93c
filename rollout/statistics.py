"""How sure a measured rate is: intervals, pass@k, paired differences, many tests at once. Pure; numpy only.

Samples of one task are not independent: an easy task passes them all, a hard one none. So wherever several samples of
a task are counted, the task is the unit: intervals come from drawing whole tasks anew (a cluster bootstrap), and they
speak of other tasks of the same kind. Nothing here draws different numbers in another run.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from statistics import NormalDist

import numpy as np

from rollout.errors import RolloutError

Outcomes = Mapping[str, Sequence[int]]
"""Task id -> (samples that passed, samples that count)."""

LEVEL = 0.95
RESAMPLES = 10_000
CHUNK = 500  # resamples drawn at once


@dataclass(frozen=True, slots=True)
class Estimate:
    """A value and the ends of its interval."""

    value: float
    low: float
    high: float


def wilson(passed: float, n: float, level: float = LEVEL) -> Estimate:
    """A rate of `n` independent trials with Wilson's score interval (JASA 22, 1927). Without trials: 0 to 1.

    Example: wilson(9, 10) is 0.9, from 0.596 to 0.982.
    """
    if not 0 <= passed <= n:
        raise RolloutError(f"wilson: {passed} passed of {n}; needs 0 <= passed <= n")
    if n == 0:
        return Estimate(math.nan, 0.0, 1.0)
    z, rate = NormalDist().inv_cdf((1 + level) / 2), passed / n
    middle = (rate + z * z / (2 * n)) / (1 + z * z / n)
    half = z / (1 + z * z / n) * math.sqrt(rate * (1 - rate) / n + (z / (2 * n)) ** 2)
    return Estimate(rate, max(0.0, min(rate, middle - half)), min(1.0, max(rate, middle + half)))


def pass_at_k(n: int, c: int, k: int) -> float:
    """Chance that of `k` samples at least one passes, when `c` of `n` did: 1 - C(n-c, k) / C(n, k), without bias.

    Chen et al. 2021 (arXiv 2107.03374), equation 1, as a product so that nothing overflows.
    Example: pass_at_k(4, 1, 2) is 0.5. Raises RolloutError unless 0 <= c <= n and 1 <= k <= n.
    """
    if not (0 <= c <= n and 1 <= k <= n):
        raise RolloutError(f"pass@{k} of {c} passed in {n}: needs 0 <= passed <= n and 1 <= k <= n")
    return 1.0 - math.prod(1 - k / i for i in range(n - c + 1, n + 1)) if n - c >= k else 1.0


def mean_pass_at_k(outcomes: Outcomes, k: int, level: float = LEVEL) -> Estimate | None:
    """Mean over tasks of pass@k. Tasks with fewer than `k` samples are left out; None when that leaves none."""
    values = [pass_at_k(n, c, k) for c, n in outcomes.values() if n >= k]
    return mean_over_tasks(values, level) if values else None


def mean_over_tasks(values: Sequence[float], level: float = LEVEL) -> Estimate:
    """Mean of one value in [0, 1] per task, with the interval of a bootstrap over tasks.

    Its percentiles are Hesterberg's wider ones (The American Statistician 69, 2015; arXiv 1411.5279): plain ones are
    too narrow where tasks are few. Where all tasks have one value a bootstrap has no width, which would be a lie about
    few tasks: there it is Wilson's interval with each task as one trial.
    """
    if max(values) - min(values) < 1e-12:
        return wilson(min(1.0, max(0.0, values[0])) * len(values), len(values), level)
    return _bootstrap(np.asarray(values), level)


def difference(before: Outcomes, after: Outcomes, level: float = LEVEL) -> Estimate:
    """Mean over tasks of `after` minus `before` in pass@1, paired by task, with a bootstrap over tasks.

    Only tasks with samples on both sides count. Where all of them changed by the same, the ends are the value itself:
    look at the number of tasks. Raises RolloutError when no task is in both.
    """
    return _bootstrap(_changes(before, after), level)


def fall_p_value(before: Outcomes, after: Outcomes) -> float:
    """How often tasks that did not change would show such a fall in pass@1, or a larger one.

    One-sided test by flipping signs: without a change, each task's difference is as likely as its opposite (Fisher's
    randomization test; the share counts the observed signs too: Phipson and Smyth 2010). Exact up to 12 tasks.
    """
    changes = _changes(before, after)
    seen = changes.mean() + 1e-12
    if len(changes) <= 12:
        signs = np.array(list(itertools.product((1, -1), repeat=len(changes))))
        return float((signs @ changes / len(changes) <= seen).mean())
    rng = np.random.default_rng(0)
    drawn = (rng.choice((-1, 1), (CHUNK, len(changes))) for _ in range(RESAMPLES // CHUNK))
    as_low = sum(int((signs @ changes / len(changes) <= seen).sum()) for signs in drawn)
    return (1 + as_low) / (1 + RESAMPLES)


def q_values(p_values: Sequence[float]) -> list[float]:
    """Benjamini and Hochberg's (JRSS B 57, 1995): rejecting all q <= 0.1 makes a tenth of the rejections false."""
    order = sorted(range(len(p_values)), key=lambda i: p_values[i])
    found, smallest = [0.0] * len(p_values), 1.0
    for rank in range(len(order), 0, -1):
        index = order[rank - 1]
        smallest = min(smallest, p_values[index] * len(order) / rank)
        found[index] = smallest
    return found


def pooled(outcomes: Mapping[str, Outcomes]) -> dict[str, float]:
    """The pass@1 of each category, drawn towards that of all of them by as much as it is uncertain.

    Categories as draws from one beta distribution, each task as one trial: (passed + s m) / (tasks + s), with m the
    mean of all tasks and s from the spread between categories beyond the spread of sampling (method of moments).
    """
    rates = {name: np.mean(_rates(found)) for name, found in outcomes.items()}
    sizes = {name: len(_rates(found)) for name, found in outcomes.items()}
    mean = sum(rates[name] * sizes[name] for name in rates) / sum(sizes.values())
    noise = np.mean([mean * (1 - mean) / size for size in sizes.values()])
    between = np.var(list(rates.values()), ddof=1) - noise if len(rates) > 1 else 0.0
    if between <= 0:  # no more spread than chance gives: one rate for all
        return dict.fromkeys(rates, float(mean))
    strength = max(0.0, mean * (1 - mean) / between - 1)
    return {name: float((rates[name] * sizes[name] + strength * mean) / (sizes[name] + strength)) for name in rates}


def _rates(outcomes: Outcomes) -> list[float]:
    return [passed / n for passed, n in outcomes.values() if n]


def _changes(before: Outcomes, after: Outcomes) -> np.ndarray:
    both = sorted(task for task in before.keys() & after.keys() if before[task][1] and after[task][1])
    if not both:
        raise RolloutError("no task has samples in both evaluations; evaluate the same tasks")
    return np.array([after[task][0] / after[task][1] - before[task][0] / before[task][1] for task in both])


def _bootstrap(values: np.ndarray, level: float) -> Estimate:
    """The mean with its interval; `values` are of independent units. One value alone is its own interval."""
    means = np.concatenate([values[drawn].mean(axis=1) for drawn in _resamples(len(values))])
    tail = _tail(len(values), level)
    low, high = np.quantile(means, [tail, 1 - tail])
    return Estimate(float(values.mean()), float(low), float(high))


def _tail(n: int, level: float) -> float:
    """The share of resampled means to leave out at each end: such that n normal values give Student's interval."""
    if n == 1:
        return 0.0
    z, free = NormalDist().inv_cdf((1 + level) / 2), n - 1
    student = z + (z**3 + z) / (4 * free) + (5 * z**5 + 16 * z**3 + 3 * z) / (96 * free**2)  # Abramowitz-Stegun 26.7.5
    return NormalDist().cdf(-math.sqrt(n / free) * student)


def _resamples(n: int) -> Iterator[np.ndarray]:
    """[CHUNK, n] indices, RESAMPLES rows in all; the same in every call."""
    rng = np.random.default_rng(0)
    for _ in range(RESAMPLES // CHUNK):
        yield rng.integers(0, n, (CHUNK, n))
