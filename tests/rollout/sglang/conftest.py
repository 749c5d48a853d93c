"""A real SGLang 0.5.23 server on the CPU, from the environment that `make test` builds in `.sglang`."""

from __future__ import annotations

import asyncio
import contextlib
import socket
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from ornith_jax.models.named import NAMED
from rollout.sglang.engine import SGLangEngine
from rollout.sglang.launch import Launch
from rollout.sglang.process import ServerProcess
from tests.rollout.lab import Lab

PYTHON = Path(__file__).resolve().parents[3] / ".sglang" / "bin" / "python"
START_S = 300.0
MAX_LEN = 512


def free_port() -> int:
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        return s.getsockname()[1]


def cpu_launch(model: Path, **changes) -> Launch:
    """The server's flags for a tiny model on two cores. `sleep-on-idle`: a waiting scheduler else burns a core."""
    base = Launch(
        model=model,
        family="qwen3_5",
        port=free_port(),
        context_tokens=MAX_LEN + 6,  # the server keeps a few for itself
        max_running=8,
        dtype="float32",
        deterministic=True,
        cpu_torch=True,
        tokenizer=False,
        extra=("--sleep-on-idle",),
    )
    return replace(base, **changes)


def make_lab(root: Path, name: str) -> Lab:
    """Four layers: one period, which holds every kind of layer there is."""
    return Lab(root, replace(NAMED[name], num_layers=4), max_len=MAX_LEN)


async def start_server(launch: Launch, log: Path) -> ServerProcess:
    assert PYTHON.exists(), f"{PYTHON} is not there: run `make test`, which builds SGLang for the CPU once"
    return await ServerProcess.start(launch, log, python=str(PYTHON), ready_s=START_S)


@contextlib.contextmanager
def serving(lab: Lab, folder: Path, **changes) -> Iterator[tuple[asyncio.Runner, ServerProcess]]:
    """A server with version 0 of a lab, and the event loop that it belongs to."""
    with asyncio.Runner() as runner:
        server = runner.run(start_server(cpu_launch(lab.publish(0), **changes), folder / "server.log"))
        try:
            yield runner, server
        finally:
            runner.run(server.stop())


async def connect(server: ServerProcess, **options) -> SGLangEngine:
    return await SGLangEngine.connect(server.url, **options)


@pytest.fixture(scope="module")
def root(tmp_path_factory) -> Path:
    return tmp_path_factory.mktemp("sglang")
