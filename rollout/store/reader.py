"""Stored trajectories as a random-access source for grain: `len(source)`, `source[3]`, and it can be pickled."""

from __future__ import annotations

from pathlib import Path

from rollout.errors import RolloutError
from rollout.store.codec import from_json
from rollout.store.index import Index, read_entry
from rollout.types import Trajectory


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
