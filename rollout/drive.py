"""The driver's side of a run: groups into plans of batches, new versions into the engines, until the learner is done.

    plan n ─► progress n ─► sync the engines (in flight, checked) ─► the groups of batch n are done with ─► plan n + 1

What a plan names is trained on once and for ever (`rollout.run_dir`). A batch that made no version (no sample, or a
skipped update) gives its places back: its groups are dropped as "no_update". Killed at any moment and started again,
it goes on from the plans, the progress and the log.
"""

from __future__ import annotations

import asyncio
import contextlib
import functools
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TypeVar

from envs.types import Task
from rollout.chat.types import Chat
from rollout.collect import staged
from rollout.driver import Driver
from rollout.engine import Engine
from rollout.errors import EngineError, RolloutError
from rollout.group import Episodes
from rollout.ledger import Admission
from rollout.published import version_folder
from rollout.run_dir import BatchPlan, Events, Progress, plans, read_json, read_plan, read_progress, write_plan
from rollout.settings import RolloutSettings, SamplingSettings
from rollout.store.position import Position
from rollout.store.store import Store
from rollout.telling import PROCESS, counts, telling

POLL_S = 0.05  # between two looks at progress.json
CHECK_S = 1.0  # between two looks at whether the run can go on
RETRY_S = 0.5  # between two attempts to update the engines
SYNC_S = 1800.0  # for a version to be in the engines
SILENT_S = 3600.0  # a learner that has neither progress nor a heartbeat for so long is gone

T = TypeVar("T")


async def drive(
    run: Path,
    tasks: Sequence[Task],
    engine: Engine,
    chat: Chat,
    settings: RolloutSettings,
    sampling: SamplingSettings,
    *,
    seed: int,
    steps: int,
    check: Callable[[], None] = lambda: None,
) -> None:
    """Run until the learner has finished `steps` batches.

    Args:
        engine: without weights, or with some; it is brought to the newest version before anything is admitted.
        check: raises when the run cannot go on; asked about every second.
    Raises:
        RolloutError, EngineError, OSError: what ended the run; the same call goes on from there.
    """
    async with staged(run, engine, chat, settings, sampling, seed) as (episodes, opener):
        await drive_episodes(
            run,
            tasks,
            engine,
            replace(episodes, by_version=True),
            settings,
            seed=seed,
            steps=steps,
            check=check,
            sandboxes=lambda: opener.in_use,
        )


async def drive_episodes(
    run: Path,
    tasks: Sequence[Task],
    engine: Engine,
    episodes: Episodes,
    settings: RolloutSettings,
    *,
    seed: int,
    steps: int,
    check: Callable[[], None] = lambda: None,
    sandboxes: Callable[[], int] = lambda: 0,
) -> None:
    """`drive` with episodes of any kind; `sandboxes` says how many are in use."""
    events = Events(run, PROCESS)
    events.add("started")
    progress = await _changed(run, lambda found: True, "the learner", check)
    await _sync(run, engine, progress.policy_version, events)
    async with (
        await Store.open(run / "trajectories") as store,
        _driver(run, progress, tasks, store, episodes, settings, seed, engine) as driver,
        telling(run, driver, sandboxes, events),
    ):
        loop = _Loop(run, engine, driver, settings.groups_per_step, steps, events, check, progress)
        try:
            await loop.run()
        finally:
            events.add("stopped", batch=loop.progress.batch, **counts(driver))


async def first_version(run: Path) -> Path:
    """A published version that is ready, once there is one. Raises RolloutError when no learner shows up."""
    progress = await _changed(run, lambda found: True, "the first version of the weights", lambda: None)
    return version_folder(run / "weights", progress.policy_version)


class _Loop:
    """`progress` is what the driver and the engines have followed."""

    def __init__(
        self,
        run: Path,
        engine: Engine,
        driver: Driver,
        groups_per_step: int,
        steps: int,
        events: Events,
        check: Callable[[], None],
        progress: Progress,
    ) -> None:
        self._run, self._engine, self._driver, self._events = run, engine, driver, events
        self._groups_per_step, self._steps, self._check = groups_per_step, steps, check
        self._ready = driver.admissions()
        self.progress = progress

    async def run(self) -> None:
        while not (self.progress.is_finished and self.progress.batch >= self._steps):
            batch = self.progress.batch + 1
            if batch > self._steps:
                self.progress = await _changed(self._run, lambda found: found.is_finished, "the end", self._check)
                continue
            plan = read_plan(self._run, batch) or await self._plan(batch)
            trained = functools.partial(_reached, batch)
            await self._follow(plan, await _changed(self._run, trained, f"batch {batch}", self._check))

    async def _plan(self, batch: int) -> BatchPlan:
        """Put the next batch together, and commit to it."""
        chosen: list[Admission] = []
        while len(chosen) < self._groups_per_step:
            chosen.append(await _checked(anext(self._ready), self._check))
        chosen.sort(key=lambda admission: admission.number)
        version = self._driver.policy_version
        plan = BatchPlan(batch=batch, groups=tuple(a.group_id for a in chosen), policy_version=version)
        await asyncio.to_thread(write_plan, self._run, plan)
        self._events.add("planned", batch=batch, staleness=[version - a.admitted_version for a in chosen])
        return plan

    async def _follow(self, plan: BatchPlan, progress: Progress) -> None:
        """The plan was trained on."""
        if progress.policy_version > plan.policy_version:
            await _sync(self._run, self._engine, progress.policy_version, self._events)
            self._driver.trained(plan.groups)
            await self._driver.published(progress.policy_version)
        else:
            await _give_back(self._driver, plan)
        self.progress = progress


@contextlib.asynccontextmanager
async def _driver(
    run: Path,
    progress: Progress,
    tasks: Sequence[Task],
    store: Store,
    episodes: Episodes,
    settings: RolloutSettings,
    seed: int,
    engine: Engine,
) -> AsyncIterator[Driver]:
    """A driver that knows which groups were trained on, and which the learner holds."""
    planned = await asyncio.to_thread(lambda: list(plans(run)))
    done, held = planned[: progress.batch], planned[progress.batch :]
    numbers = [store.index.read("admitted", id)["number"] for plan in done for id in plan.groups]
    driver = Driver(
        tasks,
        store,
        episodes,
        settings,
        seed=seed,
        policy_version=progress.policy_version,
        position=Position().plus(numbers),
        handed=[id for plan in held for id in plan.groups],
        health=engine.health,
    )
    async with driver:
        after = [plan.policy_version for plan in done[1:]] + [progress.policy_version]
        for plan, version in zip(done, after, strict=False):
            if version == plan.policy_version:
                await _give_back(driver, plan)
        yield driver


async def _give_back(driver: Driver, plan: BatchPlan) -> None:
    for id in plan.groups:
        await driver.drop(id, "no_update")


async def _sync(run: Path, engine: Engine, policy_version: int, events: Events) -> None:
    """Bring the engines to the version. Tries again while they come back from the dead, SYNC_S at most."""
    began = time.monotonic()
    while engine.policy_version != policy_version:
        try:
            pause_s = await engine.update_weights(version_folder(run / "weights", policy_version), policy_version)
        except EngineError as error:
            events.add("sync_failed", policy_version=policy_version, error=str(error))
            if time.monotonic() - began > SYNC_S:
                raise
            await asyncio.sleep(RETRY_S)
        else:
            events.add("synced", policy_version=policy_version, load_s=time.monotonic() - began, pause_s=pause_s)


async def _changed(run: Path, is_it: Callable[[Progress], bool], what: str, check: Callable[[], None]) -> Progress:
    """The learner's progress, once it `is_it`. Raises RolloutError when nothing has been heard of it for SILENT_S."""
    heard, silent_since = None, time.monotonic()
    while True:
        found = await asyncio.to_thread(read_progress, run)
        if found is not None and is_it(found):
            return found
        sign = (found, await asyncio.to_thread(read_json, run / "heartbeats" / "learner.json"))
        if sign != heard:
            heard, silent_since = sign, time.monotonic()
        if time.monotonic() - silent_since > SILENT_S:
            raise RolloutError(f"{run}: no sign of the learner for {SILENT_S:.0f} s while waiting for {what}")
        check()
        await asyncio.sleep(POLL_S)


def _reached(batch: int, progress: Progress) -> bool:
    return progress.batch >= batch


async def _checked(awaitable: Awaitable[T], check: Callable[[], None]) -> T:
    """Wait for it, but not in a run that cannot go on."""
    task = asyncio.ensure_future(awaitable)
    try:
        while not (await asyncio.wait([task], timeout=CHECK_S))[0]:
            check()
        return task.result()
    finally:
        task.cancel()
