"""The two stages with the library between them: what the driver runs (`rollout.group.Episodes`)."""

from __future__ import annotations

import asyncio
import random
from dataclasses import dataclass

from envs.types import Task
from rollout.agent.propose import propose
from rollout.agent.solve import solve
from rollout.agent.world import World
from rollout.scaffold.library import Library
from rollout.types import Arm, Proposal, Trajectory


@dataclass(frozen=True, slots=True)
class TwoStage:
    """Each proposal starts from a scaffold of the library, and what it became goes on record there.

    `by_version`: a group that was admitted at version v starts from what groups admitted before v have left, and from
    nothing that is written while it runs. What it starts from is then no matter of timing when a learner waits for
    all groups of a version (max_staleness 0).
    """

    world: World
    library: Library
    by_version: bool = False

    async def propose(self, task: Task, *, group_id: str, scaffold_index: int, admitted_version: int) -> Proposal:
        settings, previous = self.world.settings, None
        if settings.arm is Arm.SELF:
            rng = random.Random(self.world.seed_of(f"{group_id}/{scaffold_index}/previous"))
            fresh = rng.random() < settings.fresh_share
            chosen = ("fresh" if fresh else settings.scaffold_selection, settings.selection_temperature, rng)
            before = admitted_version if self.by_version else None
            previous = await asyncio.to_thread(self.library.select, task.id, task.category, *chosen, before)
        proposal = await propose(
            self.world,
            task,
            previous,
            group_id=group_id,
            scaffold_index=scaffold_index,
            admitted_version=admitted_version,
        )
        await asyncio.to_thread(self.library.add, proposal)
        return proposal

    async def solve(self, task: Task, proposal: Proposal, solution_index: int) -> Trajectory:
        trajectory = await solve(self.world, task, proposal, solution_index=solution_index)
        await asyncio.to_thread(self.library.reward, trajectory)
        return trajectory
