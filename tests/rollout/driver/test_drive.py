"""The driver's side of a run: plans, versions and progress, with a learner that only counts."""

import asyncio
import random
from pathlib import Path

import pytest
from simulated import Simulation, settings, tasks

from rollout import drive as under_test
from rollout.drive import drive_episodes
from rollout.engine import Health
from rollout.errors import EngineError, RolloutError
from rollout.planned import read_groups
from rollout.run_dir import Progress, plans, read_events, read_plan, read_progress, write_progress
from rollout.store.index import Index

STALENESS, PER_STEP = 2, 3
SETTINGS = settings(groups_in_flight=4, groups_per_step=PER_STEP, max_staleness=STALENESS)


class Versioned:
    """An engine that only knows its version, and tells the simulated episodes."""

    def __init__(self, episodes: Simulation, failures: int = 0) -> None:
        self.policy_version: int | None = None
        self.loaded: list[int] = []
        self._episodes, self._failures = episodes, failures

    async def update_weights(self, path: Path, policy_version: int) -> float:
        if self._failures:
            self._failures -= 1
            raise EngineError("dead", "as told")
        assert path.name == f"v{policy_version:07}"
        self.loaded.append(policy_version)
        self.policy_version = self._episodes.version = policy_version
        return 0.0

    async def health(self) -> Health:
        return Health(policy_version=self.policy_version, running=0, waiting=0, capacity=9)


async def learn(run: Path, steps: int, idle: frozenset[int] = frozenset(), until: int | None = None) -> None:
    """Count through the plans; the batches in `idle` make no version."""
    progress = read_progress(run) or Progress()
    write_progress(run, progress)
    while progress.batch < (steps if until is None else until):
        if (plan := read_plan(run, progress.batch + 1)) is not None:
            assert plan.policy_version == progress.policy_version
            version = progress.policy_version + (plan.batch not in idle)
            progress = Progress(batch=plan.batch, policy_version=version)
            write_progress(run, progress)
        await asyncio.sleep(0.005)
    if progress.batch == steps:
        write_progress(run, Progress(batch=steps, policy_version=progress.policy_version, is_finished=True))


def drive(run: Path, steps: int, *, seconds: float = 0.01, failures: int = 0, **fields):
    episodes = Simulation(lambda id: random.Random(id).uniform(0, seconds))
    engine = Versioned(episodes, failures)
    chosen = fields.pop("settings", SETTINGS)
    return engine, drive_episodes(run, tasks(10), engine, episodes, chosen, seed=0, steps=steps, **fields)


def play(*coroutines):
    async def together():
        async with asyncio.timeout(60):
            await asyncio.gather(*coroutines)

    asyncio.run(together())


def check(run: Path, steps: int, idle: frozenset[int] = frozenset()) -> None:
    """Every group in one plan, every plan whole and in order, no token older than the bound or from the future."""
    found = list(plans(run))
    assert [plan.batch for plan in found] == list(range(1, steps + 1))
    named = [id for plan in found for id in plan.groups]
    assert len(named) == len(set(named)) == steps * PER_STEP
    index, version = Index(run / "trajectories"), 0
    for plan in found:
        assert plan.policy_version == version
        version += plan.batch not in idle
        groups, problems = read_groups(index, plan)
        assert not problems
        assert [group.id for group in groups] == list(plan.groups)
        numbers = [index.read("admitted", group.id)["number"] for group in groups]
        assert numbers == sorted(numbers)
        turns = [turn for group in groups for member in group.trajectories for turn in member.turns]
        ages = {plan.policy_version - version for turn in turns for _, version in turn.completion.versions}
        assert ages <= set(range(STALENESS + 1))
        assert all(len(group.trajectories) == 4 for group in groups)
    assert version == read_progress(run).policy_version


def test_every_group_is_in_one_plan_and_no_token_is_too_old(tmp_path):
    engine, driving = drive(tmp_path, 12)
    play(driving, learn(tmp_path, 12))
    check(tmp_path, 12)
    assert engine.loaded == list(range(13))
    events = [event for event in read_events(tmp_path) if event["process"] == "driver"]
    planned = [event for event in events if event["event"] == "planned"]
    assert [event["batch"] for event in planned] == list(range(1, 13))
    assert max(age for event in planned for age in event["staleness"]) > 0, "nothing was asynchronous"
    assert [event["event"] for event in events if event["event"] in ("started", "stopped")] == ["started", "stopped"]


@pytest.mark.parametrize("staleness", [0, STALENESS])
def test_a_batch_that_made_no_version_gives_its_places_back(tmp_path, staleness):
    idle = frozenset({1, 4, 5, 9})
    _, driving = drive(tmp_path, 10, settings=settings(groups_per_step=PER_STEP, max_staleness=staleness))
    play(driving, learn(tmp_path, 10, idle))
    check(tmp_path, 10, idle)
    index = Index(tmp_path / "trajectories")
    index.refresh()
    dropped = {entry.id for entry in index.of_kind("dropped")}
    assert dropped == {id for plan in plans(tmp_path) if plan.batch in idle for id in plan.groups}


async def killed_after(coroutine, seconds: float) -> None:
    """Cancelled, as far as one process can be killed from within."""
    task = asyncio.ensure_future(coroutine)
    await asyncio.wait([task], timeout=seconds)
    task.cancel()
    await asyncio.wait([task])


def test_driver_and_learner_are_stopped_at_any_moment_and_go_on(tmp_path):
    idle, rng, steps = frozenset({3, 7, 8, 21}), random.Random(0), 40

    async def stopped() -> None:
        for _ in range(25):
            halves = (drive(tmp_path, steps, seconds=0.03)[1], learn(tmp_path, steps, idle))
            lives = rng.uniform(0.02, 0.12), rng.uniform(0.02, 0.12)
            await asyncio.gather(*(killed_after(half, life) for half, life in zip(halves, lives, strict=True)))

    play(stopped())
    assert 0 < read_progress(tmp_path).batch < steps, "the stops came while there was work"
    engine, driving = drive(tmp_path, steps)
    play(driving, learn(tmp_path, steps, idle))
    check(tmp_path, steps, idle)
    assert engine.loaded[0] > 0, "a restart begins with the newest version"


def test_a_plan_that_was_not_trained_on_is_waited_for_and_never_made_again(tmp_path):
    _, driving = drive(tmp_path, 5)
    play(killed_after(driving, 1.0), learn(tmp_path, 5, until=2))
    before = read_plan(tmp_path, 3)
    assert before is not None
    _, driving = drive(tmp_path, 5)
    play(driving, learn(tmp_path, 5))
    assert read_plan(tmp_path, 3) == before
    check(tmp_path, 5)


def test_engines_that_die_during_an_update_are_waited_for(tmp_path, monkeypatch):
    monkeypatch.setattr(under_test, "RETRY_S", 0.01)
    engine, driving = drive(tmp_path, 2, failures=3)
    play(driving, learn(tmp_path, 2))
    assert engine.loaded == [0, 1, 2]
    assert len([event for event in read_events(tmp_path) if event["event"] == "sync_failed"]) == 3


def test_a_learner_that_is_gone_and_a_run_that_cannot_go_on_end_the_driver(tmp_path, monkeypatch):
    monkeypatch.setattr(under_test, "SILENT_S", 0.3)
    with pytest.raises(RolloutError, match="no sign of the learner"):
        play(drive(tmp_path, 2)[1])

    def check() -> None:
        raise RolloutError("wrong weights")

    write_progress(tmp_path, Progress())
    with pytest.raises(RolloutError, match="wrong weights"):
        play(drive(tmp_path, 2, check=check)[1])
