"""Killed at any moment, started again with the same command: nothing lost, nothing twice, the same bounds."""

import asyncio
import itertools
import random
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path

import pytest
from killed_run import GROUPS, PER_STEP, STALENESS
from simulated import Simulation, driving, settings

from rollout.errors import RolloutError
from rollout.store.frame import locate
from rollout.store.index import Index
from rollout.store.position import Position

HERE = Path(__file__).parent
KILLS = 20


def start(folder: Path) -> subprocess.Popen:
    process = subprocess.Popen(
        [sys.executable, str(HERE / "killed_run.py"), str(folder)],
        stdout=subprocess.PIPE,
        env={"PYTHONPATH": str(HERE.parents[2]), "PATH": "/usr/bin:/bin"},
    )
    assert process.stdout is not None
    assert process.stdout.readline() == b"started\n"
    return process


def test_a_run_that_is_killed_twenty_times_stores_every_episode_once_and_keeps_its_bounds(tmp_path):
    rng = random.Random(0)
    for _ in range(KILLS):
        process = start(tmp_path)
        time.sleep(rng.uniform(0, 0.08))
        process.kill()
        process.communicate(timeout=20)
    assert len(found(tmp_path, "closed")) < GROUPS, "the kills came while there was work"
    out, _ = start(tmp_path).communicate(timeout=60)
    assert out == b"done\n"

    lines = Counter(every_line(tmp_path))
    assert max(lines.values()) == 1, "an id was stored twice"
    admitted, dropped = found(tmp_path, "admitted"), found(tmp_path, "dropped")
    assert [a["number"] for a in admitted] == list(range(GROUPS))
    assert not dropped
    places = [f"{i}/{k}" for i in (0, 1) for k in (0, 1)]
    assert {id for kind, id in lines if kind == "trajectory"} == {
        f"{a['group_id']}/{place}" for a in admitted for place in places
    }
    for proposal in found(tmp_path, "proposal"):
        of_it = f"{proposal['group_id']}/{proposal['scaffold_index']}/"
        scaffolds = {t["scaffold_id"] for t in found(tmp_path, "trajectory") if t["id"].startswith(of_it)}
        assert scaffolds == {proposal["scaffold_id"]}, "solutions of two scaffolds in one place"
    check_bounds(tmp_path, admitted)


def check_bounds(folder: Path, admitted: list[dict]) -> None:
    """At its admission, and when a learner took it, no group was older than the bound or newer than the learner."""
    consumed = [line.split(" ") for line in (folder / "consumed.txt").read_text().splitlines()]
    taken = [(int(line[0]), " ".join(line[1:-1]), int(line[-1])) for line in consumed]
    assert {id for _, id, _ in taken} == {a["group_id"] for a in admitted}
    assert {version - at for version, _, at in taken} <= set(range(STALENESS + 1))
    assert max(version - at for version, _, at in taken) > 0, "nothing was asynchronous"
    for number, admission in enumerate(admitted):
        assert number < (admission["admitted_version"] + STALENESS + 1) * PER_STEP
    last = {id: version for version, id, _ in taken}  # a step that a kill undid is taken again
    assert Counter(last.values()) == dict.fromkeys(range(GROUPS // PER_STEP), PER_STEP)


def found(folder: Path, kind: str) -> list[dict]:
    index = Index(folder / "log")
    index.refresh()
    assert not index.damaged
    return [index.read(kind, entry.id) for entry in index.of_kind(kind)]


def every_line(folder: Path):
    for path in sorted((folder / "log").glob("*.log")):
        for line in path.read_bytes().splitlines(keepends=True):
            entry = locate(line, path.name, 0)
            yield entry.kind, entry.id


def play(coroutine):
    async def bounded():
        async with asyncio.timeout(30):
            return await coroutine

    return asyncio.run(bounded())


def test_finished_episodes_and_proposals_of_an_open_group_are_not_done_again(tmp_path):
    def seconds(id: str) -> float:
        return 60.0 if id.endswith(("0/1", "1/0", "1/1")) else 0.0

    async def run():
        first = Simulation(seconds)
        async with driving(tmp_path, first, limit=1):
            while not first.solved:
                await asyncio.sleep(0.01)
            await asyncio.sleep(0.1)
        second = Simulation()
        async with driving(tmp_path, second, settings(scaffolds_per_task=5), limit=1, policy_version=1) as driver:
            group = await anext(driver.groups())
        assert sorted(first.proposed) == [f"{group.id}/0", f"{group.id}/1"]
        assert second.proposed == []
        assert first.solved == [f"{group.id}/0/0"]
        assert sorted(second.solved) == [f"{group.id}/{place}" for place in ("0/1", "1/0", "1/1")]
        assert {t.admitted_version for t in group.trajectories} == {0}
        assert [len({t.scaffold_id for t in half}) for half in (group.trajectories[:2], group.trajectories[2:])] == [
            1,
            1,
        ]

    play(run())


async def train(folder, *, start: int, until: int, position: Position, saved: dict[int, Position]):
    """A learner from version `start` to `until`; the group ids of each step."""
    episodes, steps = Simulation(lambda id: random.Random(id).uniform(0, 0.01)), {}
    episodes.version = start
    async with driving(folder, episodes, policy_version=start, position=position, count=5) as driver:
        groups = driver.groups()
        for version in range(start, until):
            step = [await anext(groups), await anext(groups)]
            for turn in itertools.chain(*(t.turns for g in step for t in g.trajectories)):
                assert all(span[1] <= version for span in turn.completion.versions), "tokens from the future"
            steps[version] = [g.id for g in step]
            driver.trained(steps[version])
            saved[version + 1] = driver.position
            episodes.version = version + 1
            await driver.published(version + 1)
    return steps


def test_a_learner_that_went_back_takes_up_the_groups_of_the_lost_steps(tmp_path):
    async def run():
        saved: dict[int, Position] = {}
        first = await train(tmp_path, start=0, until=9, position=Position(), saved=saved)
        again = await train(tmp_path, start=4, until=14, position=saved[4], saved=saved)
        trained = [id for version in range(4) for id in first[version]] + [id for ids in again.values() for id in ids]
        assert len(trained) == len(set(trained)), "a group was trained on twice"
        assert saved[14].below + len(saved[14].also) >= 28
        assert set(first[4]) <= set(trained), "what was finished is not lost"

    play(run())


def test_a_learner_without_a_usable_group_is_not_left_waiting(tmp_path):
    """Back to the start without the checkpoint's position: what newer policies wrote is dropped, not waited for."""

    async def run():
        await train(tmp_path, start=5, until=8, position=Position(), saved={})
        steps = await train(tmp_path, start=0, until=2, position=Position(), saved={})
        assert len({id for ids in steps.values() for id in ids}) == 4
        again = await train(tmp_path, start=2, until=4, position=Position(), saved={})
        assert set(again[2]) == set(steps[0]), "without a position they are new"

    play(run())


def test_a_position_of_another_run_is_named(tmp_path):
    async def run():
        await train(tmp_path, start=0, until=8, position=Position(), saved={})
        await train(tmp_path, start=1, until=2, position=Position(below=100), saved={})

    with pytest.raises(RolloutError, match="start at the version and position of its own checkpoint"):
        play(run())


def test_a_position_is_small_and_exact():
    position, numbers = Position(), list(range(200))
    random.Random(0).shuffle(numbers)
    for count, number in enumerate(numbers, 1):
        assert number not in position
        position = Position.from_json(position.plus([number]).to_json())
        assert sorted(n for n in range(250) if n in position) == sorted(numbers[:count])
    assert position == Position(below=200)
