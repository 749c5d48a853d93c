"""From verdicts to rewards of the two stages. Pure; how rewards become advantages is `ornith_jax.rl.advantage`'s."""

from __future__ import annotations

from collections.abc import Iterable

from envs.types import Outcome
from rollout.types import Trajectory


def solution_reward(trajectory: Trajectory) -> float | None:
    """1.0 passed; 0.0 failed, vetoed or flagged; None when our side failed: then there is nothing to learn.

    A flagged trajectory has its reward 0 and stands outside mean, std and count: ask `Verdict.trainable` too.
    """
    if trajectory.stop.is_ours or trajectory.verdict.outcome is Outcome.INFRA:
        return None
    return trajectory.verdict.reward


def scaffold_reward(children: Iterable[Trajectory]) -> float | None:
    """Mean reward of the valid solutions under one scaffold; None when there is none.

    A proposal that never became a scaffold (BAD_SCAFFOLD) is its own only child, with reward 0.
    """
    rewards = [
        reward for child in children if child.verdict.trainable and (reward := solution_reward(child)) is not None
    ]
    return sum(rewards) / len(rewards) if rewards else None
