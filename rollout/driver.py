"""The driver: draws tasks, admits groups, keeps them in flight, and hands finished ones to a learner.

    async with Driver(tasks, store, episodes, settings, seed=0, policy_version=0) as driver:
        async for group in driver.groups():      # oldest first, read back from the log
            ...                                  # one update of groups_per_step groups, then
            driver.trained(ids)                  # (driver.position goes into the checkpoint)
            await driver.published(version)      # the engine answers with the new weights

A group is admitted only if it can be consumed within `max_staleness` updates, and an update waits for those that would
be too old for the next one, `group_s` at most: nothing is thrown away for being slow, which would teach on quick
episodes only. `max_staleness` 0 is synchronous training. Killed at any moment, a driver that is started again goes on
with the groups it had admitted, under their ids, scaffolds and versions.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Awaitable, Callable, Collection, Sequence

from envs.types import Task
from rollout.admission import capacity, draws, until_engine_is_free
from rollout.bell import Bell
from rollout.engine import Health
from rollout.errors import RolloutError
from rollout.group import Episodes, end, raise_failure, read_group, run_group
from rollout.ledger import Admission, Ledger, closing_of
from rollout.progress import Tally
from rollout.settings import RolloutSettings
from rollout.store.position import Position
from rollout.store.store import Store
from rollout.types import Group

PAUSE_S = (0.1, 30.0)  # before a group, after others broke one after another: doubled from the first up to the second
log = logging.getLogger(__name__)


class Driver:
    """One to a run. Everything it knows about groups is in the log.

    Args:
        policy_version: what the engine answers with now.
        position: what the learner's checkpoint says it was trained on.
        handed: group ids that the learner holds already.
        limit: groups to admit in all, restarts included; None: endless.
        bounded: False when nobody trains on the groups, so that none can be too old.
        health: the engine's; no group is admitted while as many requests wait as can run.
    """

    def __init__(
        self,
        tasks: Sequence[Task],
        store: Store,
        episodes: Episodes,
        settings: RolloutSettings,
        *,
        seed: int,
        policy_version: int,
        position: Position | None = None,
        handed: Collection[str] = (),
        limit: int | None = None,
        bounded: bool = True,
        health: Callable[[], Awaitable[Health]] | None = None,
    ) -> None:
        if not tasks:
            raise RolloutError("there is no task to draw: see suite.path and suite.categories")
        self.policy_version = policy_version
        self.tally = Tally()
        self._tasks = {task.id: task for task in tasks}
        self._store, self._episodes, self._settings = store, episodes, settings
        self._seed, self._limit, self._bounded, self._health = seed, limit, bounded, health
        self._ledger, self._used = Ledger(), position or Position()
        self._restored: set[str] = set()  # group ids that an earlier process left open or waiting
        self._handed = set(handed)  # group ids that a learner holds
        self._running: dict[str, asyncio.Task[None]] = {}
        self._dropping: set[str] = set()
        self._admitting: list[asyncio.Task[None]] = []  # one, once it is open
        self._bell = Bell()
        self._broken_in_a_row = 0

    async def __aenter__(self) -> Driver:
        """Read what earlier processes left, and start. Raises `RolloutError` for a damaged record of a group."""
        self._ledger = await asyncio.to_thread(Ledger.restore, self._store.index)
        for id in [*self._ledger.waiting]:
            if self._ledger.numbers[id] in self._used:
                self._ledger.done_with(id)
        self._used = self._used.plus(self._ledger.numbers[id] for id in self._ledger.dropped)
        self._restored = {*self._ledger.waiting, *self._ledger.open}
        self._admitting = [asyncio.create_task(self._admit())]
        self._admitting[0].add_done_callback(lambda _: self._bell.ring())
        return self

    async def __aexit__(self, *_: object) -> None:
        """Stop. Episodes under way are cancelled without a record: the next start runs them again."""
        await end(self._admitting)
        await end([*self._running.values()])

    @property
    def in_flight(self) -> int:  # groups under way
        return len(self._running)

    @property
    def position(self) -> Position:
        """What needs no training any more, trained on or dropped: for the learner's checkpoint."""
        return self._used

    async def groups(self) -> AsyncIterator[Group]:
        """Groups that ended and count, each once, the oldest of those that are ready first.

        Ends when `limit` groups were admitted and the last one is handed out. Raises what ended the run: `OSError`
        of the store, `RolloutError` when every task is benched.
        """
        async for admission in self.admissions():
            task = self._tasks.get(admission.task_id)
            group, problems = await read_group(admission, task.category if task else "", self._store)
            for problem in problems:
                log.error("left out of %s: %s", admission.group_id, problem)
                self.tally.infra["damaged_record"] += 1
            yield group

    async def admissions(self) -> AsyncIterator[Admission]:
        """`groups`, unread: for a learner that reads the log itself."""
        while True:
            raise_failure([*self._admitting, *self._running.values()])
            await self._drop_stale()
            admission = self._next()
            if admission is not None:
                self._handed.add(admission.group_id)
                self.tally.staleness[max(0, self.policy_version - admission.admitted_version)] += 1
                yield admission
            elif self._is_over():
                return
            elif not await self._drop_unreachable():
                await self._bell.heard()

    def trained(self, group_ids: Sequence[str]) -> None:
        """An update on these groups is committed."""
        self._used = self._used.plus(self._ledger.numbers[id] for id in group_ids)
        for id in group_ids:
            self._ledger.done_with(id)
            self._handed.discard(id)

    async def drop(self, group_id: str, reason: str) -> None:
        """It made or makes no update: another one may take its place. Said again, it changes nothing."""
        if group_id in self._dropping or group_id in self._ledger.dropped:
            return
        self._dropping.add(group_id)
        await self._store.append("dropped", group_id, {"reason": reason})
        self._ledger.drop(group_id, reason)
        self._used = self._used.plus([self._ledger.numbers[group_id]])
        self.tally.dropped[reason] += 1
        self._handed.discard(group_id)
        if running := self._running.get(group_id):
            running.cancel()
        self._dropping.discard(group_id)
        self._bell.ring()

    async def published(self, policy_version: int) -> None:
        """The engine answers with this version now."""
        if policy_version < self.policy_version:
            raise RolloutError(f"version {policy_version} published after {self.policy_version}; restart to go back")
        self.policy_version = policy_version
        await self._drop_stale()
        self._bell.ring()

    async def _admit(self) -> None:
        """Groups that an earlier process left open, then new ones, while there is room."""
        for admission in list(self._ledger.open.values()):
            if admission.task_id not in self._tasks:
                await self.drop(admission.group_id, "no_task")
                continue
            await self._bell.until(lambda: len(self._running) < self._settings.groups_in_flight)
            if admission.group_id in self._ledger.open:  # it may have become stale in the meantime
                self._start(admission)
        for task, group_id in draws(list(self._tasks.values()), self._seed):
            if self._limit is not None and len(self._ledger.numbers) >= self._limit:
                return
            benched = self._ledger.benched
            if benched.issuperset(self._tasks):
                raise RolloutError(f"all {len(benched)} tasks are benched: each broke again and again; see the causes")
            if task.id not in benched and group_id not in self._ledger.numbers:
                await self._bell.until(self._has_room)
                if self._health is not None:
                    await until_engine_is_free(self._health)
                self._start(await self._let_in(task, group_id))

    async def _let_in(self, task: Task, group_id: str) -> Admission:
        admission = Admission(
            group_id=group_id,
            task_id=task.id,
            number=len(self._ledger.numbers),
            admitted_version=self.policy_version,
            scaffolds=self._settings.scaffolds_per_task,
            solutions=self._settings.solutions_per_scaffold,
        )
        await self._store.append("admitted", group_id, admission)
        self._ledger.admit(admission)
        return admission

    def _has_room(self) -> bool:
        """By the groups in flight, and by the age that a new one could reach."""
        free = len(self._running) < self._settings.groups_in_flight
        return free and (not self._bounded or self._capacity() > 0)

    def _capacity(self) -> int:
        first = self._ledger.first_version
        first = self.policy_version if first is None else min(first, self.policy_version)
        return capacity(
            policy_version=self.policy_version,
            first_version=first,
            max_staleness=self._settings.max_staleness,
            groups_per_step=self._settings.groups_per_step,
            admitted=self._ledger.counted,
        )

    def _start(self, admission: Admission) -> None:
        task = self._running[admission.group_id] = asyncio.create_task(self._run(admission))
        task.add_done_callback(lambda _: self._bell.ring())

    async def _run(self, admission: Admission) -> None:
        id = admission.group_id
        try:
            await asyncio.sleep(self._pause())
            task = self._tasks[admission.task_id]
            members = await run_group(admission, task, self._store, self._episodes, self._settings, self.tally.add)
            closing = closing_of(members, needed=min(2, admission.scaffolds * admission.solutions))
            await self._store.append("closed", id, closing)
        except asyncio.CancelledError:
            self._running.pop(id, None)
            raise
        self._ledger.close(id, closing)
        if closing.reason:
            self._used = self._used.plus([admission.number])
        self._broken_in_a_row = 0 if closing.valid else self._broken_in_a_row + 1
        self.tally.close(closing, benched=len(self._ledger.benched))
        self._running.pop(id)

    def _pause(self) -> float:
        """Seconds to wait when whole groups break one after another: something outside is down, and may come back."""
        first, most = PAUSE_S
        return min(most, first * 2 ** min(self._broken_in_a_row, 20)) if self._broken_in_a_row else 0.0

    def _next(self) -> Admission | None:
        if not self._bounded:
            return next((a for a, _ in self._ledger.waiting.values() if a.group_id not in self._handed), None)
        return self._ledger.next_group(
            self._handed,
            policy_version=self.policy_version,
            max_staleness=self._settings.max_staleness,
            groups_per_step=self._settings.groups_per_step,
        )

    async def _drop_stale(self) -> None:
        """Groups that no update can consume any more within the bound."""
        oldest = self.policy_version - self._settings.max_staleness
        waiting = [admission for id, (admission, _) in self._ledger.waiting.items() if id not in self._handed]
        for admission in [*self._ledger.open.values(), *waiting] if self._bounded else []:
            if admission.admitted_version < oldest:
                await self.drop(admission.group_id, "stale")

    async def _drop_unreachable(self) -> bool:
        """When a learner that went back to an older checkpoint starves: the first group whose tokens are newer."""
        room = self._capacity()
        if not self._bounded or self._running or room > 0 or len(self._handed) >= self._settings.groups_per_step:
            return False
        left = [id for id in self._ledger.waiting if id not in self._handed]
        if not left and room <= -self._settings.groups_per_step:
            raise RolloutError(
                f"policy version {self.policy_version} may use no group of this log and admit none ("
                f"{self._ledger.counted} are in it); start at the version and position of its own checkpoint"
            )
        old = next((id for id in left if id in self._restored), "")
        if old:
            await self.drop(old, "future")
        return bool(old)

    def _is_over(self) -> bool:
        return self._admitting[0].done() and not self._running and self._ledger.waiting.keys() <= self._handed
