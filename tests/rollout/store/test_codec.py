"""Values -> JSON -> the same values, and the size that this takes."""

import dataclasses
import json
import random

import pytest
from stored import completion, trajectory, turns

from envs.types import Outcome, Verdict
from rollout.errors import RolloutError
from rollout.store.codec import from_json, to_json
from rollout.types import Arm, Proposal, Stage, StopReason, Trajectory, Turn


def there_and_back(value):
    return from_json(type(value), json.loads(json.dumps(to_json(value))))


def test_random_trajectories_come_back_equal():
    for seed in range(200):
        first = trajectory(f"täsk {seed}@3/1/2", seed, count=seed % 9)
        again = there_and_back(first)
        assert dataclasses.replace(again, messages=()) == dataclasses.replace(first, messages=())
        assert [dict(m) for m in again.messages] == [dict(m) for m in first.messages]


def test_a_proposal_comes_back_equal():
    proposal = Proposal(
        group_id="t@0",
        task_id="t",
        category="c",
        scaffold_index=1,
        arm=Arm.SELF,
        turns=turns(random.Random(5), 3),
        stop=StopReason.BAD_SCAFFOLD,
        metrics={"attempts": 2.0},
    )
    assert there_and_back(proposal) == proposal
    assert there_and_back(dataclasses.replace(proposal, stop=None)).stop is None


def conversation(count: int, prompt: int = 400) -> tuple[Turn, ...]:
    rng, found, before = random.Random(0), [], ()
    for _ in range(count):
        ids = before + tuple(rng.randrange(250_000) for _ in range(prompt))
        found.append(Turn(stage=Stage.SOLUTION, prompt_ids=ids, completion=completion(rng, 100)))
        before = ids + found[-1].completion.token_ids
    return tuple(found)


def test_the_size_grows_with_the_tokens_and_not_with_the_square_of_the_turns():
    sizes = {}
    for count in (10, 100):
        empty = dataclasses.replace(trajectory("t@0/0/0"), messages=())
        sizes[count] = len(json.dumps(to_json(dataclasses.replace(empty, turns=conversation(count)))))
    tokens = 100 * 500
    assert sizes[100] < 10.5 * sizes[10]
    assert sizes[100] < 6 * tokens, "bytes per token, prompts and completions and their log-probabilities together"


def test_fields_that_came_later_take_their_defaults_and_unknown_ones_are_refused():
    data = to_json(Verdict(outcome=Outcome.PASSED, cause="x"))
    del data["cause"]
    assert from_json(Verdict, data) == Verdict(outcome=Outcome.PASSED)
    with pytest.raises(RolloutError, match=r"here: not a stored Verdict.*'colour'"):
        from_json(Verdict, {**data, "colour": 1}, "here")
    with pytest.raises(RolloutError, match="not a stored Verdict"):
        from_json(Verdict, {**data, "outcome": "won"})
    with pytest.raises(RolloutError, match="not a stored Trajectory"):
        from_json(Trajectory, {"id": "x"})


def test_what_has_no_form_in_json_is_refused_by_name():
    with pytest.raises(RolloutError, match="a set cannot be stored"):
        to_json({"a": {1, 2}})
