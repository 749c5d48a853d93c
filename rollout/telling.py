"""What a driver says of itself: a line for people, a heartbeat with the same words, and counts as events."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

from rollout.driver import Driver
from rollout.progress import show
from rollout.run_dir import Events, beat

PROCESS = "driver"
BEAT_S = 1.0
TALLY_S = 20.0  # between two tally events


@contextlib.asynccontextmanager
async def telling(run: Path, driver: Driver, sandboxes: Callable[[], int], events: Events) -> AsyncIterator[None]:
    """Say what goes on: a line for people, a heartbeat, and the counts now and then."""

    def line() -> str:
        return driver.tally.line(
            in_flight=driver.in_flight, policy_version=driver.policy_version, sandboxes=sandboxes()
        )

    async def tell() -> None:
        told = time.monotonic()
        while True:
            await asyncio.to_thread(beat, run, PROCESS, line())
            if time.monotonic() - told > TALLY_S:
                told = time.monotonic()
                events.add("tally", sandboxes=sandboxes(), **counts(driver))
            await asyncio.sleep(BEAT_S)

    telling = [asyncio.create_task(show(line)), asyncio.create_task(tell())]
    try:
        yield
    finally:
        for task in telling:
            task.cancel()
        await asyncio.wait(telling)


def counts(driver: Driver) -> dict[str, Any]:
    """What a driver has seen since it started."""
    tally = driver.tally
    episodes, tokens = tally.rates()
    return {
        "in_flight": driver.in_flight,
        "episodes": tally.episodes,
        "groups": tally.groups,
        "benched": tally.benched,
        "episodes_per_minute": episodes,
        "tokens_per_s": tokens,
        "outcomes": dict(tally.outcomes),
        "infra": dict(tally.infra),
        "dropped": dict(tally.dropped),
        "staleness": {str(age): count for age, count in sorted(tally.staleness.items())},
    }
