"""Append-only files with one writer each: what `append` has returned from is on the disk.

`<writer>-000001.log`, `-000002`, ...: every opening begins a new file, so two processes never write to the same one
and a shared file system needs no locks. A line that a kill has torn is cut at the next opening; it was never
acknowledged.
"""

from __future__ import annotations

import os
import re
from collections.abc import Sequence
from pathlib import Path

from rollout.errors import RolloutError

SEGMENT_BYTES = 256 << 20
_BLOCK = 1 << 16


class Writer:
    """`append` returns when the lines are durable. Not for two threads at once. Errors of the disk are `OSError`."""

    def __init__(self, folder: Path, name: str, *, segment_bytes: int = SEGMENT_BYTES) -> None:
        if not re.fullmatch(r"[a-z0-9_]+", name):
            raise RolloutError(f"writer name {name!r}: use small letters, digits and underscores")
        folder.mkdir(parents=True, exist_ok=True)
        self._folder, self._name, self._segment_bytes = folder, name, segment_bytes
        own = sorted(folder.glob(f"{name}-*.log"))
        self.cut_bytes = sum(cut_torn_tail(path) for path in own)
        self._number = int(own[-1].stem.rpartition("-")[2]) if own else 0
        self._file = -1
        self._path = folder
        self._end = 0

    def append(self, lines: Sequence[bytes]) -> list[tuple[str, int]]:
        """(file name, offset) of each line. After an error none of them counts, and the next call takes a new file."""
        if not lines:
            return []
        if self._file < 0 or self._end >= self._segment_bytes:
            self._begin_segment()
        places, end = [], self._end
        for line in lines:
            places.append((self._path.name, end))
            end += len(line)
        try:
            _write_all(self._file, b"".join(lines))
            os.fsync(self._file)
        except OSError:
            self._abandon()
            raise
        self._end = end
        return places

    def close(self) -> None:
        """May be called twice."""
        if self._file >= 0:
            os.close(self._file)
            self._file = -1

    def _begin_segment(self) -> None:
        self.close()
        self._number += 1
        self._path = self._folder / f"{self._name}-{self._number:06}.log"
        try:
            self._file = os.open(self._path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_APPEND, 0o644)
        except FileExistsError:
            raise RolloutError(
                f"{self._path}: another process writes as {self._name!r}; give each its own name"
            ) from None
        self._end = 0
        sync_folder(self._folder)

    def _abandon(self) -> None:
        """After a failed write: leave the durable part alone in its file."""
        try:
            os.ftruncate(self._file, self._end)
        finally:
            self.close()


def cut_torn_tail(path: Path) -> int:
    """Drop what follows the last newline; the number of bytes that went."""
    with path.open("rb+") as file:
        size = end = file.seek(0, os.SEEK_END)
        while end > 0:
            start = max(0, end - _BLOCK)
            file.seek(start)
            newline = file.read(end - start).rfind(b"\n")
            if newline >= 0:
                end = start + newline + 1
                break
            end = start
        if end < size:
            file.truncate(end)
            os.fsync(file.fileno())
    return size - end


def sync_folder(folder: Path) -> None:
    """Make the names in a folder durable."""
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def _write_all(file: int, data: bytes) -> None:
    view = memoryview(data)
    while view:
        view = view[os.write(file, view) :]
