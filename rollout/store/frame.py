"""One record as one line of text: `<length> <crc32> <kind> <id> <json>`.

    0000006d 9c1f20ab trajectory fix-7@0/1/2 {"schema":1,"id":"fix-7@0/1/2",...}

Length and checksum (hexadecimal, of everything after them and before the newline) find a torn or changed line; the
newline, which JSON never holds, finds the next one. `cut -d' ' -f5- FILE | jq` reads it.
"""

from __future__ import annotations

import json
import re
import zlib
from collections.abc import Mapping
from dataclasses import dataclass
from urllib.parse import quote, unquote

from rollout.errors import RolloutError

SCHEMA = 1
_HEAD = re.compile(rb"([0-9a-f]{8}) ([0-9a-f]{8}) ([a-z]+) ([^ \n]+) ")


@dataclass(frozen=True, slots=True)
class Entry:
    """Where one record lies: `length` bytes of `file`, its newline included, from `offset` on."""

    kind: str
    id: str
    file: str
    offset: int
    length: int


@dataclass(frozen=True, slots=True)
class Damage:
    """A line that is not what was written."""

    file: str
    offset: int
    length: int
    reason: str


def encode(kind: str, id: str, payload: Mapping[str, object]) -> bytes:
    """The line of one record, newline included."""
    text = json.dumps({"schema": SCHEMA, **payload}, separators=(",", ":"))
    body = f"{kind} {quote(id, safe='/@:+=,')} {text}".encode()
    return b"%08x %08x " % (len(body), zlib.crc32(body)) + body + b"\n"


def locate(line: bytes, file: str, offset: int) -> Entry | Damage:
    """What a whole line holds, its checksum verified; the JSON is not read."""
    head = _HEAD.match(line)
    reason = ""
    if head is None:
        reason = "no record header"
    elif int(head[1], 16) != len(line) - 19:
        reason = f"{len(line) - 19} bytes where {int(head[1], 16)} were written"
    elif int(head[2], 16) != zlib.crc32(memoryview(line)[18:-1]):
        reason = "the checksum differs"
    if head is None or reason:
        return Damage(file, offset, len(line), reason)
    return Entry(head[3].decode(), unquote(head[4].decode("ascii", "replace")), file, offset, len(line))


def payload(line: bytes, where: str) -> dict:
    """The JSON of a line that `locate` accepted. Raises `RolloutError` for a schema that is newer than this program."""
    found = json.loads(line[line.index(b"{") :])
    if found.pop("schema", None) != SCHEMA:
        raise RolloutError(f"{where}: written by another version of ornith-jax; read it with that one")
    return found
