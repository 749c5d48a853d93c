"""Trying again, where that is safe: a request that never reached the engine, a sandbox that was never opened."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from envs.errors import SandboxError
from rollout.engine import Engine, Health
from rollout.errors import EngineError
from rollout.types import Completion, Sampling

NEVER_REACHED = ("unreachable", "not_ready")
FIRST_S, MOST_S = 0.2, 10.0  # waits between attempts, doubled


def pause_s(attempt: int) -> float:
    """Seconds after the attempt of this number, from 1."""
    return min(MOST_S, FIRST_S * 2 ** (attempt - 1))


class RetryingEngine:
    """An `Engine` that asks again, up to `attempts` times, while a request does not reach the one it wraps."""

    def __init__(self, engine: Engine, *, attempts: int) -> None:
        self._engine, self._attempts = engine, attempts
        self.retried = 0

    @property
    def policy_version(self) -> int | None:
        return self._engine.policy_version

    async def generate(self, prompt_ids: Sequence[int], sampling: Sampling, *, deadline_s: float) -> Completion:
        """As the wrapped engine; the deadline is of all attempts together. Raises `EngineError` of the last one."""
        until = time.monotonic() + deadline_s
        for attempt in range(1, self._attempts):
            left = until - time.monotonic()
            try:
                return await self._engine.generate(prompt_ids, sampling, deadline_s=left)
            except EngineError as error:
                if error.cause not in NEVER_REACHED or time.monotonic() + pause_s(attempt) >= until:
                    raise
            self.retried += 1
            await asyncio.sleep(pause_s(attempt))
        return await self._engine.generate(prompt_ids, sampling, deadline_s=until - time.monotonic())

    async def update_weights(self, path: Path, policy_version: int) -> float:
        return await self._engine.update_weights(path, policy_version)

    async def health(self) -> Health:
        return await self._engine.health()

    async def close(self) -> None:
        await self._engine.close()


class Opener:
    """Wraps `Pool.open` or `open_sandbox`: a failed start is tried again, up to `attempts` times."""

    def __init__(self, opener: Any, *, attempts: int) -> None:
        self._opener, self._attempts = opener, attempts
        self._opened: list[Any] = []
        self.retried = 0

    @property
    def in_use(self) -> int:
        """Sandboxes that were opened here and still live."""
        self._opened = [box for box in self._opened if box.alive]
        return len(self._opened)

    async def __call__(self, *arguments: Any, **options: Any) -> Any:
        """As the wrapped opener. Raises `SandboxError` of the last attempt."""
        for attempt in range(1, self._attempts + 1):
            try:
                box = await self._opener(*arguments, **options)
                break
            except SandboxError:
                if attempt == self._attempts:
                    raise
            self.retried += 1
            await asyncio.sleep(pause_s(attempt))
        self._opened = [other for other in self._opened if other.alive] + [box]
        return box
