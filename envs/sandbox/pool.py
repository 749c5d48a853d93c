"""A warm pool: sandboxes started before they are asked for, each used for one episode and never again."""

from __future__ import annotations

import asyncio
import contextlib
import os
from collections.abc import Mapping, Sequence
from types import TracebackType

from envs.errors import SandboxError
from envs.sandbox.live import LiveSandbox
from envs.sandbox.open import start
from envs.sandbox.spec import Spec
from envs.types import File, Limits

END_S = 60.0


class Pool:
    """`async with Pool(warm=4) as pool: box = await pool.open("base", limits=...)`.

    `pool.open` takes what `open_sandbox` takes and returns an already running sandbox when one with the same
    arguments is ready; it then starts the next in the background. `warm` sandboxes wait at most, the oldest giving
    way to those of newer arguments; about two starts per core run at once. The caller closes what it opened; leaving
    the pool closes those that wait.
    """

    def __init__(self, *, warm: int, starts: int = 2 * (os.cpu_count() or 1)) -> None:
        self._warm = warm
        self._starts = asyncio.Semaphore(starts)
        self._waiting: list[tuple[Spec, asyncio.Task[LiveSandbox]]] = []
        self._endings: set[asyncio.Task[None]] = set()

    async def __aenter__(self) -> Pool:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        while self._waiting:
            self._discard(self._waiting.pop()[1])
        if self._endings:  # what does not end in time is left to the reaper
            await asyncio.wait(self._endings, timeout=END_S)

    async def open(
        self,
        image: str,
        *,
        limits: Limits,
        workdir: str = "/workspace",
        decoys: Sequence[str] = (),
        read_only: Mapping[str, File] | None = None,
        backend: str = "auto",
    ) -> LiveSandbox:
        """As `open_sandbox`, from the pool."""
        spec = Spec(
            image=image,
            limits=limits,
            workdir=workdir,
            decoys=tuple(decoys),
            read_only=dict(read_only or {}),
            backend=backend,
        )
        task = self._take(spec)
        if task is not None:
            self._refill(spec)
            with contextlib.suppress(SandboxError):  # a failed start in the background: the next attempt says why
                box = await self._outcome(task)
                if box.alive:
                    return box
                await box.close()
        box = await self._start(spec)
        self._refill(spec)
        return box

    async def ready(self) -> None:
        """Wait until every background start has ended."""
        tasks = [task for _, task in self._waiting]
        if tasks:
            await asyncio.wait(tasks)

    def _take(self, spec: Spec) -> asyncio.Task[LiveSandbox] | None:
        """The waiting sandbox of these arguments that is nearest to being ready."""
        same = [item for item in self._waiting if item[0] == spec]
        if not same:
            return None
        best = next((item for item in same if item[1].done()), same[0])
        self._waiting.remove(best)
        return best[1]

    def _refill(self, spec: Spec) -> None:
        others = [item for item in self._waiting if item[0] != spec]
        for _ in range(self._warm - (len(self._waiting) - len(others))):
            if len(self._waiting) >= self._warm:
                if not others:
                    return
                oldest = others.pop(0)
                self._waiting.remove(oldest)
                self._discard(oldest[1])
            self._waiting.append((spec, asyncio.create_task(self._start(spec))))

    async def _start(self, spec: Spec) -> LiveSandbox:
        async with self._starts:
            return await start(spec)

    async def _outcome(self, task: asyncio.Task[LiveSandbox]) -> LiveSandbox:
        try:
            return await asyncio.shield(task)
        except asyncio.CancelledError:
            self._discard(task)
            raise

    def _discard(self, task: asyncio.Task[LiveSandbox]) -> None:
        ending = asyncio.create_task(_end(task))
        self._endings.add(ending)
        ending.add_done_callback(self._endings.discard)


async def _end(task: asyncio.Task[LiveSandbox]) -> None:
    """Close a sandbox that nobody will use, whether it runs, is starting, or has failed."""
    task.cancel()
    with contextlib.suppress(SandboxError, asyncio.CancelledError):
        box = await task
        await box.close()
