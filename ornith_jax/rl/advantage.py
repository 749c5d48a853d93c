"""Group-relative advantages of one task, nested: N scaffolds, K solutions under each. Host code, float64.

    solution k of scaffold n:  A = R[n, k] - baseline(valid solutions of scaffold n, or of the whole task)
    scaffold n:  A = scaffold_weight (R[n] - baseline(R of all scaffolds)); R[n]: mean of its valid children

The baseline is the mean of the members (GRPO, arXiv 2402.03300) or of all the others (leave one out, arXiv 2402.14740).

Who is a member
  * infra (a verdict, or a stop that is our fault) and flagged trajectories are not: outside mean, std and count, and
    they train on nothing. Removing one changes no other advantage. Vetoed ones are, with reward 0, unless
    `vetoed="excluded"`.
  * The scaffold above a flagged trajectory trains on the mean of its valid children, and not at all if it has none.
  * A scaffold that never parsed (BAD_SCAFFOLD) has reward 0 and no solutions.
  * Fewer than two members: nobody trains, and the reason is counted.
  * K = 1 leaves a solution without siblings under its scaffold: then, and for `siblings="task"`, and in the control
    arms, which write no scaffold, all solutions of the task are siblings.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TypeVar

import numpy as np

from envs.types import Outcome
from ornith_jax.experiment import AdvantageSettings
from rollout.reward import scaffold_reward
from rollout.types import Arm, Group, StopReason, Trajectory

Key = TypeVar("Key")


@dataclass(frozen=True, slots=True)
class Advantages:
    """What is not in a mapping trains on nothing.

    `excluded` counts by reason: flagged, infra and vetoed trajectories; lone_solution, members without a second one;
    lone_scaffold likewise; childless_scaffold, no valid child to take a reward from.
    """

    solutions: Mapping[str, float]  # trajectory id -> A
    scaffolds: Mapping[int, float]  # scaffold index -> A
    excluded: Counter[str]


def group_advantages(group: Group, settings: AdvantageSettings, solutions_per_scaffold: int) -> Advantages:
    """Advantages of every member of `group`. `solutions_per_scaffold` is K as asked for, whatever came back."""
    excluded: Counter[str] = Counter()
    members: list[Trajectory] = []
    for trajectory in group.trajectories:
        reason = exclusion(trajectory, settings)
        if reason:
            excluded[reason] += 1
        else:
            members.append(trajectory)
    solved = [t for t in members if t.stop is not StopReason.BAD_SCAFFOLD]
    whole_task = settings.siblings == "task" or solutions_per_scaffold == 1
    solutions: dict[str, float] = {}
    for siblings in _by_scaffold(solved).values() if not whole_task and _is_self(group) else [solved]:
        rewards = {t.id: t.verdict.reward for t in siblings}
        solutions |= _relative(rewards, settings, excluded, "lone_solution")
    scaffolds: dict[int, float] = {}
    if _is_self(group):
        families = _by_scaffold(members).items()
        mean_rewards = {n: reward for n, family in families if (reward := scaffold_reward(family)) is not None}
        excluded["childless_scaffold"] += len({t.scaffold_index for t in group.trajectories} - mean_rewards.keys())
        scaffolds = _relative(mean_rewards, settings, excluded, "lone_scaffold")
        scaffolds = {n: settings.scaffold_weight * value for n, value in scaffolds.items()}
    return Advantages(solutions, scaffolds, +excluded)


def exclusion(trajectory: Trajectory, settings: AdvantageSettings) -> str:
    """Why a trajectory is outside mean, std and count: infra, flagged or vetoed; "" for a member."""
    outcome = trajectory.verdict.outcome
    if trajectory.stop.is_ours or outcome is Outcome.INFRA:
        return "infra"
    if not trajectory.verdict.trainable:
        return "flagged"
    return "vetoed" if outcome is Outcome.VETOED and settings.vetoed == "excluded" else ""


def relative(rewards: Sequence[float], settings: AdvantageSettings) -> np.ndarray:
    """Advantages of two or more rewards, float64 [n].

    `scale="std"` divides by the population's standard deviation; where that is 0, so is every advantage.
    """
    values = np.asarray(rewards, np.float64)
    count = len(values)
    centred = values - values.mean()
    if settings.baseline == "leave_one_out":
        centred *= count / (count - 1)  # r - (sum - r) / (n - 1)
    if np.ptp(values) == 0:
        return np.zeros(count)  # not the rounding of the mean
    return centred / values.std() if settings.scale == "std" else centred


def _relative(
    rewards: Mapping[Key, float], settings: AdvantageSettings, excluded: Counter[str], lone: str
) -> dict[Key, float]:
    if len(rewards) < 2:
        excluded[lone] += len(rewards)
        return {}
    return dict(zip(rewards, relative(list(rewards.values()), settings).tolist(), strict=True))


def _by_scaffold(trajectories: Sequence[Trajectory]) -> dict[int, list[Trajectory]]:
    found: dict[int, list[Trajectory]] = {}
    for trajectory in trajectories:
        found.setdefault(trajectory.scaffold_index, []).append(trajectory)
    return found


def _is_self(group: Group) -> bool:
    return any(t.arm is Arm.SELF for t in group.trajectories)
