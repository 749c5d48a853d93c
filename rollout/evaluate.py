"""Evaluation: tasks x samples episodes against an engine, into a log of its own, and one result file.

    RUN/evals/NAME/asked.json       what is evaluated, and since when: a restart must ask for the same
    RUN/evals/NAME/trajectories/    the log; a restart goes on where it stopped
    RUN/evals/NAME.json             the result (rollout.outcomes), when all of it is there

Every sample is an episode of its own: one scaffold, one solution. Failures of ours are played again in up to two more
rounds, then left out and counted. Seeds are the same in every evaluation of a seed, and none of training.
"""

from __future__ import annotations

import asyncio
import json
import random
import re
import time
from collections import defaultdict
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

from envs.suites.split import content_hash
from envs.types import Task
from rollout.chat.types import Chat
from rollout.collect import collect
from rollout.engine import Engine
from rollout.errors import EngineError, RolloutError
from rollout.outcomes import Sample, counted, read_samples, result
from rollout.run_dir import read_json, write_json
from rollout.scaffold.library import Library
from rollout.settings import RolloutSettings, SamplingSettings
from rollout.types import Arm, Proposal, Trajectory

ROUNDS = 3  # that a task may take until all its samples count; after as many broken ones the driver benches it
SEEDS = 1 << 32  # between the seeds of training and those of evaluation
NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*")
OPERATION = {  # of the rollout's settings: they change how long it takes, not what comes out
    *("scaffolds_per_task", "solutions_per_scaffold", "group_s", "groups_in_flight", "groups_per_step"),
    *("max_staleness", "engine_attempts", "warm_sandboxes", "sandbox"),
}


class FrozenLibrary(Library):
    """The scaffolds of a run as they were: what an evaluation writes is no part of it, so samples stay independent."""

    def add(self, proposal: Proposal) -> None:
        pass

    def reward(self, trajectory: Trajectory) -> None:
        pass


async def evaluate(
    run: Path,
    name: str,
    tasks: Sequence[Task],
    engine: Engine,
    chat: Chat,
    settings: RolloutSettings,
    sampling: SamplingSettings,
    *,
    arm: Arm,
    samples: int,
    seed: int = 0,
    library: Path | None = None,
) -> dict[str, Any]:
    """Evaluate the engine's weights on `tasks` under one arm; the result, which is also in `run`/evals/NAME.json.

    Args:
        settings: budgets and the rest as in training; its arm, N, K and selection are not used.
        seed: of the experiment; seeds of evaluation are kept apart from those of training here.
        library: a run whose scaffolds proposals start from, as they are now; None: every proposal starts from nothing.
    Raises:
        RolloutError: bad input, a log of another evaluation, weights that changed meanwhile; OSError of the disk.
        EngineError: the engine has no weights, or stays silent.
    """
    version = engine.policy_version
    if version is None:
        raise EngineError("not_ready", "the engine has no confirmed weights; update it first")
    check(name, tasks, samples, library)
    settings = replace(settings, arm=arm, solutions_per_scaffold=1)
    if library is None:
        settings = replace(settings, scaffold_selection="fresh")
    asked = _asked(name, version, settings, sampling, samples, seed, library)
    folder = run / "evals" / name
    began = await asyncio.to_thread(_begin, folder, asked, tasks)
    if (known := await asyncio.to_thread(read_json, run / "evals" / f"{name}.json")) is not None:
        return known
    shelf = None if library is None else await asyncio.to_thread(_shelf, folder, library)

    async def play(tasks: Sequence[Task], count: int, groups: int) -> None:
        wanted, seeds = replace(settings, scaffolds_per_task=count), seed + SEEDS
        await collect(folder, tasks, engine, chat, wanted, sampling, seed=seeds, groups=groups, library=shelf)

    found = await _rounds(folder / "trajectories", tasks, samples, play)
    versions = {version, engine.policy_version, *(one for sample in found for one in sample.versions)}
    if len(versions) > 1:
        raise RolloutError(f"{name}: the engine changed its weights meanwhile ({versions}); use one that stands still")
    final = result(asked, tasks, found, time.time() - began)
    await asyncio.to_thread(write_json, run / "evals" / f"{name}.json", final)
    return final


async def _rounds(
    log: Path, tasks: Sequence[Task], samples: int, play: Callable[[Sequence[Task], int, int], Awaitable[None]]
) -> list[Sample]:
    """Play until every task has its samples, or its rounds are used up; all episodes. Reads on where a kill stopped."""
    groups = 0
    for number in range(ROUNDS):
        found, ended = await asyncio.to_thread(read_samples, log)
        missing = _missing(tasks, found, samples, number)
        lacking = [task for task in tasks if missing[task.id]]
        groups += len(lacking)
        if any(f"{task.id}@{number}" not in ended for task in lacking):
            await play(lacking, max(missing.values()), groups)
    return (await asyncio.to_thread(read_samples, log))[0]


def spread(tasks: Sequence[Task], count: int | None) -> list[Task]:
    """`count` tasks, as evenly over the categories as they allow; None: all. The same tasks give the same choice,
    and a smaller choice is part of a larger one."""
    by_category: dict[str, list[Task]] = defaultdict(list)
    for task in sorted(tasks, key=lambda task: task.id):
        by_category[task.category].append(task)
    places = []
    for name, same in by_category.items():
        random.Random(name).shuffle(same)
        places += [(place, name, task) for place, task in enumerate(same)]
    ordered = [task for _, _, task in sorted(places, key=lambda place: place[:2])]
    return ordered if count is None else ordered[:count]


def check(name: str, tasks: Sequence[Task], samples: int, library: Path | None) -> None:
    """What `evaluate` cannot do, before an engine is loaded for it. Raises RolloutError."""
    if not NAME.fullmatch(name):
        raise RolloutError(f"name: {name!r} cannot name a file; use letters, digits, '.', '_' and '-'")
    if not tasks:
        raise RolloutError("there is no task to evaluate on: see the split, suite.path and suite.heldout")
    if samples < 1:
        raise RolloutError(f"samples: {samples} is less than 1")
    if library is not None and not (library / "scaffolds").is_dir():
        raise RolloutError(f"library: {library} has no scaffolds/; name a run that wrote some")


def _asked(
    name: str,
    version: int,
    settings: RolloutSettings,
    sampling: SamplingSettings,
    samples: int,
    seed: int,
    library: Path | None,
) -> dict[str, Any]:
    """Everything that the outcome depends on, but for the tasks; as the files hold it."""
    asked = {
        "name": name,
        "arm": settings.arm.value,
        "policy_version": version,
        "samples": samples,
        "seed": seed,
        "sampling": asdict(sampling),
        "rollout": {field: value for field, value in asdict(settings).items() if field not in OPERATION},
        "library": None if library is None else library.resolve().name,
    }
    return json.loads(json.dumps(asked))


def _begin(folder: Path, asked: dict[str, Any], tasks: Sequence[Task]) -> float:
    """When it began, in seconds of the clock. Raises RolloutError if the log is of another evaluation."""
    file, contents = folder / "asked.json", {task.id: content_hash(task) for task in tasks}
    known = read_json(file)
    if known is None:
        known = {"asked": asked, "tasks": contents, "began": time.time()}
        write_json(file, known)
    new = {name: value for name, value in asdict(RolloutSettings()).items() if name in asked["rollout"]}
    before = {**known["asked"], "rollout": {**new, **known["asked"]["rollout"]}}  # began before a setting was there
    differ = [field for field, value in asked.items() if before.get(field) != value]
    differ += ["tasks"] if known["tasks"] != contents else []
    if differ:
        raise RolloutError(f"{folder}: began with other {', '.join(differ)}; give this evaluation another name")
    return known["began"]


def _shelf(folder: Path, library: Path) -> FrozenLibrary:
    """The library of a run as it was when this evaluation began."""
    position = read_json(folder / "library.json")
    shelf = FrozenLibrary(library / "scaffolds", position)
    if position is None:
        write_json(folder / "library.json", shelf.position)
    return shelf


def _missing(tasks: Sequence[Task], found: Sequence[Sample], wanted: int, number: int) -> dict[str, int]:
    """Task id -> samples that it lacks after the rounds before `number`."""
    by_task = counted((sample for sample in found if sample.order[0] < number), wanted)
    return {task.id: wanted - len(by_task.get(task.id, ())) for task in tasks}
