"""An engine of a run: starts without weights, tells where it listens, and waits for the driver to load them."""

from __future__ import annotations

import asyncio
import os
import shutil
import socket
import sys
import time
from dataclasses import replace
from pathlib import Path

from ornith_jax.errors import OrnithError
from ornith_jax.experiment import Experiment
from rollout.errors import EngineError
from rollout.ports import allowed, free_port
from rollout.published import family_of, newest
from rollout.run_dir import EngineCard, Events, beat, write_card

BEAT_S = 1.0
FIRST_S = 3600.0  # for the learner to publish the first version


async def run_engine(experiment: Experiment, run: Path, name: str, stop: asyncio.Event) -> None:
    """Serve until `stop` is set.

    Where a run has several hosts it answers to all of them under this one's name, elsewhere to this machine alone.
    Raises OrnithError when the engine died.
    """
    host = socket.gethostname() if {"SLURM_JOB_ID", "ORNITH_COORDINATOR"} & os.environ.keys() else "127.0.0.1"
    try:
        await ENGINES[experiment.engine.kind](experiment, run, name, host, stop)
    except EngineError as error:
        raise OrnithError(f"engine {name}: {error}") from None


async def _embedded(experiment: Experiment, run: Path, name: str, host: str, stop: asyncio.Event) -> None:
    from aiohttp import web

    from ornith_jax.checks import model_config
    from ornith_jax.serve.engine import EmbeddedEngine
    from ornith_jax.serve.http import Server

    cfg = model_config(experiment.model)
    engine = EmbeddedEngine(cfg, replace(experiment.engine, replicas=1))
    runner = web.AppRunner(Server(engine, name).app(), handler_cancellation=True)  # who hangs up frees his row
    await runner.setup()
    try:
        await web.TCPSite(runner, "127.0.0.1" if host == "127.0.0.1" else "0.0.0.0", free_port(allowed())).start()
        _announce(run, EngineCard(name=name, url=f"http://{host}:{runner.addresses[0][1]}", pid=os.getpid()))
        while not stop.is_set():
            health = await engine.health()
            version = "without weights" if health.policy_version is None else f"v{health.policy_version}"
            await asyncio.to_thread(beat, run, name, f"{version}, {health.running} running, {health.waiting} waiting")
            await _pause(stop)
    finally:
        await runner.cleanup()
        await engine.close()


async def _sglang(experiment: Experiment, run: Path, name: str, host: str, stop: asyncio.Event) -> None:
    from rollout.sglang.launch import Launch
    from rollout.sglang.process import ServerProcess

    settings = experiment.engine
    model = await _own_copy(run, name, stop)
    if model is None:
        return
    launch = Launch(
        model=model,
        family=family_of(model),
        host=host,
        port=free_port(allowed()),
        tensor_parallel=settings.tensor_parallel,
        context_tokens=settings.max_len,
        max_running=settings.slots,
        dtype=settings.dtype,
        routed_experts=settings.routed_experts,
    )
    beat(run, name, "starting sglang")
    server = await ServerProcess.start(launch, run / "logs" / f"{name}-sglang.log", python=sys.executable)
    try:
        _announce(run, EngineCard(name=name, url=server.url, kind="sglang", pid=server.pid))
        ended = asyncio.create_task(server.ended(stop))
        while not (await asyncio.wait([ended], timeout=BEAT_S))[0]:
            await asyncio.to_thread(beat, run, name, "serving")
        ended.result()
    finally:
        await server.stop()


ENGINES = {"embedded": _embedded, "sglang": _sglang}


def _announce(run: Path, card: EngineCard) -> None:
    write_card(run, card)
    Events(run, card.name).add("started", url=card.url)


async def _own_copy(run: Path, name: str, stop: asyncio.Event) -> Path | None:
    """The newest version under a name of our own: the server goes on reading there when that version is forgotten."""
    until = time.monotonic() + FIRST_S
    while (found := newest(run / "weights")) is None:
        if time.monotonic() > until:
            raise OrnithError(f"{run}: no learner published a version in {FIRST_S:.0f} s")
        beat(run, name, "waiting for the first version")
        await _pause(stop)
        if stop.is_set():
            return None
    folder = run / "engines" / f"{name}-model"
    shutil.rmtree(folder, ignore_errors=True)
    await asyncio.to_thread(shutil.copytree, found[1], folder, copy_function=os.link)
    return folder


async def _pause(stop: asyncio.Event) -> None:
    try:
        async with asyncio.timeout(BEAT_S):
            await stop.wait()
    except TimeoutError:
        pass
