"""Groups to samples: who trains, on which tokens, with which advantage, and what is dropped and counted."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace

import numpy as np
import pytest

from ornith_jax.errors import OrnithError
from ornith_jax.experiment import AdvantageSettings, Experiment, LossSettings, TrainSettings
from ornith_jax.rl.samples import make_samples
from rollout.settings import RolloutSettings
from rollout.types import Arm, Group
from tests.ornith_jax.rl.groups import group

EXPERIMENT = Experiment(
    name="t",
    model="tiny-qwen3.5",
    rollout=RolloutSettings(scaffolds_per_task=2, solutions_per_scaffold=2),
    loss=LossSettings(k1=1, k2=4),
    train=TrainSettings(seq_len=64),
)


def test_scaffold_tokens_come_once_per_scaffold_and_solution_tokens_once_per_trajectory():
    """Scaffold 0: one pass, one fail. Scaffold 1: a pass, and a flag that trains on nothing."""
    samples, counts = make_samples([group([["passed", "failed"], ["passed", "flagged"]])], EXPERIMENT, 0)
    found = [(s.token_ids[s.loss_mask].tolist(), s.advantage) for s in samples]
    assert found == [([2, 20], -0.5), ([4, 5, 70], 1.0), ([4, 50, 5, 71], -1.0), ([2, 21], 0.5)]
    assert samples[1].token_ids.tolist() == [3, 30, 4, 60, 5, 70]
    assert samples[1].loss_mask.tolist() == [False, False, True, False, True, True]
    assert counts == {
        "samples/scaffold": 2,
        "tokens/scaffold": 4,
        "samples/solution": 2,
        "tokens/solution": 7,
        "excluded/flagged": 1,
        "excluded/lone_solution": 1,
    }


def test_the_scaffold_of_a_flagged_first_child_still_trains():
    samples, _ = make_samples([group([["flagged", "passed"], ["failed", "failed"]])], EXPERIMENT, 0)
    assert [s.token_ids[s.loss_mask].tolist() for s in samples] == [[2, 20], [2, 21]]
    assert [s.advantage for s in samples] == [1.0, -1.0]


def test_an_infra_child_without_its_turns_takes_nothing_from_the_scaffold():
    """The engine died while it proposed; its sibling's copy of the scaffold is the one that trains."""
    whole = group([["infra", "passed"], ["failed", "failed"]])
    dead = replace(whole.trajectories[0], turns=())
    samples, _ = make_samples([replace(whole, trajectories=(dead, *whole.trajectories[1:]))], EXPERIMENT, 0)
    assert [s.token_ids[s.loss_mask].tolist() for s in samples] == [[2, 20], [2, 21]]


def test_a_bad_scaffold_trains_its_own_tokens_down():
    samples, counts = make_samples([group([["bad_scaffold"], ["passed", "passed"]])], EXPERIMENT, 0)
    assert [(s.token_ids.tolist(), s.advantage) for s in samples] == [([1, 10, 2, 20], -1.0), ([1, 11, 2, 21], 1.0)]
    assert counts["dropped/zero_advantage"] == 2


def test_control_arms_have_no_scaffold_samples():
    samples, _ = make_samples([group([["passed", "failed"], ["failed", "failed"]], arm=Arm.FIXED)], EXPERIMENT, 0)
    assert len(samples) == 4
    assert all(s.token_ids[0] == 3 for s in samples)


def test_what_is_dropped_is_counted_by_reason():
    even, odd = group([["passed", "passed"], ["passed", "passed"]]), group([["passed", "failed"], ["failed", "failed"]])
    samples, counts = make_samples([even], EXPERIMENT, 0)
    assert (samples, counts) == ([], Counter({"dropped/zero_advantage": 6}))
    with_kl = replace(EXPERIMENT, loss=replace(EXPERIMENT.loss, kl=0.1))
    assert len(make_samples([even], with_kl, 0)[0]) == 6
    assert len(make_samples([odd], EXPERIMENT, 4)[0]) == 4
    samples, counts = make_samples([odd], EXPERIMENT, 5)
    assert (samples, counts) == ([], Counter({"dropped/stale": 6}))
    short = replace(EXPERIMENT, train=TrainSettings(seq_len=6))
    samples, counts = make_samples([odd], short, 0)
    assert [len(s.token_ids) for s in samples] == [4, 6, 4]
    assert counts["dropped/too_long"] == 1


def test_a_sample_with_one_token_in_time_is_kept():
    old = group([["passed", "failed"], ["failed", "failed"]], version=0)
    first = old.trajectories[0]
    last = first.turns[-1]
    fresh = replace(last, completion=replace(last.completion, versions=((0, 0), (1, 9))))
    mixed = replace(first, turns=(*first.turns[:-1], fresh))
    samples, counts = make_samples([replace(old, trajectories=(mixed, *old.trajectories[1:]))], EXPERIMENT, 9)
    assert [s.token_versions[s.loss_mask].tolist() for s in samples] == [[0, 0, 9]]
    assert counts["dropped/stale"] == 5


def with_turns(change) -> Group:
    whole = group([["passed", "failed"], ["failed", "failed"]])
    second = whole.trajectories[1]
    changed = replace(second, turns=change(second.turns))
    return replace(whole, trajectories=(whole.trajectories[0], changed, *whole.trajectories[2:]))


@pytest.mark.parametrize(
    ("change", "version", "problem"),
    [
        (
            lambda t: (t[0], t[1], replace(t[2], prompt_ids=(3, 9, 9, 9, 9))),
            0,
            "t@0/0/1: turn 1 .* its prompt departs",
        ),
        (lambda t: (replace(t[0], prompt_ids=(9,)), *t[1:]), 0, "t@0/0/1: its scaffold turns are not those of its sib"),
        (lambda t: t, -1, "t@0/0/0: a token of policy version 0, but the learner is at -1"),
    ],
)
def test_a_broken_trajectory_is_named(change, version, problem):
    with pytest.raises(OrnithError, match=problem):
        make_samples([with_turns(change)], EXPERIMENT, version)


def test_recorded_experts_get_the_shape_of_the_router():
    """Six tokens, five of them read; 2 layers of 3 experts each."""

    def record(turns):
        last = turns[-1]
        rows = len(last.prompt_ids) + len(last.completion.token_ids) - 1
        data = np.arange(rows * 6, dtype="<i4").tobytes()
        return (*turns[:-1], replace(last, completion=replace(last.completion, routed_experts=data)))

    samples, _ = make_samples([with_turns(record)], EXPERIMENT, 0, experts_per_token=3)
    (found,) = [s.routed_experts for s in samples if s.routed_experts is not None]
    assert found.shape == (7, 2, 3)
    assert (found[:3] == -1).all()  # the first turn has no record
    assert found[4].tolist() == [[24, 25, 26], [27, 28, 29]]
    assert (found[6] == -1).all()
    assert all(s.routed_experts is None for s in make_samples([with_turns(record)], EXPERIMENT, 0)[0])


def test_excluding_a_veto_takes_its_tokens_away():
    table = [["passed", "vetoed", "failed"], ["failed", "failed", "failed"]]
    included, _ = make_samples([group(table)], EXPERIMENT, 0)
    excluded, counts = make_samples(
        [group(table)], replace(EXPERIMENT, advantage=AdvantageSettings(vetoed="excluded")), 0
    )
    assert len(included) == len(excluded) + 1
    assert counts["excluded/vetoed"] == 1
