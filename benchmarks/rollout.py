"""What the driver costs, and what asynchrony gives: `python -m benchmarks.rollout`. Two cores, about a minute.

Overhead: the real agent loop, chat, filter and log over a sandbox that does nothing and a scripted engine that answers
at once; milliseconds per turn of the policy. Utilisation: the real driver and log over simulated episodes of lognormal
lengths on an engine with a fixed number of places; the share of place-seconds in use between the first and the last
update, asynchronous against synchronous (`max_staleness` 0) at equal groups per update. Goals are for lengths that a
time budget of 6 medians cuts (30 minutes, the default, for a median of five). The last rows are without a goal: an
update waits for a group that would be too old for the next one, so a tail that is longer than `max_staleness + 1`
updates (here about 8 medians) costs utilisation. A learner that needs no time is the hard case for the ratio: it
leaves the synchronous engine idle only for the stragglers.
The exit code is 1 when a goal is missed. Run it on an idle machine.
"""

from __future__ import annotations

import asyncio
import math
import os
import random
import sys
import tempfile
import time
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path

from envs.suites import fledgling
from envs.tools import Call
from envs.types import Effects, Episode, ExecResult, ExecStatus, File, Outcome, Task, Tree, Verdict
from rollout.agent.two_stage import TwoStage
from rollout.agent.world import World
from rollout.chat import train_tokenizer
from rollout.chat.chat import load_chat
from rollout.chat.types import Chat, Reply
from rollout.driver import Driver
from rollout.scaffold.library import Library
from rollout.scripted import Say, ScriptedEngine
from rollout.settings import RolloutSettings
from rollout.store.store import Store
from rollout.types import Arm, Completion, Finish, Proposal, Stage, StopReason, Trajectory, Turn

TURNS = 30
OVERHEAD_MS, SHARE, RATIO = 3.0, 0.95, 1.8  # the goals
PLACES, BUDGET = 32, 6.0
CALL = Call("shell", {"command": "cat app/coin.py"})
TEXT = "def span(values):\n    return max(values) - min(values)\n" * 8


class Nothing:
    """A sandbox that does nothing and says the same to every command."""

    def __init__(self) -> None:
        self.turn = 0
        self.alive = True

    async def exec(self, *command: object, **options: object) -> ExecResult:
        return ExecResult(status=ExecStatus.OK, exit_code=0, output=TEXT)

    async def read(self, path: str, *, max_bytes: int = 0) -> bytes:
        return TEXT.encode()

    async def write(self, path: str, data: bytes, *, executable: bool = False) -> None: ...

    async def apply(self, tree: Tree, root: str) -> None: ...

    async def diff(self) -> tuple[Mapping[str, File], tuple[str, ...], tuple[str, ...]]:
        return {}, (), ()

    async def effects(self) -> Effects:
        return Effects()

    async def close(self) -> None: ...


async def open_nothing(image: str, **options: object) -> Nothing:
    return Nothing()


async def grade_nothing(episode: Episode) -> Verdict:
    return Verdict(outcome=Outcome.FAILED)


async def overhead(run: Path, chat: Chat, *, groups: int, at_once: int) -> tuple[float, float]:
    """Milliseconds of (wall, CPU) per turn. Every turn sees 450 bytes, the last one submits."""
    settings = RolloutSettings(
        arm=Arm.FIXED, scaffolds_per_task=1, solutions_per_scaffold=2, groups_in_flight=at_once, max_turns=TURNS
    )
    task = replace(fledgling.make("edge", 1), max_turns=TURNS)
    replies = Reply("", "", (CALL,), ""), Reply("", "", (Call("submit", {}),), "")

    def script(prompt_ids: tuple[int, ...]) -> Say:
        answered = prompt_ids.count(chat.stop_token_ids[0]) // 2 - 1
        return Say(reply=replies[answered == TURNS - 1])

    engine = ScriptedEngine(chat, script)
    world = World(
        engine=engine, chat=chat, open_sandbox=open_nothing, grade=grade_nothing, judge=None, settings=settings
    )
    library = Library(run / "scaffolds")
    tasks = [replace(task, id=f"{task.id}-{n}") for n in range(groups)]
    async with await Store.open(run / "trajectories") as store:
        episodes = TwoStage(world, library)
        async with Driver(
            tasks, store, episodes, settings, seed=0, policy_version=0, limit=groups, bounded=False
        ) as driver:
            wall, cpu, turns = time.perf_counter(), time.process_time(), 0
            async for group in driver.groups():
                turns += sum(len(t.turns) for t in group.trajectories)
                driver.trained([group.id])
            wall, cpu = time.perf_counter() - wall, time.process_time() - cpu
    library.close()
    assert turns == groups * 2 * TURNS, turns
    return 1000 * wall / turns, 1000 * cpu / turns


@dataclass
class Lengths:
    """Simulated episodes: a place of the engine for a lognormal time. `busy_s`: place-seconds used so far."""

    median_s: float
    sigma: float
    budget: float  # medians
    busy_s: float = 0.0

    def __post_init__(self) -> None:
        self._places = asyncio.Semaphore(PLACES)
        self._began: dict[str, float] = {}

    def used(self) -> float:
        now = time.perf_counter()
        return self.busy_s + sum(now - began for began in self._began.values())

    async def propose(self, task: Task, *, group_id: str, scaffold_index: int, admitted_version: int) -> Proposal:
        return Proposal(
            group_id=group_id,
            task_id=task.id,
            category=task.category,
            scaffold_index=scaffold_index,
            arm=Arm.FIXED,
            admitted_version=admitted_version,
        )

    async def solve(self, task: Task, proposal: Proposal, solution_index: int) -> Trajectory:
        id = f"{proposal.id}/{solution_index}"
        async with self._places:
            self._began[id] = time.perf_counter()
            await asyncio.sleep(self.median_s * min(self.budget, random.Random(id).lognormvariate(0, self.sigma)))
            self.busy_s += time.perf_counter() - self._began.pop(id)
        completion = Completion(token_ids=(1,), behavior_logprobs=(0.0,), versions=((0, 0),), finish=Finish.STOP)
        return Trajectory(
            id=id,
            group_id=proposal.group_id,
            task_id=task.id,
            category=task.category,
            scaffold_index=proposal.scaffold_index,
            solution_index=solution_index,
            arm=Arm.FIXED,
            turns=(Turn(stage=Stage.SOLUTION, prompt_ids=(1,), completion=completion),),
            stop=StopReason.SUBMITTED,
            verdict=Verdict(outcome=Outcome.FAILED),
            admitted_version=proposal.admitted_version,
        )


async def utilisation(
    run: Path, *, max_staleness: int, sigma: float, budget: float, updates: int = 10, median_s: float = 0.1
) -> float:
    """The share of the engine's places in use from the first update to the last one. Updates of 4 groups of 8."""
    settings = RolloutSettings(
        scaffolds_per_task=1,
        solutions_per_scaffold=8,
        groups_in_flight=20,
        groups_per_step=4,
        max_staleness=max_staleness,
    )
    episodes = Lengths(median_s, sigma, budget)
    tasks = [replace(fledgling.make("edge", 1), id=f"task-{n}") for n in range(50)]
    async with (
        await Store.open(run / f"{max_staleness}-{sigma}-{budget}") as store,
        Driver(tasks, store, episodes, settings, seed=0, policy_version=0) as driver,
    ):
        groups, since, used = driver.groups(), 0.0, 0.0
        for version in range(1, updates + 2):
            step = [(await anext(groups)).id for _ in range(settings.groups_per_step)]
            driver.trained(step)
            if version == 1:
                since, used = time.perf_counter(), episodes.used()
            await driver.published(version)
        return (episodes.used() - used) / (PLACES * (time.perf_counter() - since))


def main() -> int:
    os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[:2])
    print(f"{os.cpu_count()} cores, load average {os.getloadavg()[0]:.1f} before the run\n")
    missed = []
    with tempfile.TemporaryDirectory() as name:
        run = Path(name)
        train_tokenizer.save(train_tokenizer.train(), run / "tokenizer")
        chat = load_chat(run / "tokenizer", "qwen3_5")
        for at_once, groups in ((1, 8), (16, 32)):
            wall, cpu = asyncio.run(overhead(run / f"o{at_once}", chat, groups=groups, at_once=at_once))
            print(f"{2 * at_once:>3} episodes at once: {wall:.2f} ms per turn, {cpu:.2f} ms of CPU  (< {OVERHEAD_MS})")
            missed += ["overhead"] if wall >= OVERHEAD_MS else []
        print(f"\n{PLACES} places, updates of 4 groups of 8; goals: asynchronous >= {SHARE}, and >= {RATIO}x")
        for sigma, budget in ((0.5, BUDGET), (1.0, BUDGET), (1.0, 8.0), (1.0, math.inf)):
            both = {age: asyncio.run(utilisation(run, max_staleness=age, sigma=sigma, budget=budget)) for age in (0, 4)}
            row = f"synchronous {both[0]:.3f}, asynchronous {both[4]:.3f}, {both[4] / both[0]:.1f}x"
            print(f"sigma {sigma}, at most {budget:g} medians: {row}")
            if budget == BUDGET:
                missed += ["utilisation"] if both[4] < SHARE else []
                missed += ["ratio"] if both[4] < RATIO * both[0] else []
    print("\n" + (f"missed: {', '.join(missed)}" if missed else "every goal is met"))
    return 1 if missed else 0


if __name__ == "__main__":
    sys.exit(main())
