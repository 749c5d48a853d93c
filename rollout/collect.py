"""`ornith rollout`: tasks, an engine and a run directory in; stored trajectories out. No learner."""

from __future__ import annotations

import asyncio
import contextlib
import functools
from collections.abc import AsyncIterator, Sequence
from pathlib import Path

from envs.guard.boundary import Grade, grader
from envs.guard.judge import Judge, open_judge
from envs.guard.judge import Settings as JudgeSettings
from envs.guard.remembered import remembered
from envs.guard.unfiltered import naive_grader
from envs.sandbox.pool import Pool
from envs.types import Task
from rollout.agent.two_stage import TwoStage
from rollout.agent.world import World
from rollout.chat.types import Chat
from rollout.driver import Driver
from rollout.engine import Engine
from rollout.errors import EngineError
from rollout.progress import Tally, show
from rollout.retry import Opener, RetryingEngine
from rollout.scaffold.library import Library
from rollout.settings import RolloutSettings, SamplingSettings
from rollout.store.store import Store

OPEN_ATTEMPTS = 3  # of a sandbox that does not start


@contextlib.asynccontextmanager
async def staged(
    run: Path,
    engine: Engine,
    chat: Chat,
    settings: RolloutSettings,
    sampling: SamplingSettings,
    seed: int,
    grade: Grade | None = None,
    library: Library | None = None,
) -> AsyncIterator[tuple[TwoStage, Opener]]:
    """Everything that episodes need, opened and closed: sandboxes, the judge, the library of `run`/scaffolds.

    `grade` replaces the filter's grading in fresh sandboxes, where no reward is wanted; `library` the run's own.
    """
    async with Pool(warm=settings.warm_sandboxes) as pool:
        opener = Opener(functools.partial(pool.open, backend=settings.sandbox), attempts=OPEN_ATTEMPTS)
        world = World(
            engine=RetryingEngine(engine, attempts=settings.engine_attempts),
            chat=chat,
            open_sandbox=opener,
            grade=grade or remembered(naive_grader(opener) if settings.reward == "naive" else grader(opener)),
            judge=await _judge(settings),
            settings=settings,
            sampling=sampling,
            seed=seed,
        )
        if library is None:
            library = await asyncio.to_thread(Library, run / "scaffolds")
        try:
            yield TwoStage(world, library), opener
        finally:
            await asyncio.to_thread(library.close)


async def collect(
    run: Path,
    tasks: Sequence[Task],
    engine: Engine,
    chat: Chat,
    settings: RolloutSettings,
    sampling: SamplingSettings,
    *,
    seed: int,
    groups: int | None,
    grade: Grade | None = None,
    library: Library | None = None,
) -> Tally:
    """Run `groups` groups in all (None: until interrupted), those of earlier starts included, into `run`/trajectories.

    Raises EngineError when the engine has no weights, RolloutError and OSError when the run cannot go on.
    """
    if engine.policy_version is None:
        raise EngineError("not_ready", "the engine has no confirmed weights; update it first")
    async with (
        staged(run, engine, chat, settings, sampling, seed, grade, library) as (episodes, opener),
        await Store.open(run / "trajectories") as store,
        Driver(
            tasks,
            store,
            episodes,
            settings,
            seed=seed,
            policy_version=engine.policy_version,
            limit=groups,
            bounded=False,
            health=engine.health,
        ) as driver,
    ):

        def line() -> str:
            version = driver.policy_version
            return driver.tally.line(in_flight=driver.in_flight, policy_version=version, sandboxes=opener.in_use)

        telling = asyncio.create_task(show(line))
        try:
            async for group in driver.groups():
                driver.trained([group.id])
                await driver.published(max(driver.policy_version, engine.policy_version or 0))
        finally:
            telling.cancel()
            await asyncio.wait([telling])
        return driver.tally


async def _judge(settings: RolloutSettings) -> Judge | None:
    if settings.judge == "none" or settings.reward == "naive":
        return None
    return await open_judge(JudgeSettings(url=settings.judge, model=settings.judge_model))
