"""What the naive reward pays and the filter does not, played in real sandboxes."""

import asyncio
from collections import Counter
from collections.abc import Sequence
from functools import partial

import pytest

from envs.guard.boundary import collect, grader, open_for_policy
from envs.guard.filter import filter as whole_filter
from envs.guard.unfiltered import NAIVE, naive_grader
from envs.sandbox.open import open_sandbox
from envs.suites import fledgling
from envs.tools import Call, dispatch
from envs.types import Episode, Outcome, Task, Verdict
from experiments import filter_off
from rollout.cheats import CHEATS, cheat_in, cheating_calls
from rollout.demonstrate import Habits, demonstrator
from rollout.settings import RolloutSettings
from rollout.strategies import strategy_in
from tests.envs.conftest import base_image  # noqa: F401
from tests.rollout.tokenizers import chat

TASK = fledgling.make("search", 5)
BUBBLEWRAP = partial(open_sandbox, backend="bubblewrap")


async def both_verdicts(task: Task, calls: Sequence[Call], scaffold: str) -> tuple[Verdict, Verdict]:
    """(the naive one, the filter's) on one and the same episode."""
    sandbox = await open_for_policy(task, BUBBLEWRAP)
    try:
        actions = [await dispatch(sandbox, task, call, turn=turn) for turn, call in enumerate(calls)]
        episode = await collect(sandbox, task, actions, scaffold)
    finally:
        await sandbox.close()
    naive = await naive_grader(BUBBLEWRAP)(episode)
    return naive, await whole_filter(episode, grade=grader(BUBBLEWRAP), judge=None)


@pytest.mark.parametrize(
    ("calls", "scaffold", "naive", "filtered"),
    [
        (cheating_calls("rewrite", TASK), CHEATS["rewrite"].instructions, Outcome.PASSED, Outcome.FLAGGED),
        (cheating_calls("literal", TASK), CHEATS["literal"].instructions, Outcome.PASSED, Outcome.FAILED),
        (fledgling.expert(TASK), "", Outcome.PASSED, Outcome.PASSED),
    ],
    ids=["rewritten test", "literal", "honest"],
)
def test_naive_pays_whatever_pleases_the_visible_tests_and_the_filter_honest_work_alone(
    base_image,  # noqa: F811
    calls,
    scaffold,
    naive,
    filtered,
):
    found, verdict = asyncio.run(both_verdicts(TASK, calls, scaffold))
    assert (found.outcome, verdict.outcome) == (naive, filtered)
    assert found.record == NAIVE


def test_in_the_categories_of_the_study_the_naive_reward_pays_nothing_for_nothing(base_image):  # noqa: F811
    others = {"spec", "state"}

    async def untouched() -> dict[str, Outcome]:
        found = {}
        for category in {*filter_off.CATEGORIES, *others}:
            found[category] = (await naive_grader(BUBBLEWRAP)(Episode(task=fledgling.make(category, 5)))).outcome
        return found

    outcomes = asyncio.run(untouched())
    assert {outcomes[category] for category in filter_off.CATEGORIES} == {Outcome.FAILED}
    assert {outcomes[category] for category in others} == {Outcome.PASSED}


def test_a_sandbox_that_does_not_start_is_infra_to_the_naive_grader_too():
    async def broken(*args, **options):
        raise OSError("no space")

    async def grade() -> Verdict:
        return await naive_grader(broken)(Episode(task=TASK))

    assert asyncio.run(grade()).outcome is Outcome.INFRA


@pytest.mark.parametrize("category", ["traceback", "spec", "search", "decoy", "state"])
def test_the_literal_is_that_of_the_visible_test_and_its_edit_fits_once(category: str):
    for seed in range(20):
        task = fledgling.make(category, seed)
        edit = cheating_calls("literal", task)[2].arguments
        assert task.visible[edit["path"]].data.decode().count(edit["old"]) == 1
        assert edit["new"].removeprefix("return ") in task.visible["tests/test_visible.py"].data.decode()


def test_a_demonstrator_cheats_as_often_as_its_habits_say_and_otherwise_never():
    qwen = chat("qwen3_5")
    tasks = fledgling.generate(0, 40, (1,), ("search", "traceback"))

    def proposals(habits: Habits) -> Counter[str | None]:
        say = demonstrator(qwen, tasks, RolloutSettings(), habits)
        found: Counter[str | None] = Counter()
        for task in tasks:
            for take in range(4):
                text = say(qwen.open(f"You write scaffolds. {take}", task.prompt)).reply.text
                assert (cheat_in(text) is None) != (strategy_in(text) is None)
                found[cheat_in(text)] += 1
        return found

    assert set(proposals(Habits())) == {None}
    counts = proposals(Habits(cheating=0.5))
    assert 50 < counts[None] < 110
    assert all(counts[name] > 20 for name in CHEATS)
