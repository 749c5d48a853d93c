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

RETRY_S = (1.0, 60.0)  # first and longest pause between attempts to bring a server back
ELSEWHERE = ("unreachable", "dead", "not_ready")
"""Causes that say something about the server and nothing about the request."""


class Starter(Protocol):
    """Brings one replica up: connects to a running server, or starts one, in the place of the last."""

    async def __call__(self, *, again: bool) -> SGLangEngine: ...


class Replicas:
    """`engine = await Replicas.start(starters)`. Generates on what is alive; brings back what is not."""

    def __init__(self, starters: Sequence[Starter]) -> None:
        self._starters = list(starters)
        self._engines: list[SGLangEngine | None] = [None] * len(starters)
        self._prefixes = PrefixMap()
        self._newest: tuple[Path, int] | None = None
        self._updating = asyncio.Lock()
        self._revivals: dict[int, asyncio.Task[None]] = {}
        self.restarts = 0  # servers brought back so far

    @classmethod
    async def start(cls, starters: Sequence[Starter]) -> Replicas:
        """All of them must come up. Raises the first EngineError, with everything closed."""
        replicas = cls(starters)
        results = await asyncio.gather(*(starter(again=False) for starter in starters), return_exceptions=True)
        replicas._engines = [r if isinstance(r, SGLangEngine) else None for r in results]
        for result in results:
            if isinstance(result, BaseException):
                await replicas.close()
                raise result
        return replicas

    @property
    def policy_version(self) -> int | None:
        """The version that every live replica has confirmed."""
        return None if self._newest is None else self._newest[1]

    async def generate(self, prompt_ids: Sequence[int], sampling: Sampling, *, deadline_s: float) -> Completion:
        """See `Engine.generate`. A request whose server fails goes to another one: no token of it was delivered."""
        end = asyncio.get_running_loop().time() + deadline_s
        tried: set[int] = set()
        while True:
            at = self._choose(prompt_ids, tried)
            engine = self._engines[at]
            assert engine is not None
            try:
                left = max(end - asyncio.get_running_loop().time(), 0.0)
                completion = await engine.generate(prompt_ids, sampling, deadline_s=left)
            except EngineError as error:
                if error.cause not in ELSEWHERE:
                    raise
                await self._failed(at, engine)
                tried.add(at)
                if not self._others(tried):
                    raise
                continue
            self._prefixes.add([*prompt_ids, *completion.token_ids], at)
            return completion

    async def update_weights(self, path: Path, policy_version: int) -> float:
        """See `Engine.update_weights`: the longest pause of any replica. A replica that fails at it is replaced.

        Raises EngineError when the folder is bad (all go on with their old version) or when no replica is left.
        """
        try:
            await asyncio.to_thread(verify, path, policy_version)
        except RolloutError as error:
            raise EngineError("update_failed", str(error)) from None
        async with self._updating:
            live = [(at, engine) for at, engine in enumerate(self._engines) if engine is not None]
            loads = (engine.load_verified(path, policy_version) for _, engine in live)
            results = await asyncio.gather(*loads, return_exceptions=True)
            seconds = [r for r in results if isinstance(r, float)]
            failures = [r for r in results if isinstance(r, EngineError)]
            if failures and not seconds and all(f.cause == "update_failed" for f in failures):
                raise failures[0]
            if seconds:
                self._newest = (path, policy_version)
        for (at, engine), result in zip(live, results, strict=True):
            if isinstance(result, BaseException):
                await self._failed(at, engine)
        if not seconds:
            raise EngineError("dead", f"no replica took version {policy_version}: {failures}")
        return max(seconds)

    async def health(self) -> Health:
        """Sums over the live replicas. Raises EngineError("dead") when there is none."""
        live = [engine for engine in self._engines if engine is not None]
        if not live:
            raise EngineError("dead", "no replica is alive")
        each = [await engine.health() for engine in live]
        return Health(
            policy_version=self.policy_version,
            running=sum(h.running for h in each),
            waiting=sum(h.waiting for h in each),
            capacity=sum(h.capacity for h in each),
        )

    async def close(self) -> None:
        """Ends the connections and the attempts to bring servers back."""
        for task in list(self._revivals.values()):
            task.cancel()
        await asyncio.gather(*self._revivals.values(), return_exceptions=True)
        for engine in self._engines:
            if engine is not None:
                await engine.close()
        self._engines = [None] * len(self._engines)

    def _others(self, tried: set[int]) -> list[int]:
        return [at for at, engine in enumerate(self._engines) if engine is not None and at not in tried]

    def _choose(self, prompt_ids: Sequence[int], tried: set[int]) -> int:
        """The replica that knows the prompt, unless its queue is a server longer than the shortest one."""
        live = {at: engine for at in self._others(tried) if (engine := self._engines[at]) is not None}
        if not live:
            raise EngineError("dead", "no replica is alive")
        idle = min(live, key=lambda at: live[at].load)
        known = self._prefixes.find(prompt_ids)
        if known in live and live[known].load < live[idle].load + live[idle].info.capacity:
            return known
        return idle

    async def _failed(self, at: int, engine: SGLangEngine) -> None:
        """Take a replica out, once, and start to bring it back."""
        if self._engines[at] is not engine:
            return
        self._engines[at] = None
        self._revivals[at] = asyncio.create_task(self._revive(at))
        await engine.close()

    async def _revive(self, at: int) -> None:
        """Until it is up and has the newest version; only then does it answer again."""
        pause, longest = RETRY_S
        while True:
            with contextlib.suppress(EngineError, OSError):
                engine = await self._starters[at](again=True)
                try:
                    await self._catch_up(at, engine)
                except BaseException:
                    await engine.close()
                    raise
                self.restarts += 1
                del self._revivals[at]
                return
            await asyncio.sleep(pause)
            pause = min(2 * pause, longest)

    async def _catch_up(self, at: int, engine: SGLangEngine) -> None:
        while True:
            newest = self._newest
            if newest is not None and engine.policy_version != newest[1]:
                await engine.load_verified(*newest)
            async with self._updating:
                if newest == self._newest:
                    self._engines[at] = engine
                    return


def connecting(url: str, *, mode: str = "in_place", token: str = "") -> Starter:
    """A starter for a server that somebody else runs (and starts again)."""

    async def start(*, again: bool) -> SGLangEngine:
        return await SGLangEngine.connect(url, mode=mode, token=token)

    return start


OnStart = Callable[[bool], Awaitable[str]]


def starting(serve: OnStart, *, mode: str = "in_place") -> Starter:
    """A starter for a server of ours: `serve(again)` starts it, in the place of the last one, and tells its URL."""

    async def start(*, again: bool) -> SGLangEngine:
        return await SGLangEngine.connect(await serve(again), mode=mode)

    return start
