"""The run directory: the only place where learner, engines and driver meet. Paths, and the small files between them.

    config.json             the experiment, as it was started                                   learner or supervisor
    weights/v0000012/       published versions (rollout.published)                              learner
    checkpoints/            what the learner restarts from                                      learner
    progress.json           the last batch that was trained on, and the version it made         learner
    metrics.jsonl           one line for each batch                                             learner
    batches/00000012.json   the groups of batch 12, in order: written once, trained on once     driver
    trajectories/           the log of everything that episodes did (rollout.store)             driver
    scaffolds/              the library (rollout.scaffold.library)                              driver
    engines/NAME.json       where an engine listens                                             engine
    heartbeats/NAME.json    what a process does now; old: it hangs or is dead                   every process
    events/NAME.jsonl       what happened: started, synced, restarted, ...                      every process
    evals/NAME.json         results of evaluations (rollout.evaluate)
    reviews.jsonl           what people said of single trajectories (rollout.report)

Every file has one writer and gets its name by a rename, so that no reader sees half of one and no lock is needed on a
parallel file system.
"""

from __future__ import annotations

import json
import os
import socket
import time
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from rollout.errors import RolloutError


@dataclass(frozen=True, slots=True, kw_only=True)
class BatchPlan:
    """Which groups make batch `batch` (from 1), in the order in which they are packed. Never changed once written.

    Driver and learner commit to it: a learner that restarts from an older checkpoint reads the same plans again.
    """

    batch: int
    groups: tuple[str, ...]  # group ids
    policy_version: int  # that the engine answered with when the batch was put together


@dataclass(frozen=True, slots=True, kw_only=True)
class Progress:
    """How far the learner is. `policy_version` is published and newest; batch 0: the start."""

    batch: int = 0
    policy_version: int = 0
    is_finished: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class EngineCard:
    """Where an engine answers. A card outlives its engine when that is killed: ask its health."""

    name: str
    url: str
    kind: str = "embedded"  # embedded | sglang
    pid: int = 0
    host: str = field(default_factory=socket.gethostname)


def plan_file(run: Path, batch: int) -> Path:
    """run/batches/00000012.json"""
    return run / "batches" / f"{batch:08}.json"


def write_plan(run: Path, plan: BatchPlan) -> None:
    """Durable on return. Raises RolloutError when the batch has another plan already."""
    path = plan_file(run, plan.batch)
    if path.exists():
        if read_plan(run, plan.batch) != plan:
            raise RolloutError(f"{path}: batch {plan.batch} was planned already; two drivers cannot share a run")
        return
    write_json(path, asdict(plan))


def read_plan(run: Path, batch: int) -> BatchPlan | None:
    """None when it is not planned yet."""
    found = read_json(plan_file(run, batch))
    return None if found is None else BatchPlan(**{**found, "groups": tuple(found["groups"])})


def plans(run: Path) -> Iterator[BatchPlan]:
    """Those that are written, from batch 1 on."""
    batch = 1
    while (plan := read_plan(run, batch)) is not None:
        yield plan
        batch += 1


def write_progress(run: Path, progress: Progress) -> None:
    write_json(run / "progress.json", asdict(progress))


def read_progress(run: Path) -> Progress | None:
    """None before the learner has published its first version."""
    found = read_json(run / "progress.json")
    return None if found is None else Progress(**found)


def write_card(run: Path, card: EngineCard) -> None:
    write_json(run / "engines" / f"{card.name}.json", asdict(card))


def read_cards(run: Path) -> list[EngineCard]:
    """Sorted by name."""
    found = [read_json(path) for path in sorted((run / "engines").glob("*.json"))]
    return [EngineCard(**card) for card in found if card is not None]


class Events:
    """The log of one process, `events/NAME.jsonl`: facts for the report, never read by another process to act on.

    `events.add("synced", policy_version=3, pause_s=0.01)` writes {"time", "process", "event", ...}.
    """

    def __init__(self, run: Path, process: str) -> None:
        self.process = process
        self._path = run / "events" / f"{process}.jsonl"
        self._path.parent.mkdir(parents=True, exist_ok=True)

    def add(self, event: str, **values: Any) -> None:
        line = json.dumps({"time": time.time(), "process": self.process, "event": event, **values})
        with self._path.open("ab") as file:
            torn = file.tell() > 0 and not self._ends_whole()
            file.write((b"\n" if torn else b"") + line.encode() + b"\n")

    def _ends_whole(self) -> bool:
        with self._path.open("rb") as file:
            file.seek(-1, os.SEEK_END)
            return file.read(1) == b"\n"


def read_events(run: Path) -> list[dict[str, Any]]:
    """Of all processes, oldest first; lines that a kill cut short are left out."""
    found = []
    for path in sorted((run / "events").glob("*.jsonl")):
        for line in path.read_text().splitlines():
            try:
                found.append(json.loads(line))
            except ValueError:
                continue
    return sorted(found, key=lambda event: event["time"])


def beat(run: Path, process: str, doing: str) -> None:
    """The heartbeat of a process: what it does now, and when it said so."""
    write_json(
        run / "heartbeats" / f"{process}.json",
        {"time": time.time(), "pid": os.getpid(), "host": socket.gethostname(), "doing": doing},
        durable=False,
    )


def write_json(path: Path, value: Mapping[str, Any], *, durable: bool = True) -> None:
    """Whole or not at all; on disk on return, if `durable`."""
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(f".{path.name}.{socket.gethostname()}.{os.getpid()}.partial")
    with partial.open("w") as file:
        file.write(json.dumps(value) + "\n")
        if durable:
            file.flush()
            os.fsync(file.fileno())
    os.replace(partial, path)


def read_json(path: Path) -> dict[str, Any] | None:
    """None when there is no such file. Raises RolloutError for one that is not JSON, which none of ours ever is."""
    try:
        return json.loads(path.read_text())
    except FileNotFoundError:
        return None
    except ValueError:
        raise RolloutError(f"{path}: not JSON; something else wrote it. Remove it and start again") from None
