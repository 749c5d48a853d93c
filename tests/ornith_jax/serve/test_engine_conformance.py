"""The embedded engine passes the suite that every engine must pass."""

import asyncio
from collections.abc import Iterator
from dataclasses import replace

import pytest

from ornith_jax.models.named import TINY_QWEN
from ornith_jax.serve.engine import EmbeddedEngine
from rollout.settings import EngineSettings
from tests.rollout.conformance import Conformance, Service
from tests.rollout.lab import Lab

CFG = replace(TINY_QWEN, num_layers=4)


@pytest.fixture(scope="module")
def unready(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    lab = Lab(tmp_path_factory.mktemp("weights"), CFG)
    engine = EmbeddedEngine(lab.cfg, EngineSettings(slots=4, max_len=lab.max_len, dtype="float32"))
    with asyncio.Runner() as runner:
        yield Service(lab, runner, engine)
        runner.run(engine.close())


@pytest.fixture(scope="module")
def service(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    lab = Lab(tmp_path_factory.mktemp("weights"), CFG)
    engine = EmbeddedEngine(lab.cfg, EngineSettings(slots=4, max_len=lab.max_len, dtype="float32"))
    with asyncio.Runner() as runner:
        runner.run(engine.update_weights(lab.publish(1), 1))
        yield Service(lab, runner, engine)
        runner.run(engine.close())


class TestEmbedded(Conformance):
    pass
