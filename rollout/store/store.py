"""The writing side for asyncio: `await store.append(...)` returns when the record is on the disk, and once per id.

Encoding and `fsync` run in one thread; records that arrive while it works share the next `fsync`.
"""

from __future__ import annotations

import asyncio
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import TracebackType
from typing import Any, TypeVar

from rollout.store.codec import from_json, to_json
from rollout.store.frame import Entry, encode
from rollout.store.index import Index
from rollout.store.writer import SEGMENT_BYTES, Writer

T = TypeVar("T")
_Pending = tuple[str, str, Any, asyncio.Future[None]]


class Store:
    """`async with await Store.open(folder, "driver0") as store: await store.append("trajectory", t.id, t)`.

    One name per process: two that write at the same time need two names. Records written by others are seen as they
    were at the opening.
    """

    def __init__(self, writer: Writer, index: Index) -> None:
        self.index = index
        self._writer = writer
        self._thread = ThreadPoolExecutor(1, "store")
        self._under_way: dict[tuple[str, str], asyncio.Future[None]] = {}
        self._pending: list[_Pending] = []
        self._flushing: asyncio.Task[None] | None = None

    @classmethod
    async def open(cls, folder: Path, name: str = "driver0", *, segment_bytes: int = SEGMENT_BYTES) -> Store:
        """Cut what a kill has torn, and read where everything lies. Raises `RolloutError` and `OSError`."""

        def prepare() -> tuple[Writer, Index]:
            writer = Writer(folder, name, segment_bytes=segment_bytes)
            index = Index(folder)
            index.refresh()
            return writer, index

        return cls(*await asyncio.to_thread(prepare))

    async def __aenter__(self) -> Store:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close()

    def has(self, kind: str, id: str) -> bool:
        """Is there such a record, on the disk?"""
        return (kind, id) in self.index.entries

    async def append(self, kind: str, id: str, value: Any) -> bool:
        """Store a dataclass or mapping; False, and nothing written, if the id has a record. Raises `OSError`.

        In either case there is a durable record on return. A cancelled call may still write it.
        """
        if (kind, id) in self.index.entries:
            return False
        if (kind, id) in self._under_way:
            await asyncio.shield(self._under_way[kind, id])
            return False
        done: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._under_way[kind, id] = done
        self._pending.append((kind, id, value, done))
        if self._flushing is None:
            self._flushing = asyncio.create_task(self._flush())
        await asyncio.shield(done)
        return True

    async def read(self, kind: str, id: str, of: type[T]) -> T:
        """One record as a value of type `of`. Raises `RolloutError`."""
        return await asyncio.to_thread(lambda: from_json(of, self.index.read(kind, id), f"{kind} {id}"))

    async def close(self) -> None:
        """Wait for what is under way. May be called twice."""
        if self._flushing is not None:
            await asyncio.wait([self._flushing])
        self._thread.shutdown()
        self._writer.close()

    async def _flush(self) -> None:
        while self._pending:
            batch, self._pending = self._pending, []
            try:
                found = await asyncio.get_running_loop().run_in_executor(self._thread, self._write, batch)
            except Exception as error:
                found = [error] * len(batch)
            for (kind, id, _, done), outcome in zip(batch, found, strict=True):
                del self._under_way[kind, id]
                if isinstance(outcome, Exception):
                    _settle(done, outcome)
                else:
                    self.index.add(outcome)
                    self.index.skip(outcome.file, outcome.offset + outcome.length)
                    _settle(done, None)
        self._flushing = None

    def _write(self, batch: list[_Pending]) -> list[Entry | Exception]:
        """In the thread. A value that cannot be encoded fails alone; an error of the disk fails all."""
        lines = [_encode(kind, id, value) for kind, id, value, _ in batch]
        places = iter(self._writer.append([line for line in lines if isinstance(line, bytes)]))
        return [
            Entry(kind, id, *next(places), len(line)) if isinstance(line, bytes) else line
            for (kind, id, _, _), line in zip(batch, lines, strict=True)
        ]


def _encode(kind: str, id: str, value: Any) -> bytes | Exception:
    try:
        return encode(kind, id, to_json(value))
    except Exception as error:
        return error


def _settle(done: asyncio.Future[None], error: Exception | None) -> None:
    if done.done():
        return
    if error is None:
        done.set_result(None)
    else:
        done.set_exception(error)
        done.exception()  # a caller that was cancelled no longer asks
