"""Pass rates over the batches of training, with intervals. The unit is the group: its episodes share one task."""

from __future__ import annotations

import itertools
import math
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from rollout.ledger import is_valid
from rollout.report.gather import Run
from rollout.report.svg import Series
from rollout.reward import solution_reward
from rollout.statistics import Estimate, Outcomes, mean_over_tasks

Rates = Mapping[int, Sequence[float]]
"""Batch -> the mean reward of each of its groups."""


@dataclass(frozen=True, slots=True)
class Point:
    """Batches `first` to `last` together."""

    first: int
    last: int
    groups: int
    rate: Estimate


def group_rates(run: Run) -> dict[str, dict[int, list[float]]]:
    """Category -> batch -> mean reward of the valid members of each group that was planned for it."""
    members: dict[str, list[float]] = defaultdict(list)
    category: dict[str, str] = {}
    for trajectory in run.trajectories:
        reward = solution_reward(trajectory)
        if trajectory.group_id in run.batch_of and reward is not None and is_valid(trajectory):
            members[trajectory.group_id].append(reward)
            category[trajectory.group_id] = trajectory.category
    found: dict[str, dict[int, list[float]]] = defaultdict(lambda: defaultdict(list))
    for group, rewards in members.items():
        found[category[group]][run.batch_of[group]].append(math.fsum(rewards) / len(rewards))
    return {name: dict(batches) for name, batches in sorted(found.items())}


def together(rates: Mapping[str, Rates]) -> dict[int, list[float]]:
    """All categories as one."""
    found: dict[int, list[float]] = defaultdict(list)
    for batches in rates.values():
        for batch, values in batches.items():
            found[batch] += values
    return dict(found)


def curve(rates: Rates, most: int) -> list[Point]:
    """At most `most` points, each of about as many neighbouring batches as the others."""
    batches = sorted(batch for batch, values in rates.items() if values)
    count = min(most, len(batches))
    edges = [len(batches) * place // count for place in range(count + 1)] if count else []
    cuts = [batches[start:end] for start, end in itertools.pairwise(edges)]
    found = [(cut, [value for batch in cut for value in rates[batch]]) for cut in cuts]
    return [Point(cut[0], cut[-1], len(values), mean_over_tasks(values)) for cut, values in found]


def as_series(points: Sequence[Point], name: str, colour: int = 0) -> Series:
    return Series(
        name=name,
        x=[(point.first + point.last) / 2 for point in points],
        y=[point.rate.value for point in points],
        low=[point.rate.low for point in points],
        high=[point.rate.high for point in points],
        colour=colour,
    )


def trained_outcomes(run: Run, first: int, last: int) -> dict[str, Outcomes]:
    """Category -> task -> (passed, counted) of the groups of some batches: what `rollout.drift` takes."""
    found: dict[str, dict[str, list[int]]] = defaultdict(lambda: defaultdict(lambda: [0, 0]))
    for trajectory in run.trajectories:
        reward = solution_reward(trajectory)
        if first <= run.batch_of.get(trajectory.group_id, -1) <= last and reward is not None and is_valid(trajectory):
            counts = found[trajectory.category][trajectory.task_id]
            counts[0] += int(reward)
            counts[1] += 1
    return {name: dict(tasks) for name, tasks in found.items()}
