"""What a batch of groups was like, before any of it is trained on: rewards, outcomes, advantages, ages."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Sequence

import numpy as np

from ornith_jax.experiment import AdvantageSettings
from ornith_jax.rl.advantage import group_advantages
from rollout.reward import solution_reward
from rollout.types import Group, Trajectory

OUTCOMES = ("passed", "failed", "flagged", "vetoed", "infra")


def group_metrics(
    groups: Sequence[Group], settings: AdvantageSettings, solutions_per_scaffold: int, policy_version: int
) -> dict[str, float]:
    """Numbers of one batch.

    `reward/mean`, `reward/std`, `reward/<category>`: of members that may be trained on; a category or mean without
    any is left out. `reward/<outcome>`: trajectories. `group/no_signal`: groups whose advantages are all zero.
    `advantage/<stage>`: mean size of the advantages that are not zero. `staleness/mean`, `staleness/max`: updates
    between the weights that wrote a token and those that train on it, over all written tokens.
    """
    members = [member for group in groups for member in group.trajectories]
    outcomes = Counter("infra" if member.stop.is_ours else member.verdict.outcome.value for member in members)
    found = {f"reward/{name}": float(outcomes[name]) for name in OUTCOMES}
    found |= {"group/count": float(len(groups)), **_rewards(members)}
    advantages = [group_advantages(group, settings, solutions_per_scaffold) for group in groups]
    by_stage = {
        "solution": [list(found.solutions.values()) for found in advantages],
        "scaffold": [list(found.scaffolds.values()) for found in advantages],
    }
    signal = [any(value for values in pair for value in values) for pair in zip(*by_stage.values(), strict=True)]
    found["group/no_signal"] = float(signal.count(False))
    for stage, values in by_stage.items():
        sizes = [abs(value) for each in values for value in each if value]
        found[f"advantage/{stage}"] = float(np.mean(sizes)) if sizes else 0.0
    return found | _staleness(members, policy_version)


def _rewards(members: Sequence[Trajectory]) -> dict[str, float]:
    by_category: dict[str, list[float]] = defaultdict(list)
    for member in members:
        reward = solution_reward(member)
        if reward is not None and member.verdict.trainable:
            by_category[member.category].append(reward)
    rewards = [reward for same in by_category.values() for reward in same]
    if not rewards:
        return {}
    found = {"reward/mean": float(np.mean(rewards)), "reward/std": float(np.std(rewards))}
    return found | {f"reward/{name}": float(np.mean(same)) for name, same in sorted(by_category.items())}


def _staleness(members: Sequence[Trajectory], policy_version: int) -> dict[str, float]:
    ages: Counter[int] = Counter()
    for member in members:
        for turn in member.turns:
            ends = [*(start for start, _ in turn.completion.versions[1:]), len(turn.completion.token_ids)]
            for (start, version), end in zip(turn.completion.versions, ends, strict=False):
                ages[policy_version - version] += end - start
    if not ages.total():
        return {}
    mean = sum(age * count for age, count in ages.items()) / ages.total()
    return {"staleness/mean": mean, "staleness/max": float(max(ages))}
