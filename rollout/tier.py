"""The engine tier as the driver sees it: whatever has a card in the run directory, as one engine.

Engines come late, die, and come back elsewhere: a card that changed replaces the engine that was behind the old one.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path

from rollout.canary import CheckedEngine
from rollout.errors import EngineError
from rollout.remote import RemoteEngine
from rollout.run_dir import EngineCard, Events, read_cards
from rollout.sglang.engine import SGLangEngine
from rollout.sglang.replicas import Replica, Replicas

WATCH_S = 0.5  # between two looks at the cards
RETRY_S = (0.2, 5.0)  # first and longest pause between attempts to reach an engine


@contextlib.asynccontextmanager
async def open_tier(run: Path, dtype: str, events: Events) -> AsyncIterator[Replicas]:
    """All engines of the run, present and future; every update of each is checked by the canary.

    Args:
        dtype: that engines compute in, which sets the canary's tolerance.
        events: is told of every engine that joins or is updated.
    """
    replicas = Replicas([], RETRY_S)
    watching = asyncio.create_task(_watch(run, replicas, dtype, events))
    try:
        yield replicas
    finally:
        watching.cancel()
        await asyncio.wait([watching])
        await replicas.close()


async def _watch(run: Path, replicas: Replicas, dtype: str, events: Events) -> None:
    """Until cancelled: add the engines of new cards, take out those whose card changed."""
    known: dict[str, tuple[int, _Carded]] = {}
    while True:
        for card in await asyncio.to_thread(read_cards, run):
            if card.name not in known:
                starter = _Carded(run, card.name, dtype, events)
                known[card.name] = (replicas.add(starter), starter)
            at, starter = known[card.name]
            if starter.card not in (None, card):
                starter.card = None
                events.add("engine_moved", engine=card.name, url=card.url)
                await replicas.lost(at)
        await asyncio.sleep(WATCH_S)


class _Carded:
    """A `Starter`: connects to whatever the card of that name says now."""

    def __init__(self, run: Path, name: str, dtype: str, events: Events) -> None:
        self._run, self._name, self._dtype, self._events = run, name, dtype, events
        self.card: EngineCard | None = None  # that is connected to

    async def __call__(self, *, again: bool) -> Replica:
        card = next((card for card in await asyncio.to_thread(read_cards, self._run) if card.name == self._name), None)
        if card is None:
            raise EngineError("unreachable", f"engine {self._name} has no card")
        connect: Callable[[EngineCard], Awaitable[Replica]] = _sglang if card.kind == "sglang" else RemoteEngine.connect
        engine = await connect(card)
        self.card = card
        return CheckedEngine(engine, self._name, self._dtype, self._note)

    def _note(self, policy_version: int, seconds: float, difference: float) -> None:
        self._events.add(
            "engine_synced",
            engine=self._name,
            policy_version=policy_version,
            pause_s=seconds,
            canary_max_diff=difference,
        )


async def _sglang(card: EngineCard) -> SGLangEngine:
    return await SGLangEngine.connect(card.url, drop_seeds=True)
