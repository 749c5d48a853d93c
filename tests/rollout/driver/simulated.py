"""Simulated episodes: they take time, hold places of an engine, write tokens of its version, and fail when told to."""

from __future__ import annotations

import asyncio
import random
import time
import uuid
from collections.abc import Callable
from contextlib import asynccontextmanager
from pathlib import Path

from envs.types import Outcome, Task, Verdict, Verification
from rollout.driver import Driver
from rollout.settings import RolloutSettings
from rollout.store.store import Store
from rollout.types import Arm, Completion, Finish, Proposal, Stage, StopReason, Trajectory, Turn


def tasks(count: int) -> list[Task]:
    return [
        Task(id=f"task {n}", source="simulated", category="c", prompt="p", verification=Verification(kind="pytest"))
        for n in range(count)
    ]


def settings(**fields) -> RolloutSettings:
    small = {
        "scaffolds_per_task": 2,
        "solutions_per_scaffold": 2,
        "groups_in_flight": 6,
        "groups_per_step": 2,
        "max_staleness": 2,
    }
    return RolloutSettings(**{**small, **fields})


class Simulation:
    """Implements `Episodes`. `seconds(id)` of a solution; `fault(id)` may raise, for proposals and solutions."""

    def __init__(
        self,
        seconds: Callable[[str], float] = lambda _: 0.0,
        *,
        places: int = 10_000,
        fault: Callable[[str], None] = lambda _: None,
    ) -> None:
        self.version = 0
        self.busy_s = 0.0
        self.proposed: list[str] = []
        self.solved: list[str] = []
        self.running = 0
        self._seconds, self._fault = seconds, fault
        self._places = asyncio.Semaphore(places)

    async def propose(self, task: Task, *, group_id: str, scaffold_index: int, admitted_version: int) -> Proposal:
        id = f"{group_id}/{scaffold_index}"
        self._fault(id)
        await asyncio.sleep(0)
        self.proposed.append(id)
        return Proposal(
            group_id=group_id,
            task_id=task.id,
            category=task.category,
            scaffold_index=scaffold_index,
            arm=Arm.SELF,
            turns=(self._turn(Stage.SCAFFOLD),),
            scaffold_id=uuid.uuid4().hex,  # a second proposal for the same place would be another one
            scaffold="{}",
            admitted_version=admitted_version,
        )

    async def solve(self, task: Task, proposal: Proposal, solution_index: int) -> Trajectory:
        id = f"{proposal.id}/{solution_index}"
        async with self._places:
            self.running += 1
            began = time.perf_counter()
            try:
                self._fault(id)
                await asyncio.sleep(self._seconds(id))
            finally:
                self.running -= 1
                self.busy_s += time.perf_counter() - began
        self.solved.append(id)
        return Trajectory(
            id=id,
            group_id=proposal.group_id,
            task_id=task.id,
            category=task.category,
            scaffold_index=proposal.scaffold_index,
            solution_index=solution_index,
            arm=Arm.SELF,
            turns=(*proposal.turns, self._turn(Stage.SOLUTION)),
            scaffold_id=proposal.scaffold_id,
            scaffold="{}",
            stop=StopReason.SUBMITTED,
            verdict=Verdict(outcome=random.Random(id).choice((Outcome.PASSED, Outcome.FAILED))),
            admitted_version=proposal.admitted_version,
        )

    def _turn(self, stage: Stage) -> Turn:
        completion = Completion(
            token_ids=(1, 2, 3), behavior_logprobs=(-1.0,) * 3, versions=((0, self.version),), finish=Finish.STOP
        )
        return Turn(stage=stage, prompt_ids=(7, 8), completion=completion)


@asynccontextmanager
async def driving(folder: Path, episodes: Simulation, chosen: RolloutSettings | None = None, count: int = 3, **options):
    """A driver of `count` tasks over the log in `folder`, open for as long as the block."""
    options = {"seed": 0, "policy_version": 0, **options}
    async with (
        await Store.open(folder) as store,
        Driver(tasks(count), store, episodes, chosen or settings(), **options) as driver,
    ):
        yield driver
