"""Reading a directory of logs that many processes write, each its own file (`rollout.store.writer`)."""

from __future__ import annotations

import os
import secrets
import socket
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from rollout.store.frame import Damage, locate, payload

Position = Mapping[str, int]
"""File name -> bytes that were read. Plain JSON: a checkpoint can hold it."""


def writer_name() -> str:
    """A name that no other process has, on any host: of the shared file system's writers, each has files of its own."""
    host = "".join(c for c in socket.gethostname().lower() if c in "abcdefghijklmnopqrstuvwxyz0123456789")[:32]
    return f"{host}_{os.getpid()}_{secrets.token_hex(4)}"


def read_new(
    folder: Path, position: Position, upto: Position | None = None
) -> tuple[list[dict[str, Any]], dict[str, int], list[str]]:
    """(whole records beyond `position`, each with its `kind`; the new position; damaged lines as "file: byte n: why").

    `upto` stops every file where a checkpoint had read it. A last line without its end is left for a later call.
    """
    records: list[dict[str, Any]] = []
    damaged: list[str] = []
    reached = dict(position)
    for path in sorted(folder.glob("*.log")):
        offset = reached.get(path.name, 0)
        limit = path.stat().st_size if upto is None else upto.get(path.name, 0)
        with path.open("rb") as file:
            file.seek(offset)
            for line in file:
                if not line.endswith(b"\n") or offset + len(line) > limit:
                    break
                found = locate(line, path.name, offset)
                if isinstance(found, Damage):
                    damaged.append(f"{path.name}: byte {offset}: {found.reason}")
                else:
                    records.append({"kind": found.kind, **payload(line, f"{path} at byte {offset}")})
                offset += len(line)
        reached[path.name] = offset
    return records, reached, damaged
