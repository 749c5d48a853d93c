"""The policy's sandbox of one episode, and a fresh one for each attempt; what was done in it stays on record."""

from __future__ import annotations

import time
from dataclasses import replace

from envs.guard.boundary import collect, open_for_policy
from envs.sandbox.protocol import OpenSandbox, Sandbox
from envs.tools import Call, dispatch
from envs.types import Action, Episode, Task


class Workspace:
    """`async with Workspace(...)`: open at entry, closed at exit whatever happens. Raises SandboxError."""

    def __init__(self, task: Task, open_sandbox: OpenSandbox, *, shell_s: int, scaffold: str) -> None:
        self._task, self._open, self._scaffold = task, open_sandbox, scaffold
        # The tool layer keeps the shorter limit: a sandbox with limits of its own could not come from a warm pool.
        limits = replace(task.limits, command_s=float(shell_s) if shell_s else task.limits.command_s)
        self._narrowed = replace(task, limits=limits)
        self._sandbox: Sandbox | None = None
        self.actions: list[Action] = []
        self.earlier: list[Episode] = []  # of attempts that were given up: the monitor sees them too
        self.acted_s = 0.0

    async def __aenter__(self) -> Workspace:
        self._sandbox = await open_for_policy(self._task, self._open)
        return self

    async def __aexit__(self, *error: object) -> None:
        if self._sandbox is not None:
            await self._sandbox.close()

    async def act(self, call: Call, turn: int, *, on_record: bool = True) -> Action:
        """Carry out one call. The driver's own calls are not on the policy's record."""
        assert self._sandbox is not None
        started = time.monotonic()
        self._sandbox.turn = turn
        action = await dispatch(self._sandbox, self._narrowed, call, turn=turn)
        self.acted_s += time.monotonic() - started
        if on_record:
            self.actions.append(action)
        return action

    async def restart(self) -> None:
        """Put what was done on record and begin again from the pristine image."""
        self.earlier.append(await self.collect())
        assert self._sandbox is not None
        await self._sandbox.close()
        self._sandbox = None
        self._sandbox = await open_for_policy(self._task, self._open)

    async def collect(self) -> Episode:
        """What the episode came to, read on the host."""
        assert self._sandbox is not None
        return await collect(self._sandbox, self._task, self.actions, self._scaffold)
