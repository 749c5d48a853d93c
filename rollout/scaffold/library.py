"""The library: every scaffold that was written, where it came from, how it fared, and which one comes next.

A directory of logs, one writer to a file: no locks on a shared file system. Two kinds of records: a scaffold (id,
parent, task, category, document) and the result of one trajectory; what a resumed run says again changes nothing.
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
from rollout.scaffold.log import Position, read_new, writer_name
from rollout.store.frame import encode
from rollout.store.writer import Writer
from rollout.types import Proposal, Trajectory

SELECTIONS = ("last", "best", "softmax", "fresh")


@dataclass(frozen=True, slots=True)
class Result:
    """How one trajectory under a scaffold ended. Failures of ours are never results."""

    trajectory_id: str
    reward: float
    outcome: str
    stop: str
    version: int  # policy version at which its group was admitted


@dataclass(frozen=True, slots=True, kw_only=True)
class Entry:
    """One scaffold as it was used for one task.

    `order` grows with every record of the library; `version` is the policy version at which the group that wrote it
    last was admitted. `uses` has both of every time that it was written.
    """

    id: str
    parent: str
    task_id: str
    category: str
    document: str
    uses: tuple[tuple[int, int], ...]  # (version, order), in the order of the log
    results: tuple[Result, ...] = ()

    @property
    def order(self) -> int:
        return max(order for _, order in self.uses)

    @property
    def version(self) -> int:
        return max(version for version, _ in self.uses)

    @property
    def mean(self) -> float | None:
        """Mean reward; None before the first result. Flagged counts as 0 here: nobody should start from it."""
        return math.fsum(result.reward for result in self.results) / len(self.results) if self.results else None


class Library:
    """All records of a directory, merged. For several threads; calls wait for the disk: not on an event loop.

    `upto` opens it as it was at a checkpoint's `position`; `refresh` reads on from there. What this object adds is
    in the directory and in its own view when the call returns; what others add is seen after `refresh`.
    """

    def __init__(self, folder: Path, upto: Position | None = None) -> None:
        self.folder = folder
        self.damaged: list[str] = []  # lines that are not as they were written; they are left out
        self._lock = threading.Lock()
        self._writer: Writer | None = None
        self._read: dict[str, int] = {}
        self._entries: dict[str, dict[str, Entry]] = {}  # by task id, by scaffold id
        self._results: dict[tuple[str, str], dict[str, Result]] = {}  # by (task id, scaffold id), by trajectory id
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
        """Remember a scaffold that the policy wrote; other proposals are not remembered. Durable on return."""
        if proposal.turns and proposal.scaffold:
            self._append(
                "scaffold",
                f"{proposal.task_id}/{proposal.scaffold_id}",
                id=proposal.scaffold_id,
                parent=proposal.scaffold_parent,
                task_id=proposal.task_id,
                category=proposal.category,
                document=proposal.scaffold,
                version=proposal.admitted_version,
            )

    def reward(self, trajectory: Trajectory) -> None:
        """Put a result on the scaffold's record. Without a reward (our failure) or a scaffold: nothing. Durable."""
        value = solution_reward(trajectory)
        if value is not None and trajectory.scaffold_id:
            self._append(
                "result",
                trajectory.id,
                id=trajectory.scaffold_id,
                task_id=trajectory.task_id,
                result=[trajectory.id, value, trajectory.verdict.outcome.value, trajectory.stop.value],
                version=trajectory.admitted_version,
            )

    def entries(
        self, task_id: str | None = None, category: str | None = None, before: int | None = None
    ) -> list[Entry]:
        """Oldest first, each with its results; of one task, of one category, or all.

        `before` leaves out what groups wrote and earned that were admitted at that policy version or later.
        """
        with self._lock:
            tasks = self._entries if task_id is None else [task_id]
            found = [
                replace(entry, results=tuple(self._results.get((entry.task_id, entry.id), {}).values()))
                for task in tasks
                for entry in self._entries.get(task, {}).values()
                if category in (None, entry.category)
            ]
        if before is not None:
            found = [past for entry in found if (past := _past(entry, before)) is not None]
        return sorted(found, key=lambda entry: (entry.order, entry.id))

    def select(
        self,
        task_id: str,
        category: str,
        selection: str,
        temperature: float,
        rng: random.Random,
        before: int | None = None,
    ) -> Entry | None:
        """The scaffold that a proposal starts from: of the task; before it has one, of its category; None: no parent.

        The same records, arguments and state of `rng` give the same entry. With `before` (see `entries`), records of
        one policy version have no order among themselves: they may have been written in any.
        """
        if selection not in SELECTIONS:
            raise RolloutError(f"rollout.scaffold_selection: {selection!r} is not one of {', '.join(SELECTIONS)}")
        if selection == "fresh":
            return None
        pool = self.entries(task_id, before=before) or _by_scaffold(self.entries(category=category, before=before))
        if before is not None:
            pool = sorted((_unordered(entry) for entry in pool), key=lambda entry: (entry.order, entry.id))
        return choose(pool, selection, temperature, rng) if pool else None

    def close(self) -> None:
        if self._writer is not None:
            self._writer.close()

    def _append(self, kind: str, name: str, **record: Any) -> None:
        with self._lock:
            record["order"] = self._order + 1
            line = encode(kind, name, record)
            try:
                self._writer = self._writer or Writer(self.folder, writer_name())
                [(file, offset)] = self._writer.append([line])
            except OSError as error:
                raise RolloutError(f"{self.folder}: the library cannot be written: {error.strerror}") from error
            self._read[file] = offset + len(line)
            self._take({"kind": kind, **record})

    def _take(self, record: dict[str, Any]) -> None:
        """One record into the view. A scaffold that is said again is used once more; a result changes nothing."""
        self._order = max(self._order, record["order"])
        task_id, id, use = record["task_id"], record["id"], (record["version"], record["order"])
        if record["kind"] == "result":
            trajectory_id, reward, outcome, stop = record["result"]
            result = Result(trajectory_id, reward, outcome, stop, record["version"])
            self._results.setdefault((task_id, id), {}).setdefault(result.trajectory_id, result)
            return
        known = self._entries.setdefault(task_id, {})
        if id in known:
            known[id] = replace(known[id], uses=(*known[id].uses, use))
        else:
            fields = ("id", "parent", "task_id", "category", "document")
            known[id] = Entry(**{name: record[name] for name in fields}, uses=(use,))


def choose(pool: list[Entry], selection: str, temperature: float, rng: random.Random) -> Entry:
    """One entry of a pool that is not empty. An entry without results is chosen only when none has any."""
    newest = max(pool, key=lambda entry: (entry.order, entry.id))
    rated = [(entry, entry.mean) for entry in pool if entry.mean is not None]
    if selection == "last" or (selection == "best" and not rated):
        return newest
    if selection == "best":
        return max(rated, key=lambda pair: (pair[1], pair[0].order, pair[0].id))[0]
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


def _past(entry: Entry, before: int) -> Entry | None:
    """The entry as groups of earlier versions alone have left it; None when none of them wrote it."""
    uses = tuple(use for use in entry.uses if use[0] < before)
    results = tuple(result for result in entry.results if result.version < before)
    return replace(entry, uses=uses, results=results) if uses else None


def _unordered(entry: Entry) -> Entry:
    """With the version for its order."""
    return replace(entry, uses=((entry.version, entry.version),))
