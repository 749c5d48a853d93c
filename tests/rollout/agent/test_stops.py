"""Every way in which an episode can end, by name, with the verdict that belongs to it."""

import asyncio
import json
from collections.abc import Callable
from dataclasses import replace

import pytest
from theatre import CHAT, EXPERT, MISSING, READ, SUBMIT, TASK, Played, document, make_world, play, says

from envs.errors import SandboxError
from envs.sandbox.faulty import FaultyOpener
from envs.sandbox.open import open_sandbox
from envs.tools import Call
from envs.types import Outcome
from rollout.agent.two_stage import TwoStage
from rollout.chat.types import Reply
from rollout.group import run_group
from rollout.ledger import Admission
from rollout.scaffold.library import Library
from rollout.scripted import Say
from rollout.settings import RolloutSettings
from rollout.store.store import Store
from rollout.types import Arm, StopReason

GIVE_UP = document({"error_handling.tool_error.then": "give_up", "error_handling.tool_error.retries": 0})
SLEEP = Call("shell", {"command": "sleep 2"})
SMALL = {"turn_tokens": 40, "arm": Arm.NONE}


async def no_sandbox(*arguments, **named):
    raise SandboxError("no room", cause="start")


# Out of turns right before the expert hands in: the work is done, and yet it is no success.
STOPS: dict[StopReason, tuple[Callable[[], Played], Outcome]] = {
    StopReason.SUBMITTED: (lambda: play(document(), *EXPERT), Outcome.PASSED),
    StopReason.MAX_TURNS: (lambda: play(None, *EXPERT, arm=Arm.NONE, max_turns=len(EXPERT) - 1), Outcome.FAILED),
    StopReason.MAX_TOKENS: (lambda: play(None, *[[READ]] * 9, episode_tokens=100, **SMALL), Outcome.FAILED),
    StopReason.TIMEOUT: (lambda: play(None, [SLEEP], [SUBMIT], arm=Arm.NONE, episode_s=1.0), Outcome.FAILED),
    StopReason.FORMAT_ERROR: (lambda: play(document(), "a", "b", "c", format_errors=3), Outcome.FAILED),
    StopReason.BAD_SCAFFOLD: (lambda: play(["no", "no"], [SUBMIT]), Outcome.FAILED),
    StopReason.GAVE_UP: (lambda: play(GIVE_UP, [MISSING], [SUBMIT]), Outcome.FAILED),
    StopReason.ENGINE_ERROR: (
        lambda: play(document(), [READ], Say(reply="", fail="unreachable"), [SUBMIT]),
        Outcome.INFRA,
    ),
    StopReason.SANDBOX_ERROR: (
        lambda: play(
            None, *[[READ]] * 9, arm=Arm.NONE, opener=FaultyOpener(open_sandbox, rate=1, seed=0, faults=["vanish"])
        ),
        Outcome.INFRA,
    ),
    StopReason.TASK_ERROR: (
        lambda: play(None, [SUBMIT], arm=Arm.NONE, task=replace(TASK, workdir="no/absolute/path")),
        Outcome.INFRA,
    ),
}  # CANCELLED comes from the driver: test_a_straggler_is_cancelled


@pytest.mark.parametrize("stop", STOPS)
def test_an_episode_ends_with_its_reason(stop: StopReason):
    act, outcome = STOPS[stop]
    trajectory = act().trajectory
    assert (trajectory.stop, trajectory.verdict.outcome) == (stop, outcome), trajectory.verdict
    assert trajectory.stop.is_ours == (outcome is Outcome.INFRA)
    assert bool(trajectory.verdict.cause) == (outcome is Outcome.INFRA)


def test_every_reason_is_reached():
    assert set(STOPS) | {StopReason.CANCELLED} == set(StopReason)


def test_a_straggler_is_cancelled_and_the_others_are_kept(tmp_path):
    """The driver's group, the real episode: a solution that hangs is CANCELLED, its sibling has its verdict."""
    answers = iter(says([SUBMIT], Say(reply="", seconds=600)))
    settings = RolloutSettings(arm=Arm.NONE, group_s=8.0)
    stages = TwoStage(make_world(lambda prompt: next(answers), arm=Arm.NONE), Library(tmp_path / "scaffolds"))
    admission = Admission(group_id="g@0", task_id=TASK.id, number=0, admitted_version=0, scaffolds=1, solutions=2)

    async def run():
        async with await Store.open(tmp_path / "trajectories") as store:
            return await run_group(admission, TASK, store, stages, settings, lambda trajectory: None)

    found = asyncio.run(asyncio.wait_for(run(), 100))
    assert sorted(t.stop for t in found) == [StopReason.CANCELLED, StopReason.SUBMITTED]


@pytest.mark.parametrize(
    ("what", "cause"),
    [
        (lambda: play(None, Say(reply="x", seconds=9), arm=Arm.NONE, turn_s=0.2), "slow"),  # one turn takes too long
        (lambda: play(None, Say(reply="x", seconds=9), arm=Arm.NONE, episode_s=0.3), "slow"),  # or all of the time
        (lambda: play([Say(reply="x", seconds=9)], turn_s=0.2), "slow"),
        (lambda: play([Say(reply="x", fail="dead")]), "dead"),
        (lambda: play(None, version=None, arm=Arm.NONE), "not_ready"),
        (lambda: play(None, [SUBMIT], arm=Arm.NONE, opener=no_sandbox), "start"),
        (lambda: play(None, [SUBMIT], arm=Arm.NONE, context_tokens=100), "prompt_too_long"),
        (lambda: play(document(), [SUBMIT], context_tokens=100), "prompt_too_long"),
    ],
)
def test_what_is_ours_is_never_the_policys_fault(what, cause):
    trajectory = what().trajectory
    assert trajectory.stop.is_ours
    assert (trajectory.verdict.outcome, trajectory.verdict.cause) == (Outcome.INFRA, cause)


def test_tokens_of_the_scaffold_count_and_a_reply_that_is_cut_is_not_carried_out():
    long = Reply("", "", (Call("write", {"path": "notes.txt", "content": "word " * 200}),), "")
    played = play(document(), long, [SUBMIT], turn_tokens=60)
    assert any("cut off before its end" in text for text in played.told)
    assert played.trajectory.metrics["format_errors"] == 1
    scaffold = len(CHAT.encode(json.dumps(document())))
    assert play(document(), [READ], episode_tokens=scaffold).trajectory.stop is StopReason.MAX_TOKENS


def test_an_episode_that_is_out_of_context_ends_unless_its_memory_starts_a_new_one():
    """Each result has about 300 tokens; the context has room for a few of them."""
    look = [[Call("shell", {"command": "head -c 600 /dev/urandom | base64"})]] * 6
    room = {"context_tokens": 3500, "turn_tokens": 64}
    full = play(document(), *look, [SUBMIT], **room)
    assert full.trajectory.stop is StopReason.MAX_TOKENS
    memory = {"memory.refresh_turns": 50, "memory.keep_full": 1, "memory.older_chars": 0}
    renewed = play(document(memory), *look, [SUBMIT], **room)
    assert renewed.trajectory.stop is StopReason.SUBMITTED
    assert sum(renewed.forks) >= 1
