"""Where every record lies. Reads a growing log: each `refresh` goes on where the last one stopped."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

from rollout.errors import RolloutError
from rollout.store.frame import Damage, Entry, locate, payload


class Index:
    """`entries[kind, id]`, in the order of the log. The first record of an id counts; later ones are `repeated`."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.entries: dict[tuple[str, str], Entry] = {}
        self.damaged: list[Damage] = []
        self.repeated = 0
        self._ends: dict[str, int] = {}

    def refresh(self) -> list[Entry]:
        """Read what was written since; the new records. A line without its end is left for the next time."""
        found = []
        for path in sorted(self.folder.glob("*.log")):
            for item in self._read_on(path):
                if isinstance(item, Damage):
                    self.damaged.append(item)
                elif self.add(item):
                    found.append(item)
                else:
                    self.repeated += 1
        return found

    def add(self, entry: Entry) -> bool:
        """Take one record in; False if its id is there already."""
        return self.entries.setdefault((entry.kind, entry.id), entry) is entry

    def skip(self, file: str, end: int) -> None:
        """The caller wrote `file` up to `end` and has added its records itself."""
        self._ends[file] = end

    def of_kind(self, kind: str) -> list[Entry]:
        """All records of one kind, in the order of the log."""
        return [entry for entry in self.entries.values() if entry.kind == kind]

    def read(self, kind: str, id: str) -> dict:
        """The payload of one record. Raises `RolloutError` if it is not there or was damaged since."""
        entry = self.entries.get((kind, id))
        if entry is None:
            raise RolloutError(f"{self.folder}: there is no {kind} {id!r}{self._near(kind, id)}")
        return read_entry(self.folder, entry)

    def _read_on(self, path: Path) -> Iterator[Entry | Damage]:
        offset = self._ends.get(path.name, 0)
        if path.stat().st_size <= offset:
            return
        with path.open("rb") as file:
            file.seek(offset)
            for line in file:
                if not line.endswith(b"\n"):
                    return
                yield locate(line, path.name, offset)
                offset += len(line)
                self._ends[path.name] = offset

    def _near(self, kind: str, id: str) -> str:
        same = [entry.id for entry in self.of_kind(kind)]
        near = [known for known in same if id in known] or same
        return f"; it has {len(same)}, such as {near[0]!r}" if near else f"; it has no {kind} at all"


def read_entry(folder: Path, entry: Entry) -> dict:
    """The payload at one place, its checksum verified again."""
    where = f"{folder / entry.file} at byte {entry.offset}"
    file = os.open(folder / entry.file, os.O_RDONLY)
    try:
        line = os.pread(file, entry.length, entry.offset)
    finally:
        os.close(file)
    found = locate(line, entry.file, entry.offset)
    if isinstance(found, Damage):
        raise RolloutError(f"{where}: {entry.kind} {entry.id!r} is damaged: {found.reason}; restore the file")
    return payload(line, where)
