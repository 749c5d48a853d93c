"""The second stage: solve a task under a proposal's scaffold, then verify and filter."""

from __future__ import annotations

import asyncio

from envs.errors import SandboxError, TaskError, classify
from envs.guard.exhibit import diffs
from envs.guard.filter import filter
from envs.types import Episode, Outcome, Task, Verdict
from rollout.agent.attempt import Attempt
from rollout.agent.ended import Ended
from rollout.agent.world import World
from rollout.errors import EngineError
from rollout.types import Proposal, StopReason, Trajectory

DIFF_CHARS = 20_000  # of the diff that is kept for people
DIFF_BYTES = 500_000  # of changed files: comparing larger ones would take long


async def solve(world: World, task: Task, proposal: Proposal, *, solution_index: int = 0) -> Trajectory:
    """One solution with its verdict. A proposal that ended (`stop`) becomes a trajectory of its scaffold turns alone.

    What goes wrong in the engine, a sandbox, the task or the judge is in `stop` and in an INFRA verdict. Cancelling
    closes the sandbox and passes on. `messages` are in the OpenAI form; a context begins at a system message.
    """
    attempt = Attempt(world, task, proposal, f"{proposal.id}/{solution_index}")
    diff = ""
    try:
        if proposal.stop is not None:
            raise Ended(proposal.stop, proposal.cause)
        stop, episodes = await attempt.play()
        diff = await asyncio.to_thread(_diff, episodes[-1])
        verdict = await _verdict(world, stop, episodes)
    except Ended as ended:  # before there was an episode, or by a failure of ours
        stop, verdict = ended.stop, Verdict(outcome=Outcome.INFRA, cause=ended.cause)
        if not stop.is_ours:
            verdict = await _verdict(world, stop, [Episode(task=task, scaffold=proposal.written)])
    except EngineError as error:
        stop, verdict = StopReason.ENGINE_ERROR, Verdict(outcome=Outcome.INFRA, cause=error.cause)
    except TaskError as error:
        stop, verdict = StopReason.TASK_ERROR, Verdict(outcome=Outcome.INFRA, cause=classify(error))
    except (SandboxError, OSError) as error:
        stop, verdict = StopReason.SANDBOX_ERROR, Verdict(outcome=Outcome.INFRA, cause=classify(error))
    return _trajectory(proposal, solution_index, stop, verdict, attempt, diff)


def _trajectory(
    proposal: Proposal, solution_index: int, stop: StopReason, verdict: Verdict, attempt: Attempt, diff: str
) -> Trajectory:
    return Trajectory(
        id=f"{proposal.id}/{solution_index}",
        group_id=proposal.group_id,
        task_id=proposal.task_id,
        category=proposal.category,
        scaffold_index=proposal.scaffold_index,
        solution_index=solution_index,
        arm=proposal.arm,
        turns=proposal.turns + attempt.talk.finish(),
        scaffold_id=proposal.scaffold_id,
        scaffold_parent=proposal.scaffold_parent,
        scaffold=proposal.scaffold,
        stop=stop,
        verdict=verdict,
        messages=(*proposal.messages, *attempt.talk.messages),
        diff=diff,
        admitted_version=proposal.admitted_version,
        metrics={**proposal.metrics, **attempt.metrics(verdict)},
    )


def _diff(episode: Episode) -> str:
    """Product files first, then tests and configuration."""
    size = sum(len(file.data) for file in episode.submission.values())
    if size > DIFF_BYTES:
        return f"({len(episode.submission)} changed files, {size:,} bytes: too large to compare)"
    text = "\n".join(part for part in diffs(episode) if part)
    more = len(text) - DIFF_CHARS
    return f"{text[:DIFF_CHARS]}\n[... {more} more characters]" if more > 0 else text


async def _verdict(world: World, stop: StopReason, episodes: list[Episode]) -> Verdict:
    """The filter's word on the last workspace; only work that was handed in is graded. A violation in any counts."""
    grade = world.grade if stop is StopReason.SUBMITTED else _not_handed_in
    if world.settings.reward == "naive":
        return await grade(episodes[-1])
    for earlier in episodes[:-1]:
        verdict = await filter(earlier, grade=_not_handed_in, judge=None)
        if verdict.outcome is not Outcome.FAILED:
            return verdict
    return await filter(episodes[-1], grade=grade, judge=world.judge)


async def _not_handed_in(episode: Episode) -> Verdict:
    return Verdict(outcome=Outcome.FAILED, record={"grade": "not handed in"})
