"""Stored trajectories as a random-access source for grain: `len(source)`, `source[3]`, and it can be pickled."""

from __future__ import annotations

from pathlib import Path
from typing import Protocol

from rollout.errors import RolloutError
from rollout.store.codec import from_json
from rollout.store.index import Index, read_entry
from rollout.types import Trajectory


class Source(Protocol):
    """Anything with trajectories by number: a log, or a list."""

    def __len__(self) -> int: ...

    def __getitem__(self, place: int, /) -> Trajectory: ...


class Trajectories:
    """The trajectories that were in the log when it was opened, in the order in which they were written.

    `damaged` holds one line per record that could not be read; those are left out. Raises `RolloutError` if there is
    no log in the folder.
    """

    def __init__(self, folder: Path) -> None:
        if not folder.is_dir():
            raise RolloutError(f"{folder}: there is no such folder; a run keeps its log in RUN/trajectories")
        index = Index(folder)
        index.refresh()
        self._folder = folder
        self._entries = index.of_kind("trajectory")
        self.damaged = [f"{folder / d.file}: byte {d.offset}: {d.reason}" for d in index.damaged]

    def __len__(self) -> int:
        return len(self._entries)

    def __getitem__(self, place: int) -> Trajectory:
        entry = self._entries[place]
        return from_json(Trajectory, read_entry(self._folder, entry), f"trajectory {entry.id}")

    def find(self, name: str) -> Trajectory:
        """By id, or by a part that only one id has. Raises `RolloutError`."""
        ids = [entry.id for entry in self._entries]
        same = [place for place, id in enumerate(ids) if id == name] or [p for p, id in enumerate(ids) if name in id]
        if len(same) == 1:
            return self[same[0]]
        some = ", ".join(ids[place] for place in same[:5]) or ", ".join(ids[:5]) or "none"
        raise RolloutError(f"{self._folder}: {len(same)} trajectories have {name!r} in their id; there are {some}, ...")
