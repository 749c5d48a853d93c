"""The first stage: one scaffold for a task, which K solutions then share."""

from __future__ import annotations

import time

from envs.types import Task
from rollout.agent.conversation import Conversation
from rollout.agent.ended import Ended
from rollout.agent.world import World
from rollout.chat.types import Observation
from rollout.errors import EngineError, ScaffoldError
from rollout.scaffold.defaults import default_scaffold
from rollout.scaffold.document import Bounds, Scaffold, bounds_of, canonical, scaffold_id
from rollout.scaffold.library import Entry
from rollout.scaffold.parse import parse
from rollout.scaffold.prompt import proposal_prompt, retry_prompt
from rollout.types import Arm, Finish, Proposal, Stage, StopReason


async def propose(
    world: World,
    task: Task,
    previous: Entry | None,
    *,
    group_id: str,
    scaffold_index: int = 0,
    admitted_version: int = 0,
) -> Proposal:
    """The arm's scaffold: written by the policy, the default one, or none. A failure is in `stop` and `cause`."""
    arm, bounds = world.settings.arm, bounds_of(task, world.settings)
    talk = Conversation(world, Stage.SCAFFOLD, f"{group_id}/{scaffold_index}")
    scaffold: Scaffold | None = default_scaffold(bounds) if arm is Arm.FIXED else None
    written, stop, cause = "", None, ""
    if arm is Arm.SELF:
        try:
            written, scaffold = await _write(world, task, bounds, previous, talk)
            stop = None if scaffold else StopReason.BAD_SCAFFOLD
        except EngineError as error:
            stop, cause = StopReason.ENGINE_ERROR, error.cause
        except Ended as ended:
            stop, cause = ended.stop, ended.cause
            if (
                stop is StopReason.MAX_TOKENS
            ):  # no room for another try; or not even for the first, which is not its fault
                stop, cause = (
                    (StopReason.BAD_SCAFFOLD, "") if talk.turns else (StopReason.TASK_ERROR, "prompt_too_long")
                )
    document = canonical(scaffold) if scaffold else ""
    return Proposal(
        group_id=group_id,
        task_id=task.id,
        category=task.category,
        scaffold_index=scaffold_index,
        arm=arm,
        turns=talk.finish(),
        scaffold_id=scaffold_id(document) if document else "",
        scaffold_parent=previous.id if previous and arm is Arm.SELF else "",
        scaffold=document,
        written=written,
        stop=stop,
        cause=cause,
        messages=tuple(talk.messages),
        admitted_version=admitted_version,
        metrics={"scaffold_tokens": talk.written, "scaffold_s": talk.engine_s} if talk.turns else {},
    )


async def _write(
    world: World, task: Task, bounds: Bounds, previous: Entry | None, talk: Conversation
) -> tuple[str, Scaffold | None]:
    """(the last reply, the scaffold in it or None). Every try but the last is answered with its exact error."""
    settings = world.settings
    deadline = time.monotonic() + settings.episode_s
    talk.open(*proposal_prompt(task, bounds, previous))
    for attempt in range(1, settings.scaffold_attempts + 1):
        seconds = min(settings.turn_s, deadline - time.monotonic())
        reply, finish = await talk.ask(settings.scaffold_tokens, seconds)
        if finish is Finish.DEADLINE:
            raise Ended(StopReason.ENGINE_ERROR, "slow")
        try:
            return reply.text, parse(reply.text, bounds)
        except ScaffoldError as error:
            if attempt < settings.scaffold_attempts:
                talk.hear([Observation("user", retry_prompt(str(error)))])
    return reply.text, None
