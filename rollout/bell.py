"""Waiting for any change, without a lost wake-up and never for ever."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable

POLL_S = 0.5  # the longest wait: a change that nobody rang for is seen then


class Bell:
    """`ring()` wakes everybody who waits."""

    def __init__(self) -> None:
        self._rung = asyncio.Event()

    def ring(self) -> None:
        """Something happened that may matter."""
        self._rung.set()
        self._rung = asyncio.Event()

    async def heard(self) -> None:
        """Until the next ring, or half a second."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(POLL_S):  # not wait_for: Python 3.11's can swallow a cancellation
                await self._rung.wait()

    async def until(self, condition: Callable[[], bool]) -> None:
        """Until it holds; asked after every ring."""
        while not condition():
            await self.heard()
