"""The library: every scaffold that was written, where it came from, how it fared, and which one comes next.

Two kinds of records in a `log`: a scaffold (id, parent, task, category, document) and a result of one trajectory.
Both are idempotent: what a resumed run says again changes nothing.
"""

from __future__ import annotations

import math
import random
import threading
from collections.abc import Iterable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from rollout.errors import RolloutError
from rollout.reward import solution_reward
from rollout.scaffold.log import Position, Writer, read_new
from rollout.types import Proposal, Trajectory

SELECTIONS = ("last", "best", "softmax", "fresh")


@dataclass(frozen=True, slots=True)
class Result:
    """How one trajectory under a scaffold ended. Failures of ours are never results."""

    trajectory_id: str
    reward: float
    outcome: str
    stop: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Entry:
    """One scaffold as it was used for one task. `order` grows with every record of the library."""

    id: str
    parent: str
    task_id: str
    category: str
    document: str
    order: int
    results: tuple[Result, ...] = ()

    @property
    def mean(self) -> float | None:
        """Mean reward; None before the first result. Flagged counts as 0 here: nobody should start from it."""
        return sum(result.reward for result in self.results) / len(self.results) if self.results else None


class Library:
    """All records of a directory, merged. Safe to use from several threads; every method is quick but for the disk.

    `upto` opens it as it was at a checkpoint's `position`; `refresh` reads on from there. What this object adds is
    in the directory and in its own view when the call returns; what others add is seen after `refresh`.
    """

    def __init__(self, folder: Path, upto: Position | None = None) -> None:
        self.folder = folder
        self.damaged: list[str] = []  # lines that were written whole and are not readable now
        self._lock = threading.Lock()
        self._writer = Writer(folder)
        self._read: dict[str, int] = {}
        self._entries: dict[tuple[str, str], Entry] = {}  # (task id, scaffold id)
        self._results: dict[tuple[str, str], dict[str, Result]] = {}
        self._order = 0
        self.refresh(upto)

    def refresh(self, upto: Position | None = None) -> None:
        """Take in what all writers have made durable since the last time."""
        with self._lock:
            records, self._read, damaged = read_new(self.folder, self._read, upto)
            self.damaged += damaged
            for record in sorted(records, key=lambda record: record["order"]):
                self._take(record)

    @property
    def position(self) -> dict[str, int]:
        """How much of every log this view holds."""
        with self._lock:
            return dict(self._read)

    def add(self, proposal: Proposal) -> None:
        """Remember a valid proposal; one without a document of its own is not remembered. Durable on return."""
        if proposal.turns and proposal.scaffold:
            self._append(
                kind="scaffold",
                id=proposal.scaffold_id,
                parent=proposal.scaffold_parent,
                task_id=proposal.task_id,
                category=proposal.category,
                document=proposal.scaffold,
            )

    def reward(self, trajectory: Trajectory) -> None:
        """Put a result on the scaffold's record. Without a reward (our failure) or a scaffold: nothing. Durable."""
        value = solution_reward(trajectory)
        if value is not None and trajectory.scaffold_id:
            self._append(
                kind="result",
                id=trajectory.scaffold_id,
                task_id=trajectory.task_id,
                result=[trajectory.id, value, trajectory.verdict.outcome.value, trajectory.stop.value],
            )

    def entries(self, task_id: str | None = None, category: str | None = None) -> list[Entry]:
        """Oldest first, each with its results; of one task, of one category, or all."""
        with self._lock:
            found = [
                replace(entry, results=tuple(self._results.get(key, {}).values()))
                for key, entry in self._entries.items()
                if task_id in (None, entry.task_id) and category in (None, entry.category)
            ]
        return sorted(found, key=lambda entry: (entry.order, entry.id))

    def select(
        self, task_id: str, category: str, selection: str, temperature: float, rng: random.Random
    ) -> Entry | None:
        """The scaffold that a proposal starts from: of the task; before it has one, of its category; None: no parent.

        The same records, arguments and state of `rng` give the same entry.
        """
        if selection not in SELECTIONS:
            raise RolloutError(f"rollout.scaffold_selection: {selection!r} is not one of {', '.join(SELECTIONS)}")
        if selection == "fresh":
            return None
        pool = self.entries(task_id) or _by_scaffold(self.entries(category=category))
        return choose(pool, selection, temperature, rng) if pool else None

    def close(self) -> None:
        self._writer.close()

    def _append(self, **record: Any) -> None:
        with self._lock:
            record["order"] = self._order + 1
            self._writer.append(record)
            self._read[self._writer.path.name] = self._writer.end
            self._take(record)

    def _take(self, record: dict[str, Any]) -> None:
        key = (record["task_id"], record["id"])
        self._order = max(self._order, record["order"])
        if record["kind"] == "result":
            result = Result(*record["result"])
            self._results.setdefault(key, {}).setdefault(result.trajectory_id, result)
            return
        fields = {name: value for name, value in record.items() if name != "kind"}
        known = self._entries.get(key)  # written again: it keeps its first parent and becomes the newest
        self._entries[key] = replace(known, order=record["order"]) if known else Entry(**fields)


def choose(pool: list[Entry], selection: str, temperature: float, rng: random.Random) -> Entry:
    """One entry of a pool that is not empty. An entry without results is chosen only when none has any."""
    newest = max(pool, key=lambda entry: entry.order)
    rated = [(entry, entry.mean) for entry in pool if entry.mean is not None]
    if selection == "last" or (selection == "best" and not rated):
        return newest
    if selection == "best":
        return max(rated, key=lambda pair: (pair[1], pair[0].order))[0]
    if not rated:
        return rng.choice(pool)
    top = max(mean for _, mean in rated)
    weights = [math.exp((mean - top) / max(temperature, 1e-6)) for _, mean in rated]
    return rng.choices([entry for entry, _ in rated], weights)[0]


def _by_scaffold(entries: Iterable[Entry]) -> list[Entry]:
    """One entry for each scaffold, whatever tasks it was used for: the newest, with the results of all."""
    merged: dict[str, Entry] = {}
    for entry in entries:
        before = merged[entry.id].results if entry.id in merged else ()
        merged[entry.id] = replace(entry, results=before + entry.results)
    return list(merged.values())
