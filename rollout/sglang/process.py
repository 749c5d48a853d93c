"""A server process of ours: started in its own group, waited for with a deadline, stopped whole."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
from pathlib import Path

from rollout.child import dying_with_us
from rollout.errors import EngineError
from rollout.sglang.http import Http
from rollout.sglang.launch import Launch, build_argv, build_env

TAIL_LINES = 12
POLL_S = 0.5
STOP_S = 20.0


class ServerProcess:
    """`server = await ServerProcess.start(launch, log, python=...)`; then `await server.stop()`."""

    def __init__(self, process: asyncio.subprocess.Process, launch: Launch, log: Path) -> None:
        self._process = process
        self.launch = launch
        self.log = log

    @classmethod
    async def start(cls, launch: Launch, log: Path, *, python: str, ready_s: float = 900.0) -> ServerProcess:
        """Start it and wait until it answers. Raises EngineError with the end of its log."""
        with log.open("ab") as out:
            process = await asyncio.create_subprocess_exec(
                *dying_with_us(build_argv(launch, python)),
                stdout=out,
                stderr=out,
                stdin=asyncio.subprocess.DEVNULL,
                env=build_env(launch, os.environ),
                start_new_session=True,
            )
        server = cls(process, launch, log)
        try:
            await server._wait_ready(ready_s)
        except BaseException:
            await server.stop()
            raise
        return server

    @property
    def url(self) -> str:
        return f"http://{self.launch.host}:{self.launch.port}"

    @property
    def pid(self) -> int:
        return self._process.pid

    @property
    def alive(self) -> bool:
        return self._process.returncode is None

    async def ended(self, asked: asyncio.Event) -> None:
        """Wait until somebody asks for the end. Raises EngineError("dead") when the server ends by itself."""
        waits = {asyncio.create_task(asked.wait()), asyncio.create_task(self._process.wait())}
        _, others = await asyncio.wait(waits, return_when=asyncio.FIRST_COMPLETED)
        for task in others:
            task.cancel()
        if not asked.is_set():
            raise EngineError("dead", f"sglang ended with {self._process.returncode}: {self._tail()}")

    async def stop(self) -> None:
        """Ask, wait, then kill the whole group. Never raises, may be called twice."""
        if self.alive:
            self._signal(signal.SIGTERM)
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(STOP_S):
                    await self._process.wait()
        self._signal(signal.SIGKILL)  # children outlive a server that crashed
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(STOP_S):
                await self._process.wait()

    def _signal(self, number: int) -> None:
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(self._process.pid, number)

    async def _wait_ready(self, ready_s: float) -> None:
        http = Http(self.url)
        try:
            async with asyncio.timeout(ready_s):
                while True:
                    if not self.alive:
                        raise EngineError("dead", f"sglang ended with {self._process.returncode}: {self._tail()}")
                    with contextlib.suppress(EngineError):
                        await http.get("/ready", deadline_s=5)
                        return
                    await asyncio.sleep(POLL_S)
        except TimeoutError:
            raise EngineError("unreachable", f"sglang not ready in {ready_s:.0f} s: {self._tail()}") from None
        finally:
            await http.close()

    def _tail(self) -> str:
        lines = self.log.read_text(errors="replace").splitlines()[-TAIL_LINES:]
        return f"the end of {self.log} is:\n" + "\n".join(lines)
