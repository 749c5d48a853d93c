"""A directory of append-only logs, safe for many writers on a shared file system without a lock.

One file per writer, made with O_EXCL and never opened for writing again; readers merge all files. A line is
`<crc32 of the rest, 8 hex digits> <JSON>\\n`; it counts when it is whole, so a writer killed at any byte leaves at most
a tail that readers ignore. `append` returns after fsync: what it acknowledged survives.
"""

from __future__ import annotations

import contextlib
import json
import os
import secrets
import socket
import zlib
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from rollout.errors import RolloutError

Position = Mapping[str, int]
"""File name -> bytes that were read. Plain JSON: a checkpoint can hold it."""


class Writer:
    """Appends to a file of its own, made at the first record."""

    def __init__(self, folder: Path) -> None:
        host = "".join(c for c in socket.gethostname() if c.isalnum() or c == "-")[:40]
        self.path = folder / f"{host}-{os.getpid()}-{secrets.token_hex(4)}.log"
        self.end = 0
        self._file: int | None = None

    def append(self, record: Mapping[str, Any]) -> None:
        """Durable when it returns. Raises RolloutError when the disk refuses; the file then ends as before."""
        body = json.dumps(record, ensure_ascii=False, separators=(",", ":")).encode()
        line = b"%08x " % zlib.crc32(body) + body + b"\n"
        try:
            if self._file is None:
                self._file = self._make()
            _write_all(self._file, line)
            os.fsync(self._file)
        except OSError as error:
            if self._file is not None:
                with contextlib.suppress(OSError):
                    os.ftruncate(self._file, self.end)
            raise RolloutError(f"{self.path}: cannot be written: {error.strerror}") from error
        self.end += len(line)

    def close(self) -> None:
        if self._file is not None:
            os.close(self._file)
            self._file = None

    def _make(self) -> int:
        self.path.parent.mkdir(parents=True, exist_ok=True)
        file = os.open(self.path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_APPEND, 0o644)
        folder = os.open(self.path.parent, os.O_RDONLY)
        try:
            os.fsync(folder)
        finally:
            os.close(folder)
        return file


def _write_all(file: int, data: bytes) -> None:
    while data:
        data = data[os.write(file, data) :]


def read_new(folder: Path, position: Position, upto: Position | None = None) -> tuple[list[dict], dict[str, int], list]:
    """(whole records beyond `position`, the new position, damaged lines as "file at byte n").

    `upto` stops each file where a checkpoint had read it. Order: by file name, then as written.
    """
    records: list[dict] = []
    damaged: list[str] = []
    reached = dict(position)
    for path in sorted(folder.glob("*.log")):
        start = reached.get(path.name, 0)
        limit = None if upto is None else upto.get(path.name, 0)
        for offset, body in _lines(path, start, limit):
            reached[path.name] = offset + len(body)
            if (record := _checked(body)) is None:
                damaged.append(f"{path.name} at byte {offset}")
            else:
                records.append(record)
    return records, reached, damaged


def _lines(path: Path, start: int, limit: int | None) -> Iterator[tuple[int, bytes]]:
    """(offset, whole line with its newline); an unfinished last line is left for a later call."""
    with path.open("rb") as file:
        file.seek(start)
        for line in file:
            if not line.endswith(b"\n") or (limit is not None and start + len(line) > limit):
                return
            yield start, line
            start += len(line)


def _checked(line: bytes) -> dict[str, Any] | None:
    try:
        crc, body = int(line[:8], 16), line[9:-1]
        return json.loads(body) if zlib.crc32(body) == crc else None
    except ValueError:
        return None
