"""The warm pool and the fake failures."""

import asyncio
import os
import signal
import threading
import time
from pathlib import Path
from typing import Any

import pytest
from host_traces import Traces

from envs.errors import SandboxError
from envs.sandbox.faulty import FAULTS, FaultyOpener
from envs.sandbox.folder import Folder, driver_name, make_folder
from envs.sandbox.identity import home
from envs.sandbox.live import LiveSandbox
from envs.sandbox.open import _launch as launch
from envs.sandbox.open import open_sandbox
from envs.sandbox.pool import Pool
from envs.types import Limits

LIMITS = Limits(command_s=1, memory_mb=256, processes=64, disk_mb=64)
pytestmark = pytest.mark.usefixtures("base_image")


def episodes() -> list[Path]:
    folder = home() / "episodes" / driver_name()
    return sorted(folder.iterdir()) if folder.is_dir() else []


def test_a_warm_sandbox_comes_at_once_is_used_once_and_the_pool_leaves_nothing():
    async def go() -> None:
        async with Pool(warm=2) as pool:
            first = await pool.open("base", limits=LIMITS, decoys=("/withheld/a",))
            await first.exec("echo mine > /workspace/mark")
            waits = []
            for _ in range(3):  # the fastest of three: the machine may be busy with something else
                await pool.ready()
                began = time.monotonic()
                second = await pool.open("base", limits=LIMITS, decoys=("/withheld/a",))
                waits.append(time.monotonic() - began)
                if len(waits) < 3:
                    await second.close()
            assert min(waits) < 0.015
            assert (await second.exec("ls /workspace")).output == ""
            await second.exec("cat /withheld/a")
            assert len((await second.effects()).decoy_reads) == 1
            assert (await first.effects()).decoy_reads == ()
            await pool.ready()
            traces = Traces(first)
            await first.close()
            assert traces.left() == []
            await second.close()
            assert len(episodes()) == 2, "two wait"
        assert episodes() == []

    asyncio.run(go())


def test_other_arguments_get_their_own_sandbox_and_push_out_the_oldest():
    async def go() -> None:
        async with Pool(warm=1) as pool:
            one = await pool.open("base", limits=LIMITS, workdir="/workspace/one")
            two = await pool.open("base", limits=LIMITS, workdir="/workspace/two")
            assert (await one.exec("pwd")).output == "/workspace/one\n"
            assert (await two.exec("pwd")).output == "/workspace/two\n"
            await asyncio.gather(one.close(), two.close(), pool.ready())
        assert episodes() == []

    asyncio.run(go())


def test_a_warm_sandbox_that_died_is_replaced():
    async def go() -> None:
        async with Pool(warm=1) as pool:
            await (await pool.open("base", limits=LIMITS)).close()
            await pool.ready()
            waiting = pool._waiting[0][1].result()
            os.kill(waiting.init_pid, signal.SIGKILL)
            await waiting._launcher.wait()
            box = await pool.open("base", limits=LIMITS)
            assert (await box.exec("echo alive")).output == "alive\n"
            await box.close()
        assert episodes() == []

    asyncio.run(go())


def test_a_bad_image_is_an_error_of_the_caller_each_time_and_the_pool_lives():
    async def go() -> None:
        async with Pool(warm=2) as pool:
            for _ in range(2):
                with pytest.raises(SandboxError, match="no-such-image"):
                    await pool.open("no-such-image", limits=LIMITS)
            box = await pool.open("base", limits=LIMITS)
            await box.close()
        assert episodes() == []

    asyncio.run(go())


def test_leaving_the_pool_while_it_starts_leaves_nothing():
    async def go() -> None:
        async with Pool(warm=4) as pool:
            await (await pool.open("base", limits=LIMITS)).close()
        assert episodes() == []

    asyncio.run(go())


def test_a_start_that_is_cancelled_while_its_folder_is_made_leaves_nothing(monkeypatch):
    """The folder is made in a thread, which goes on."""
    begun, made = threading.Event(), threading.Event()

    def slowly(*how: Any) -> Folder:
        begun.set()
        time.sleep(0.2)
        folder = make_folder(*how)
        made.set()
        return folder

    async def go() -> None:
        monkeypatch.setattr("envs.sandbox.open.make_folder", slowly)
        starting = asyncio.create_task(open_sandbox("base", limits=LIMITS))
        await asyncio.to_thread(begun.wait, 10)
        starting.cancel()
        with pytest.raises(asyncio.CancelledError):
            await starting
        assert made.is_set()
        assert episodes() == []

    asyncio.run(go())


def test_a_start_that_is_cancelled_while_its_process_is_made_ends_that_process(monkeypatch):
    """asyncio of Python 3.11, cancelled between the fork and the pipes, may wait for ever: two in six hundred here."""
    begun, launched = asyncio.Event(), []

    async def slowly(*how: Any) -> asyncio.subprocess.Process:
        begun.set()
        await asyncio.sleep(0.2)
        launched.append(await launch(*how))
        return launched[0]

    async def go() -> None:
        monkeypatch.setattr("envs.sandbox.open._launch", slowly)
        starting = asyncio.create_task(open_sandbox("base", limits=LIMITS))
        await asyncio.wait_for(begun.wait(), 10)
        starting.cancel()
        with pytest.raises(asyncio.CancelledError):
            await asyncio.wait_for(asyncio.shield(starting), 30)
        assert launched[0].returncode is not None
        assert episodes() == []

    asyncio.run(go())


def test_thirty_faulty_episodes_end_with_typed_causes_and_leave_nothing():
    async def episode(opener: FaultyOpener, gate: asyncio.Semaphore) -> str:
        box: LiveSandbox | None = None
        async with gate:
            try:
                box = await opener("base", limits=LIMITS)
                for n in range(4):
                    assert (await box.exec(f"echo {n}")).output == f"{n}\n"
                return "ok"
            except SandboxError as error:
                return error.cause
            finally:
                if box:
                    await box.close()

    async def go() -> None:
        opener, gate = FaultyOpener(open_sandbox, rate=0.4, seed=5), asyncio.Semaphore(4)
        outcomes = await asyncio.gather(*(episode(opener, gate) for _ in range(30)))
        counted = {cause: outcomes.count(cause) for cause in set(outcomes) - {"ok"}}
        expected = dict(opener.injected)
        expected["vanished"] = expected.pop("vanish")
        assert counted == expected
        assert set(opener.injected) == set(FAULTS)
        assert outcomes.count("ok") == 30 - sum(expected.values()) > 10
        assert episodes() == []

    asyncio.run(go())
