"""Groups, their bounds and their failures, over simulated episodes and the real log."""

import asyncio
import os
import random
import time

import pytest
from simulated import Simulation, driving, settings, tasks

from envs.errors import SandboxError, TaskError
from rollout import group as group_module
from rollout.admission import draws
from rollout.driver import Driver
from rollout.engine import Health
from rollout.errors import EngineError, RolloutError
from rollout.store.store import Store
from rollout.types import Group, StopReason, Trajectory

FIRST = next(draws(tasks(5), 0))[1]  # the group that is drawn first of five tasks


def play(coroutine, seconds: float = 30.0):
    """Every test has a deadline."""

    async def bounded():
        async with asyncio.timeout(seconds):
            return await coroutine

    return asyncio.run(bounded())


async def everything(driver: Driver) -> list[Group]:
    """Take all groups as fast as they come, one version for each."""
    found = []
    async for group in driver.groups():
        found.append(group)
        driver.trained([group.id])
        await driver.published(driver.policy_version)
    return found


async def collected(folder, episodes, chosen=None, count: int = 4, limit: int = 8, **options) -> list[Group]:
    """A run without a learner."""
    async with driving(folder, episodes, chosen, count, limit=limit, bounded=False, **options) as driver:
        return await everything(driver)


def stops(groups) -> dict[str, StopReason]:
    return {t.id: t.stop for group in groups for t in group.trajectories}


def test_each_group_has_n_times_k_trajectories_under_shared_scaffolds(tmp_path):
    groups = play(collected(tmp_path, Simulation()))
    assert len({group.id for group in groups}) == 8
    assert {group.id.rpartition("@")[2] for group in groups} == {"0", "1"}, "every task once per round"
    for group in groups:
        assert [t.id for t in group.trajectories] == [f"{group.id}/{i}/{k}" for i in (0, 1) for k in (0, 1)]
        for scaffold in (0, 1):
            assert len({t.scaffold_id for t in group.trajectories if t.scaffold_index == scaffold}) == 1
        assert group.category == "c"


def test_the_order_of_tasks_depends_on_the_seed_and_not_on_how_they_came(tmp_path):
    def first(chosen, seed):
        order = draws(chosen, seed)
        return [next(order)[1] for _ in range(20)]

    assert first(tasks(10), 3) == first(tasks(10)[::-1], 3)
    assert first(tasks(10), 3) != first(tasks(10), 4)
    assert first(tasks(10), 3)[:10] != [id.replace("@1", "@0") for id in first(tasks(10), 3)[10:]]


def test_synchronous_training_is_staleness_zero(tmp_path):
    """Exactly the groups of one update are admitted at each version, and none while they train."""

    async def run():
        episodes = Simulation(lambda id: random.Random(id).uniform(0, 0.01))
        chosen = settings(max_staleness=0, groups_per_step=3)
        async with driving(tmp_path, episodes, chosen, count=5) as driver:
            groups = driver.groups()
            for version in range(1, 5):
                step = [await anext(groups) for _ in range(3)]
                assert {t.admitted_version for g in step for t in g.trajectories} == {version - 1}
                await asyncio.sleep(0.05)
                assert (driver.in_flight, len(episodes.solved)) == (0, 12 * version)
                driver.trained([g.id for g in step])
                episodes.version = version
                await driver.published(version)

    play(run())


@pytest.mark.parametrize("seed", range(6))
def test_the_bounds_hold_under_random_schedules(tmp_path, seed):
    """Random lengths, a learner of random speed that drops some groups; staleness 0 to 3."""
    rng = random.Random(seed)
    staleness, per_step = seed % 4, rng.randrange(1, 4)
    chosen = settings(max_staleness=staleness, groups_per_step=per_step, groups_in_flight=rng.randrange(1, 9))
    seen = []

    async def run():
        episodes = Simulation(lambda id: random.Random(id).lognormvariate(0, 1.5) / 1000)
        async with driving(tmp_path, episodes, chosen, seed=seed, count=7) as driver:
            version, step = 0, []
            async for group in driver.groups():
                assert driver.in_flight <= chosen.groups_in_flight
                age = version - min(t.admitted_version for t in group.trajectories)
                assert 0 <= age <= staleness
                seen.append(age)
                if rng.random() < 0.2:
                    await driver.drop(group.id, "no_signal")
                    continue
                step.append(group.id)
                if len(step) == per_step:
                    await asyncio.sleep(rng.choice((0, 0.01)))
                    driver.trained(step)
                    version, step = version + 1, []
                    episodes.version = version
                    await driver.published(version)
                if version == 12:
                    break
        return driver

    driver = play(run())
    assert driver.tally.staleness.total() == len(seen)
    assert set(driver.tally.dropped) <= {"no_signal"}, "waiting, the driver throws nothing away"
    if staleness:
        assert max(seen) > 0, "nothing was asynchronous"


def test_a_straggler_is_cancelled_and_its_group_keeps_the_others(tmp_path):
    def seconds(id: str) -> float:
        return 60.0 if id.endswith("/0/1") else 0.0

    groups = play(collected(tmp_path, Simulation(seconds), settings(group_s=1.0), limit=2), 10)
    found = stops(groups)
    assert [stop for id, stop in found.items() if id.endswith("/0/1")] == [StopReason.CANCELLED] * 2
    assert sum(stop is StopReason.SUBMITTED for stop in found.values()) == 6
    late = next(t for t in groups[0].trajectories if t.stop is StopReason.CANCELLED)
    assert (late.verdict.outcome, late.verdict.cause, late.verdict.trainable) == ("infra", "straggler", False)


def test_a_proposal_that_hangs_is_one_cancelled_record(tmp_path):
    class Hanging(Simulation):
        async def propose(self, task, *, scaffold_index, **fields):
            if scaffold_index:
                await asyncio.sleep(60)
            return await super().propose(task, scaffold_index=scaffold_index, **fields)

    (group,) = play(collected(tmp_path, Hanging(), settings(group_s=1.0), limit=1), 10)
    assert [(t.id[-3:], t.stop.value) for t in group.trajectories] == [
        ("0/0", "submitted"),
        ("0/1", "submitted"),
        ("1/0", "cancelled"),
    ]


def test_an_episode_that_cannot_be_cancelled_is_left_behind(tmp_path, monkeypatch):
    monkeypatch.setattr(group_module, "CANCEL_S", 0.1)
    release = asyncio.Event()

    class Stubborn(Simulation):
        async def solve(self, task, proposal, solution_index):
            while solution_index and not release.is_set():
                try:
                    await release.wait()
                except asyncio.CancelledError:
                    continue
            return await super().solve(task, proposal, solution_index)

    async def run():
        groups = await collected(tmp_path, Stubborn(), settings(group_s=0.5), limit=1)
        release.set()
        await asyncio.sleep(0.05)
        return groups

    found = stops(play(run(), 10))
    assert sorted(found.values()) == ["cancelled", "cancelled", "submitted", "submitted"]


ERRORS = {
    "0/0": (EngineError("unreachable", "x"), StopReason.ENGINE_ERROR, "unreachable"),
    "0/1": (SandboxError("x", cause="vanished"), StopReason.SANDBOX_ERROR, "vanished"),
    "1/0": (TaskError("x"), StopReason.TASK_ERROR, "task"),
}


def test_failures_are_typed_records_and_never_a_reward_of_zero(tmp_path):
    def fault(id: str) -> None:
        if id[-3:] in ERRORS and id.count("/") == 2:
            raise ERRORS[id[-3:]][0]

    async def run():
        async with driving(tmp_path, Simulation(fault=fault), limit=1, count=1) as driver:
            assert await everything(driver) == []  # one valid member is too few
            assert driver.tally.dropped == {"few_valid": 1}
            assert driver.tally.infra == {"unreachable": 1, "vanished": 1, "task": 1}
        async with await Store.open(tmp_path) as store:
            return [await store.read("trajectory", f"task 0@0/{place}", Trajectory) for place in ERRORS]

    for trajectory, (_, stop, cause) in zip(play(run()), ERRORS.values(), strict=True):
        assert (trajectory.stop, trajectory.verdict.outcome, trajectory.verdict.cause) == (stop, "infra", cause)
        assert not trajectory.verdict.trainable
        assert trajectory.scaffold_id, "the scaffold under which it ran is kept"


def test_one_fifth_of_all_stages_failing_ends_nothing(tmp_path):
    def fault(id: str) -> None:
        rng = random.Random(id)
        if rng.random() < 0.2:
            raise rng.choice([error for error, _, _ in ERRORS.values()] + [ValueError("a bug")])

    async def run():
        episodes = Simulation(fault=fault)
        async with driving(tmp_path, episodes, limit=30, bounded=False, count=10) as driver:
            groups = await everything(driver)
            assert len(groups) + driver.tally.dropped.total() == 30
            assert len(groups) > 15
            assert set(driver.tally.infra) == {"unreachable", "vanished", "task", "ValueError"}

    play(run())


def test_a_task_that_breaks_again_and_again_is_benched_also_after_a_restart(tmp_path):
    def fault(id: str) -> None:
        if id.startswith("task 1@"):
            raise TaskError("no such interpreter")

    async def run(limit: int) -> Driver:
        async with driving(
            tmp_path, Simulation(fault=fault), settings(groups_in_flight=1), count=4, limit=limit, bounded=False
        ) as driver:
            await everything(driver)
            return driver

    driver = play(run(24))
    assert (driver.tally.benched, driver.tally.dropped) == (1, {"infra": 3})
    driver = play(run(40))
    assert driver.tally.dropped == {}, "no group of it was drawn again"
    assert driver.tally.groups == 16


def test_an_outage_benches_nobody_and_slows_the_driver_down(tmp_path, monkeypatch):
    monkeypatch.setattr("rollout.driver.PAUSE_S", (0.01, 0.05))
    down = True

    def fault(id: str) -> None:
        if down:
            raise SandboxError("no space", cause="disk")

    async def run():
        nonlocal down
        episodes = Simulation(fault=fault)
        async with driving(tmp_path, episodes, settings(groups_in_flight=1), count=2) as driver:
            await asyncio.sleep(0.6)
            attempts = driver.tally.groups
            assert 2 <= attempts <= 25, "it tries on, and does not spin"
            assert driver.tally.benched == 0
            down = False
            group = await anext(driver.groups())
            assert len(group.trajectories) == 4

    play(run())


def test_when_every_task_is_benched_the_run_says_so(tmp_path):
    def fault(id: str) -> None:
        if int(id.partition("@")[2].partition("/")[0]) >= 1:
            raise TaskError("broken")

    # in turn one task is good in round 0, and both break from then on: only the first strike of each counts
    assert len(play(collected(tmp_path, Simulation(fault=fault), count=2, limit=8))) == 2

    async def run():
        async with driving(tmp_path / "b", Simulation(), count=1) as driver:
            driver._ledger.strikes["task 0"] = 3
            async for group in driver.groups():
                driver.trained([group.id])

    with pytest.raises(RolloutError, match="all 1 tasks are benched"):
        play(run())


def test_a_busy_or_silent_engine_holds_back_new_groups(tmp_path):
    state = Health(policy_version=0, running=4, waiting=4, capacity=4)

    async def health() -> Health:
        if state is None:
            raise EngineError("unreachable", "no answer")
        return state

    async def run():
        nonlocal state
        async with driving(tmp_path, Simulation(), health=health) as driver:
            await asyncio.sleep(0.1)
            assert driver.tally.episodes == 0
            state = None
            await asyncio.sleep(0.6)
            assert driver.tally.episodes == 0
            state = Health(policy_version=0, running=4, waiting=3, capacity=4)
            await anext(driver.groups())

    play(run())


def test_an_unread_store_holds_back_new_groups(tmp_path):
    async def run():
        async with driving(tmp_path, Simulation()) as driver:
            while driver.tally.groups < (2 + 1) * 2:  # (max_staleness + 1) * groups_per_step
                await asyncio.sleep(0.01)
            await asyncio.sleep(0.2)
            assert driver.tally.groups == (2 + 1) * 2
            assert driver.in_flight == 0

    play(run())


def test_a_new_version_while_groups_are_queued_and_running_blocks_nothing(tmp_path):
    """The schedule in which a lock held over whole episodes dead-locks (a sync asked for with prompts in the queue)."""

    async def run() -> float:
        episodes = Simulation(lambda _: 0.05, places=2)
        async with driving(tmp_path, episodes, count=9) as driver:
            groups = driver.groups()
            for version in range(1, 6):
                step = [await anext(groups), await anext(groups)]
                driver.trained([g.id for g in step])
                began = time.perf_counter()
                await driver.published(version)
                assert time.perf_counter() - began < 0.25
                episodes.version = version

    play(run(), 10)


class Held(Simulation):
    """The group FIRST goes on when `release` is set."""

    def __init__(self) -> None:
        super().__init__()
        self.release = asyncio.Event()

    async def solve(self, task, proposal, solution_index):
        if proposal.group_id == FIRST:
            await self.release.wait()
        return await super().solve(task, proposal, solution_index)


def test_an_update_waits_for_a_group_that_would_be_too_old_for_the_next(tmp_path):
    async def run():
        chosen, episodes, order = settings(max_staleness=2, groups_per_step=2, groups_in_flight=3), Held(), []
        async with driving(tmp_path, episodes, chosen, count=5) as driver:
            groups = driver.groups()
            for version in range(1, 5):
                if version == 3:
                    asyncio.get_running_loop().call_later(0.3, episodes.release.set)
                step = [await anext(groups) for _ in range(2)]
                order.append([group.id for group in step])
                driver.trained(order[-1])
                await driver.published(version)
            assert driver.tally.dropped == {}
        assert [FIRST in step for step in order] == [False, False, True, False]

    play(run(), 10)


def test_a_group_that_is_too_old_all_the_same_is_dropped_and_replaced(tmp_path):
    """Several updates at once, as after a learner's restart at a later version."""

    async def run():
        chosen = settings(max_staleness=1, groups_per_step=1, groups_in_flight=2)
        async with driving(tmp_path, Held(), chosen, count=5) as driver:
            groups = driver.groups()
            driver.trained([(await anext(groups)).id])
            await driver.published(3)
            assert driver.tally.dropped["stale"] >= 1
            assert (await anext(groups)).trajectories[0].admitted_version == 3
            assert FIRST not in driver._running

    play(run(), 10)


def test_a_disk_that_is_full_ends_the_run_with_the_error(tmp_path, monkeypatch):
    async def run():
        async with driving(tmp_path, Simulation()) as driver:
            writer, calls = driver._store._writer, 0
            append = writer.append

            def full(lines):
                nonlocal calls
                calls += 1
                if calls > 5:
                    raise OSError(28, "No space left on device")
                return append(lines)

            monkeypatch.setattr(writer, "append", full)
            await everything(driver)

    with pytest.raises(OSError, match="No space left"):
        play(run(), 5)


def test_the_event_loop_is_not_held_up_by_a_slow_disk(tmp_path, monkeypatch):
    lags, fsync = [], os.fsync
    monkeypatch.setattr(os, "fsync", lambda file: (time.sleep(0.4), fsync(file)))

    async def monitor() -> None:
        while True:
            began = time.perf_counter()
            await asyncio.sleep(0.001)
            lags.append(time.perf_counter() - began - 0.001)

    async def run():
        watch = asyncio.create_task(monitor())
        await collected(tmp_path, Simulation(), limit=2)
        watch.cancel()

    play(run())
    assert max(lags) < 0.3


def test_no_task_is_an_error_of_the_user(tmp_path):
    with pytest.raises(RolloutError, match="no task to draw"):
        play(collected(tmp_path, Simulation(), count=0))
