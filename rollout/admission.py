"""Which task is drawn next, and whether a group may start: the bound on staleness, before anything is generated."""

from __future__ import annotations

import asyncio
import itertools
import logging
import random
import time
from collections.abc import Awaitable, Callable, Iterator, Sequence

from envs.types import Task
from rollout.engine import Health
from rollout.errors import EngineError

HEALTH_S = 10.0  # that the engine may take to say how it is
POLL_S = 0.5  # between two questions
SILENT_S = 900.0  # a server that is started again needs minutes
log = logging.getLogger(__name__)


def capacity(
    *, policy_version: int, first_version: int, max_staleness: int, groups_per_step: int, admitted: int
) -> int:
    """How many more groups may be admitted now (AReaL's rule, arXiv 2505.24298).

    `admitted` counts all groups of the run that were not dropped, whether they run, wait or were trained on;
    `first_version` is the version at which the first of them was admitted. An update consumes `groups_per_step`
    groups, oldest first, so the group of number i (from 0) is consumed by version
    `first_version + i // groups_per_step`: the rule admits it when that is at most `max_staleness` away.
    With `max_staleness` 0 a version admits the groups of its own update and no more: synchronous training.
    """
    return (policy_version - first_version + max_staleness + 1) * groups_per_step - admitted


def draws(tasks: Sequence[Task], seed: int) -> Iterator[tuple[Task, str]]:
    """Endless (task, group id): every task once per round, each round in its own order. The id is "<task id>@<round>".

    The same tasks and seed give the same order, in whatever order the tasks come, so a restart goes on by leaving out
    the ids that it already has.
    """
    ordered = sorted(tasks, key=lambda task: task.id)
    for number in itertools.count():
        turn = list(ordered)
        random.Random(f"{seed}/{number}").shuffle(turn)
        for task in turn:
            yield task, f"{task.id}@{number}"


async def until_engine_is_free(health: Callable[[], Awaitable[Health]]) -> None:
    """Wait while as many requests wait as can run, or the engine does not answer; `SILENT_S` at most for the latter.

    Raises `EngineError` of an engine that has said nothing for so long.
    """
    silent_since: float | None = None
    while True:
        try:
            async with asyncio.timeout(HEALTH_S):
                found = await health()
            silent_since = None
            if found.waiting < max(1, found.capacity):
                return
        except (EngineError, TimeoutError) as error:
            now = time.monotonic()
            if silent_since is None:
                silent_since = now
                log.warning("no group is admitted while the engine does not answer: %s", error or "no answer")
            if now - silent_since > SILENT_S:
                raise EngineError("dead", f"no answer for {SILENT_S:.0f} s; last: {error or 'none in time'}") from error
        await asyncio.sleep(POLL_S)
