"""Turns to sequences: the exact-prefix law is checked, and every token keeps its own log-probability and version."""

from __future__ import annotations

import random
from dataclasses import replace

import numpy as np
import pytest

from rollout.errors import RolloutError
from rollout.sequence import sequences
from rollout.types import Completion, Finish, Stage, Turn


def turn(prompt, written, *, stage=Stage.SOLUTION, versions=((0, 3),), forked=False, experts=b"") -> Turn:
    logprobs = tuple(-float(i) / 4 for i in written)
    completion = Completion(
        token_ids=tuple(written),
        behavior_logprobs=logprobs,
        versions=versions if written else (),
        finish=Finish.STOP,
        routed_experts=experts,
    )
    return Turn(stage=stage, prompt_ids=tuple(prompt), completion=completion, forked=forked)


def test_two_turns_by_hand():
    """P0 = 1 2, A0 = 3 4 5 (the last under version 4), E1 = 6, A1 = 7."""
    (found,) = sequences([turn([1, 2], [3, 4, 5], versions=((0, 3), (2, 4))), turn([1, 2, 3, 4, 5, 6], [7])])
    assert found.stage is Stage.SOLUTION
    assert found.token_ids.tolist() == [1, 2, 3, 4, 5, 6, 7]
    assert found.loss_mask.tolist() == [False, False, True, True, True, False, True]
    assert found.behavior_logprobs.tolist() == [0, 0, -0.75, -1.0, -1.25, 0, -1.75]
    assert found.token_versions.tolist() == [-1, -1, 3, 3, 4, -1, 3]
    assert found.routed_experts is None
    assert (found.token_ids.dtype, found.behavior_logprobs.dtype) == (np.int32, np.float32)


def test_a_stage_and_a_fork_start_a_sequence_of_their_own():
    turns = [
        turn([1], [2], stage=Stage.SCAFFOLD),
        turn([8], [9]),
        turn([8, 9, 4], [5]),
        turn([8, 7], [6], forked=True),
        turn([8, 7, 6], []),
    ]
    found = sequences(turns)
    assert [(s.stage.value, s.token_ids.tolist()) for s in found] == [
        ("scaffold", [1, 2]),
        ("solution", [8, 9, 4, 5]),
        ("solution", [8, 7, 6]),
    ]
    assert [int(s.loss_mask.sum()) for s in found] == [1, 2, 1]
    assert sequences([]) == ()


def test_random_episodes_lose_and_change_nothing():
    """300 chains with turns that write nothing, observations of nothing, and versions that change anywhere."""
    rng = random.Random(0)
    for _ in range(300):
        ids, turns, wanted = [rng.randrange(9)], [], [(None, None)]
        for _ in range(rng.randint(1, 5)):
            written = [rng.randrange(99) for _ in range(rng.randint(0, 4))]
            starts = [i for i in range(len(written)) if i == 0 or rng.random() < 0.4]
            turns.append(turn(ids, written, versions=tuple((i, 5 + n) for n, i in enumerate(starts))))
            wanted += [(-i / 4, 5 + sum(s <= k for s in starts) - 1) for k, i in enumerate(written)]
            ids = ids + written
            if turns[-1] is not None and len(turns) < 5:
                seen = [rng.randrange(99) for _ in range(rng.randint(0, 2))]
                ids, wanted = ids + seen, wanted + [(None, None)] * len(seen)
        (found,) = sequences(turns)
        length = len(found.token_ids)
        assert found.token_ids.tolist() == ids[:length]
        for t in range(length):
            logprob, version = wanted[t]
            assert found.loss_mask[t] == (version is not None)
            assert found.behavior_logprobs[t] == (logprob or 0.0)
            assert found.token_versions[t] == (-1 if version is None else version)


def test_routed_experts_are_those_of_the_turn_that_wrote_the_token():
    """Rows: tokens read. Turn 1 read [1 2 3] to write 3 4; turn 2 read all again, and counts from token 4 on."""
    first = np.full((3, 2), 10, "<i4")
    second = np.repeat(np.arange(20, 25, dtype="<i4")[:, None], 2, axis=1)
    turns = [turn([1, 2], [3, 4], experts=first.tobytes()), turn([1, 2, 3, 4, 5], [6], experts=second.tobytes())]
    (found,) = sequences(turns)
    assert found.routed_experts.tolist() == [[10, 10]] * 3 + [[23, 23], [24, 24], [-1, -1]]
    (found,) = sequences([turn([1, 2], [3, 4]), turns[1]])
    assert found.routed_experts[:, 0].tolist() == [-1, -1, -1, 23, 24, -1]
    narrow = turn([1, 2, 3, 4, 5], [6], experts=second[:, :1].tobytes())
    with pytest.raises(RolloutError, match="turn 1: routed_experts are 1 wide, in a turn before 2"):
        sequences([turns[0], narrow])
    with pytest.raises(RolloutError, match="turn 0: 7 bytes of routed_experts are no int32 table of 3 rows"):
        sequences([turn([1, 2], [3, 4], experts=b"1234567")])


@pytest.mark.parametrize("prompt", [[1, 2, 3], [1, 2, 9, 4, 5], [2, 2, 3, 4, 5], []])
def test_a_prompt_that_departs_is_refused_and_named(prompt):
    """Also one that is merely shorter, and one that another template rendered again."""
    departed = turn(prompt, [7])
    at = {3: 3, 0: 0}.get(
        len(prompt), next((i for i, (a, b) in enumerate(zip(prompt, [1, 2, 3, 4], strict=False)) if a != b), 0)
    )
    with pytest.raises(RolloutError, match=rf"turn 1 \(solution\): .* of turn 0 at token {at} of 4; append"):
        sequences([turn([1, 2], [3, 4]), departed])
    assert len(sequences([turn([1, 2], [3, 4]), replace(departed, forked=True)])) == 2


@pytest.mark.parametrize(
    ("change", "problem"),
    [
        ({"behavior_logprobs": (-1.0,)}, "turn 0: 2 token ids but 1 behavior_logprobs"),
        ({"behavior_logprobs": (-1.0, float("-inf"))}, "turn 0: behavior_logprobs are not all finite"),
        ({"versions": ()}, r"turn 0: versions \(\) do not divide 2 tokens"),
        ({"versions": ((1, 3),)}, "turn 0: versions .* do not divide"),
        ({"versions": ((0, 3), (0, 4))}, "turn 0: versions .* do not divide"),
        ({"versions": ((0, 3), (2, 4))}, "turn 0: versions .* do not divide"),
    ],
)
def test_a_completion_that_contradicts_itself_is_refused(change, problem):
    good = turn([1], [2, 3])
    with pytest.raises(RolloutError, match=problem):
        sequences([replace(good, completion=replace(good.completion, **change))])
