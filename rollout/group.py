"""One group: N proposals, K solutions under each, all at once; what a log already holds is not done again.

Whatever goes wrong in an episode becomes a record with its cause. Only the store itself can fail a group.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Iterable
from typing import Protocol

from envs.errors import JudgeError, SandboxError, classify
from envs.types import Outcome, Task, Verdict
from rollout.errors import EngineError, RolloutError
from rollout.ledger import Admission
from rollout.settings import RolloutSettings
from rollout.store.store import Store
from rollout.types import Group, Proposal, StopReason, Trajectory

CANCEL_S = 30.0  # an episode that does not end so long after it was told to is left behind
log = logging.getLogger(__name__)


class Episodes(Protocol):
    """The two stages of an episode (`rollout.agent`, or a simulation)."""

    async def propose(self, task: Task, *, group_id: str, scaffold_index: int, admitted_version: int) -> Proposal:
        """The scaffold that K solutions share."""
        ...

    async def solve(self, task: Task, proposal: Proposal, solution_index: int) -> Trajectory:
        """One solution, verified and judged; or what became of a proposal without a valid scaffold."""
        ...


async def run_group(
    admission: Admission,
    task: Task,
    store: Store,
    episodes: Episodes,
    settings: RolloutSettings,
    note: Callable[[Trajectory], None],
) -> list[Trajectory]:
    """All trajectories of the group, durable. Those that took longer than `group_s` are recorded as CANCELLED.

    `note` is told of each one that was written now. Cancelling the call cancels the episodes and records nothing.
    Raises `OSError` when the store cannot write.
    """
    run = _Run(admission, task, store, episodes, settings, note)
    branches = [asyncio.create_task(run.branch(index)) for index in range(admission.scaffolds)]
    try:
        await asyncio.wait(branches, timeout=settings.group_s)
    finally:
        await end(branches)
    for branch in branches:
        if branch.done() and not branch.cancelled():
            branch.result()
    await run.cancel_rest()
    return [run.found[id] for id in sorted(run.found)]


async def read_group(admission: Admission, category: str, store: Store) -> tuple[Group, list[str]]:
    """(a group that has ended, what could not be read of it) from the log: what is seen is what is durable."""
    members, problems = [], []
    for place in range(admission.scaffolds * admission.solutions):
        id = f"{admission.group_id}/{place // admission.solutions}/{place % admission.solutions}"
        if store.has("trajectory", id):
            try:
                members.append(await store.read("trajectory", id, Trajectory))
            except RolloutError as error:
                problems.append(str(error))
    group = Group(id=admission.group_id, task_id=admission.task_id, category=category, trajectories=tuple(members))
    return group, problems


class _Run:
    def __init__(
        self,
        admission: Admission,
        task: Task,
        store: Store,
        episodes: Episodes,
        settings: RolloutSettings,
        note: Callable[[Trajectory], None],
    ) -> None:
        self.found: dict[str, Trajectory] = {}
        self._admission, self._task, self._store = admission, task, store
        self._episodes, self._settings, self._note = episodes, settings, note
        self._proposals: dict[int, Proposal] = {}

    async def branch(self, index: int) -> None:
        """One scaffold and the solutions under it."""
        proposal = await self._propose(index)
        async with asyncio.TaskGroup() as solutions:
            for number in range(self._members(proposal)):
                solutions.create_task(self._solve(proposal, number))

    async def cancel_rest(self) -> None:
        """A record for every episode that has none."""
        for index in range(self._admission.scaffolds):
            proposal = self._proposals.get(index) or self._no_proposal(index, StopReason.CANCELLED, "straggler")
            for number in range(self._members(proposal)):
                if f"{proposal.id}/{number}" not in self.found:
                    await self._keep(proposal, number, failed(proposal, number, StopReason.CANCELLED, "straggler"))

    def _members(self, proposal: Proposal) -> int:
        """A proposal that ended without a scaffold is one record; the others have K solutions."""
        return self._admission.solutions if proposal.stop is None else 1

    async def _propose(self, index: int) -> Proposal:
        id = f"{self._admission.group_id}/{index}"
        if self._store.has("proposal", id):
            proposal = await self._store.read("proposal", id, Proposal)
        else:
            try:
                proposal = await self._episodes.propose(
                    self._task,
                    group_id=self._admission.group_id,
                    scaffold_index=index,
                    admitted_version=self._admission.admitted_version,
                )
            except Exception as error:
                proposal = self._no_proposal(index, stop_of(error), cause_of(error))
            await self._store.append("proposal", id, proposal)
        self._proposals[index] = proposal
        return proposal

    async def _solve(self, proposal: Proposal, number: int) -> None:
        id = f"{proposal.id}/{number}"
        if self._store.has("trajectory", id):
            self.found[id] = await self._store.read("trajectory", id, Trajectory)
            return
        try:
            if proposal.stop is not None and proposal.stop.is_ours:
                trajectory = failed(proposal, number, proposal.stop, proposal.cause)
            else:
                trajectory = await self._episodes.solve(self._task, proposal, number)
        except Exception as error:
            trajectory = failed(proposal, number, stop_of(error), cause_of(error))
        await self._keep(proposal, number, trajectory)

    async def _keep(self, proposal: Proposal, number: int, trajectory: Trajectory) -> None:
        id = f"{proposal.id}/{number}"
        assert trajectory.id == id, f"{trajectory.id} is not {id}"
        if await self._store.append("trajectory", id, trajectory):
            self.found[id] = trajectory
            self._note(trajectory)
        else:  # a restart, or it was written while it was being cancelled
            self.found[id] = await self._store.read("trajectory", id, Trajectory)

    def _no_proposal(self, index: int, stop: StopReason, cause: str) -> Proposal:
        return Proposal(
            group_id=self._admission.group_id,
            task_id=self._task.id,
            category=self._task.category,
            scaffold_index=index,
            arm=self._settings.arm,
            stop=stop,
            cause=cause,
            admitted_version=self._admission.admitted_version,
        )


def failed(proposal: Proposal, number: int, stop: StopReason, cause: str) -> Trajectory:
    """The record of an episode that our side did not bring to an end."""
    return Trajectory(
        id=f"{proposal.id}/{number}",
        group_id=proposal.group_id,
        task_id=proposal.task_id,
        category=proposal.category,
        scaffold_index=proposal.scaffold_index,
        solution_index=number,
        arm=proposal.arm,
        turns=proposal.turns,
        scaffold_id=proposal.scaffold_id,
        scaffold_parent=proposal.scaffold_parent,
        scaffold=proposal.scaffold,
        stop=stop,
        verdict=Verdict(outcome=Outcome.INFRA, cause=cause),
        messages=proposal.messages,
        admitted_version=proposal.admitted_version,
        metrics=proposal.metrics,
    )


def stop_of(error: Exception) -> StopReason:
    """Whose failure it was. What is neither the engine's nor the world's counts against the task."""
    if isinstance(error, EngineError):
        return StopReason.ENGINE_ERROR
    if isinstance(error, SandboxError | JudgeError | OSError):
        return StopReason.SANDBOX_ERROR
    return StopReason.TASK_ERROR


def cause_of(error: Exception) -> str:
    """The counting word. A programming error is also told in full, with its trace."""
    if isinstance(error, EngineError):
        return error.cause
    cause = classify(error)
    if cause == type(error).__name__:
        log.error("an episode broke in our own code", exc_info=error)
    return cause


async def end(tasks: Iterable[asyncio.Task]) -> None:
    """Cancel what still runs and wait for it, a bounded time."""
    running = [task for task in tasks if not task.done()]
    for task in running:
        task.cancel()
    if running:
        _, stuck = await asyncio.wait(running, timeout=CANCEL_S)
        if stuck:
            log.error("%d episodes did not end within %.0f s of being cancelled", len(stuck), CANCEL_S)


def raise_failure(tasks: Iterable[asyncio.Task]) -> None:
    """Raise what ended one of them, if anything did."""
    for task in tasks:
        if task.done() and not task.cancelled() and (error := task.exception()) is not None:
            while isinstance(error, BaseExceptionGroup):
                error = error.exceptions[0]
            raise error
