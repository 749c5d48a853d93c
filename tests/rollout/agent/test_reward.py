"""Verdicts to rewards: every outcome, and the mean over the valid children of a scaffold."""

from dataclasses import replace

import pytest

from envs.types import Outcome, Verdict
from rollout.reward import scaffold_reward, solution_reward
from rollout.types import Arm, StopReason, Trajectory

BASE = Trajectory(
    id="g@0/0/0",
    group_id="g@0",
    task_id="g",
    category="c",
    scaffold_index=0,
    solution_index=0,
    arm=Arm.SELF,
    turns=(),
    stop=StopReason.SUBMITTED,
    verdict=Verdict(outcome=Outcome.PASSED),
)


def ended(outcome: Outcome, stop: StopReason = StopReason.SUBMITTED) -> Trajectory:
    return replace(BASE, stop=stop, verdict=Verdict(outcome=outcome))


PASSED, FAILED, FLAGGED, VETOED, INFRA = (ended(outcome) for outcome in Outcome)


@pytest.mark.parametrize(
    ("trajectory", "reward"), [(PASSED, 1.0), (FAILED, 0.0), (FLAGGED, 0.0), (VETOED, 0.0), (INFRA, None)]
)
def test_the_reward_of_a_solution(trajectory, reward):
    assert solution_reward(trajectory) == reward


@pytest.mark.parametrize("stop", [stop for stop in StopReason if stop.is_ours])
def test_a_failure_of_ours_has_no_reward_whatever_its_verdict_says(stop):
    assert solution_reward(ended(Outcome.FAILED, stop)) is None


def test_a_scaffold_is_worth_the_mean_of_its_valid_children():
    assert scaffold_reward([PASSED, FAILED, FAILED, VETOED]) == 0.25
    assert scaffold_reward([PASSED, FAILED]) == scaffold_reward([PASSED, FLAGGED, FAILED, INFRA])
    assert scaffold_reward([FLAGGED, INFRA]) is None
    assert scaffold_reward([]) is None
    assert scaffold_reward([ended(Outcome.FAILED, StopReason.BAD_SCAFFOLD)]) == 0.0
