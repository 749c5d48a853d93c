"""Several servers as one `Engine`: requests go where their prefix is, dead servers are replaced, versions agree."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Awaitable, Callable, Sequence
from pathlib import Path
from typing import Protocol

from rollout.engine import Health
from rollout.errors import EngineError, RolloutError
from rollout.published import verify
from rollout.sglang.engine import SGLangEngine
from rollout.sglang.prefixes import PrefixMap
from rollout.types import Completion, Sampling

UPDATE_S = 900.0  # for a replica to come back, when an update finds none alive
RETRY_S = (1.0, 60.0)  # first and longest pause between attempts to bring a server back
ELSEWHERE = ("unreachable", "dead", "not_ready")
"""Causes that say something about the server and nothing about the request."""


class Replica(Protocol):
    """One server: an `Engine` that says how busy it is, and loads a folder whose checksums were compared already."""

    @property
    def load(self) -> int: ...

    @property
    def capacity(self) -> int: ...

    async def generate(self, prompt_ids: Sequence[int], sampling: Sampling, *, deadline_s: float) -> Completion: ...

    async def load_verified(self, path: Path, policy_version: int) -> float: ...

    async def health(self) -> Health: ...

    async def close(self) -> None: ...


class Starter(Protocol):
    """Brings one replica up: connects to a running server, or starts one, in the place of the last."""

    async def __call__(self, *, again: bool) -> Replica: ...


class Replicas:
    """`engine = await Replicas.start(starters)`. Generates on what is alive; brings back what is not."""

    def __init__(self, starters: Sequence[Starter], retry_s: tuple[float, float] = RETRY_S) -> None:
        self._starters, self._retry_s = list(starters), retry_s
        self._live: dict[int, Replica] = {}
        self._prefixes = PrefixMap()
        self._wanted: tuple[Path, int] | None = None  # what a replica must have before it answers
        self._policy_version: int | None = None
        self._updating = asyncio.Lock()
        self._revivals: dict[int, asyncio.Task[None]] = {}
        self._came_back = asyncio.Event()
        self.restarts = 0  # servers brought back so far

    @classmethod
    async def start(cls, starters: Sequence[Starter]) -> Replicas:
        """All of them must come up. Raises the first EngineError, with everything closed."""
        replicas = cls(starters)
        results = await asyncio.gather(*(starter(again=False) for starter in starters), return_exceptions=True)
        replicas._live = {at: r for at, r in enumerate(results) if not isinstance(r, BaseException)}
        for result in results:
            if isinstance(result, BaseException):
                await replicas.close()
                raise result
        return replicas

    def add(self, starter: Starter) -> int:
        """One more, which answers as soon as it is up and has the weights of the others; its number."""
        self._starters.append(starter)
        at = len(self._starters) - 1
        self._revivals[at] = asyncio.create_task(self._revive(at))
        return at

    async def lost(self, at: int) -> None:
        """The server behind replica `at` is known to be another one now: bring the new one up."""
        if at in self._live:
            await self._failed(at, self._live[at])

    def raise_failure(self) -> None:
        """Raise what stopped the attempts to bring a server up: anything but its own failure, such as RolloutError."""
        for task in self._revivals.values():
            if task.done() and not task.cancelled() and (error := task.exception()) is not None:
                raise error

    @property
    def num_live(self) -> int:
        return len(self._live)

    @property
    def policy_version(self) -> int | None:
        """The version that every live replica has confirmed."""
        return self._policy_version

    async def generate(self, prompt_ids: Sequence[int], sampling: Sampling, *, deadline_s: float) -> Completion:
        """See `Engine.generate`. A request whose server fails starts again elsewhere: no token of it was delivered.

        When no replica is alive it waits, within its deadline, for one to come back.
        """
        end = asyncio.get_running_loop().time() + deadline_s
        while True:
            at, engine = await self._choose(prompt_ids, end)
            try:
                left = max(end - asyncio.get_running_loop().time(), 0.0)
                completion = await engine.generate(prompt_ids, sampling, deadline_s=left)
            except EngineError as error:
                if error.cause not in ELSEWHERE or self._policy_version is None:
                    raise
                await self._failed(at, engine)
                continue
            self._prefixes.add([*prompt_ids, *completion.token_ids], at)
            return completion

    async def update_weights(self, path: Path, policy_version: int) -> float:
        """See `Engine.update_weights`: the longest pause of any replica. A replica that fails at it is replaced.

        Raises EngineError when the folder is bad (all go on with their old version) or no replica comes back in time;
        RolloutError of a replica whose weights are not what was published.
        """
        try:
            await asyncio.to_thread(verify, path, policy_version)
        except RolloutError as error:
            raise EngineError("update_failed", str(error)) from None
        await self._some_live(asyncio.get_running_loop().time() + UPDATE_S)
        async with self._updating:
            live = dict(self._live)
            loads = (engine.load_verified(path, policy_version) for engine in live.values())
            results = dict(zip(live, await asyncio.gather(*loads, return_exceptions=True), strict=True))
            for result in results.values():
                if isinstance(result, RolloutError):
                    raise result
            seconds = [r for r in results.values() if isinstance(r, float)]
            failures = [r for r in results.values() if isinstance(r, EngineError)]
            if failures and all(failure.cause == "update_failed" for failure in failures) and not seconds:
                raise failures[0]
            self._wanted = (path, policy_version)
            if seconds:
                self._policy_version = policy_version
        for at, result in results.items():
            if isinstance(result, BaseException):
                await self._failed(at, live[at])
        if not seconds:
            raise EngineError("dead", f"no replica took version {policy_version}: {failures}")
        return max(seconds)

    async def health(self) -> Health:
        """Sums over the live replicas. Raises EngineError("dead") when there is none."""
        if not self._live:
            raise EngineError("dead", "no replica is alive")
        each = [await engine.health() for engine in self._live.values()]
        return Health(
            policy_version=self.policy_version,
            running=sum(h.running for h in each),
            waiting=sum(h.waiting for h in each),
            capacity=sum(h.capacity for h in each),
        )

    async def close(self) -> None:
        """Ends the connections and the attempts to bring servers back."""
        revivals = list(self._revivals.values())
        for task in revivals:
            task.cancel()
        await asyncio.gather(*revivals, return_exceptions=True)
        while self._live:
            await self._live.popitem()[1].close()

    async def _some_live(self, end: float) -> None:
        """Wait until a replica answers. Raises EngineError("dead") when the deadline passes first."""
        while not self._live:
            self._came_back.clear()
            try:
                async with asyncio.timeout_at(end):
                    await self._came_back.wait()
            except TimeoutError:
                raise EngineError("dead", "no replica is alive, and none came back in time") from None

    async def _choose(self, prompt_ids: Sequence[int], end: float) -> tuple[int, Replica]:
        """The replica that knows the prompt, unless its queue is a server longer than the shortest one."""
        await self._some_live(end)
        idle = min(self._live, key=lambda at: self._live[at].load)
        known = self._prefixes.find(prompt_ids)
        if known is not None and known in self._live:
            engine = self._live[known]
            if engine.load < self._live[idle].load + engine.capacity:
                return known, engine
        return idle, self._live[idle]

    async def _failed(self, at: int, engine: Replica) -> None:
        """Take a replica out, once, and start to bring it back."""
        if self._live.get(at) is not engine:
            return
        del self._live[at]
        self._revivals[at] = asyncio.create_task(self._revive(at))
        await engine.close()

    async def _revive(self, at: int) -> None:
        """Until it is up and has the wanted version; only then does it answer again."""
        pause, longest = self._retry_s
        while True:
            with contextlib.suppress(EngineError, OSError):
                engine = await self._starters[at](again=True)
                try:
                    await self._join(at, engine)
                except BaseException:
                    await engine.close()
                    raise
                return
            await asyncio.sleep(pause)
            pause = min(2 * pause, longest)

    async def _join(self, at: int, engine: Replica) -> None:
        """Load what is wanted now, and again if that changed in the meantime."""
        while True:
            wanted = self._wanted
            if wanted is not None:
                await engine.load_verified(*wanted)
            async with self._updating:
                if wanted == self._wanted:
                    self._live[at] = engine
                    self._policy_version = None if wanted is None else wanted[1]
                    self.restarts += 1
                    del self._revivals[at]
                    self._came_back.set()
                    return


def connecting(url: str, *, mode: str = "in_place", token: str = "", drop_seeds: bool = False) -> Starter:
    """A starter for a server that somebody else runs (and starts again)."""

    async def start(*, again: bool) -> SGLangEngine:
        return await SGLangEngine.connect(url, mode=mode, token=token, drop_seeds=drop_seeds)

    return start


OnStart = Callable[[bool], Awaitable[str]]


def starting(serve: OnStart, *, mode: str = "in_place") -> Starter:
    """A starter for a server of ours: `serve(again)` starts it, in the place of the last one, and tells its URL."""

    async def start(*, again: bool) -> SGLangEngine:
        return await SGLangEngine.connect(await serve(again), mode=mode)

    return start
