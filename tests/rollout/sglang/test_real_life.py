"""What happens to real servers: killed in the middle of an episode, sent damaged weights, started wrongly."""

from __future__ import annotations

import asyncio
import json
import os
import shutil
import signal
import subprocess
import sys
from dataclasses import replace

import numpy as np
import pytest

from rollout.errors import EngineError
from rollout.published import READY, seal, version_folder
from rollout.sglang.engine import SGLangEngine
from rollout.sglang.launch import build_argv, build_env
from rollout.sglang.process import ServerProcess
from rollout.sglang.replicas import Replicas, starting
from rollout.types import Finish, Sampling
from tests.rollout.conformance import SAMPLED, Service
from tests.rollout.lab import check_completion
from tests.rollout.sglang.conftest import (
    MAX_LEN,
    PYTHON,
    connect,
    cpu_launch,
    free_port,
    make_lab,
    serving,
    start_server,
)

pytestmark = pytest.mark.slow
ATOL = 1e-3


@pytest.fixture(scope="module")
def lab(root):
    return make_lab(root / "weights", "tiny-qwen3.5")


def test_killed_in_the_middle_of_an_episode_it_comes_back_with_the_newest_weights_and_the_episode_goes_on(lab, root):
    """One replica, so that nobody else can answer: the turn in flight waits for the new server."""
    servers: list[ServerProcess] = []

    async def serve(again: bool) -> str:
        assert again == bool(servers)
        if servers:
            await servers[-1].stop()
        servers.append(await start_server(cpu_launch(lab.publish(0), deterministic=False), root / "life.log"))
        return servers[-1].url

    async def scenario():
        engine = await Replicas.start([starting(serve)])
        try:
            for version in (1, 2):
                await engine.update_weights(lab.publish(version), version)
            prompt, turn = lab.prompt(20), Sampling(max_new_tokens=40)
            first = await engine.generate(prompt, turn, deadline_s=60)
            grown = [*prompt, *first.token_ids, 5, 6]
            pending = asyncio.create_task(engine.generate(grown, replace(turn, max_new_tokens=300), deadline_s=240))
            await asyncio.sleep(0.3)
            os.killpg(servers[0].pid, signal.SIGKILL)
            second = await pending
            assert engine.restarts == 1
            assert len(servers) == 2
            assert second.versions == ((0, 2),), "the newest published weights, before it answered anything"
            check_completion(lab, grown, second, turn, ATOL)
            await min_p(lab, engine, servers[-1].url)
        finally:
            await engine.close()
            for server in servers:
                await server.stop()

    asyncio.run(asyncio.wait_for(scenario(), 500))


async def min_p(lab, engine, url):
    """On a server without --enable-deterministic-inference, where min_p works and seeds are refused."""
    prompt, sampling = lab.prompt(10), Sampling(max_new_tokens=60, temperature=0.8, min_p=0.1)
    got = await engine.generate(prompt, sampling, deadline_s=60)
    check_completion(lab, prompt, got, sampling, ATOL)
    assert np.isneginf(lab.expected(2, prompt, got.token_ids, sampling)).any(), "nothing was cut"
    with pytest.raises(EngineError, match="seed"):
        await engine.generate(prompt, replace(SAMPLED, seed=1), deadline_s=60)
    lenient = await SGLangEngine.connect(url, drop_seeds=True)
    await lenient.update_weights(lab.publish(2), 2)
    got = await lenient.generate(prompt, replace(SAMPLED, seed=1), deadline_s=60)
    assert len(got.token_ids) == SAMPLED.max_new_tokens
    await lenient.close()


@pytest.fixture(scope="module")
def service(lab, root):
    with serving(lab, root) as (runner, server):
        engine = runner.run(connect(server, mode="retract"))
        runner.run(engine.update_weights(lab.publish(1), 1))
        yield Service(lab, runner, engine)
        runner.run(engine.close())


class TestWeights:
    """One server, many wrong folders. sglang answers "success" to some of them and dies of others."""

    def refused(self, service: Service, folder) -> str:
        prompt = service.lab.prompt(6)
        with pytest.raises(EngineError) as caught:
            service.run(service.engine.update_weights(folder, 77))
        assert caught.value.cause == "update_failed"
        assert service.version == 1
        got = service.run(service.ask(prompt, SAMPLED))
        assert got.versions == ((0, 1),)
        check_completion(service.lab, prompt, got, SAMPLED, ATOL)
        return str(caught.value)

    def folder(self, service: Service, tmp_path, change) -> object:
        """Version 1 once more as 77, with its tensors changed and sealed again."""
        from safetensors.numpy import load_file, save_file

        folder = version_folder(tmp_path, 77)
        shutil.copytree(service.lab.publish(1), folder)
        (folder / READY).unlink()
        tensors = load_file(folder / "model.safetensors")
        change(tensors)
        save_file(tensors, folder / "model.safetensors")
        seal(folder, 77)
        return folder

    def test_a_missing_tensor(self, service, tmp_path):
        folder = self.folder(service, tmp_path, lambda tensors: tensors.pop("lm_head.weight"))
        assert "tensor lm_head.weight is missing" in self.refused(service, folder)

    def test_an_unknown_tensor(self, service, tmp_path):
        folder = self.folder(service, tmp_path, lambda tensors: tensors.update(more=np.zeros(3, np.float32)))
        assert "tensor more is unknown" in self.refused(service, folder)

    def test_a_wrong_shape(self, service, tmp_path):
        def change(tensors):
            tensors["lm_head.weight"] = tensors["lm_head.weight"][:-1]

        assert "tensor lm_head.weight has shape [255, 64]" in self.refused(
            service, self.folder(service, tmp_path, change)
        )

    def test_weights_that_are_no_numbers_serve_nobody(self, service, tmp_path):
        def change(tensors):
            tensors["model.norm.weight"][:] = np.nan

        folder = self.folder(service, tmp_path, change)
        with pytest.raises(EngineError) as caught:
            service.run(service.engine.update_weights(folder, 77))
        assert caught.value.cause == "dead"
        assert service.engine.policy_version is None
        with pytest.raises(EngineError, match="not_ready"):
            service.run(service.ask([1, 2], SAMPLED))
        service.run(service.engine.update_weights(service.lab.publish(1), 1))
        assert service.version == 1

    def test_under_retract_a_running_request_is_prefilled_again_and_its_spans_stay_exact(self, service):
        async def scenario():
            running = asyncio.create_task(service.ask(prompt, long))
            await service.until(lambda health: health.running == 1)
            await asyncio.sleep(0.3)
            await service.engine.update_weights(service.lab.publish(2), 2)
            return await running

        prompt, long = service.lab.prompt(10), replace(SAMPLED, max_new_tokens=300)
        got = service.run(scenario())
        assert [version for _, version in got.versions] == [1, 2]
        assert got.finish is Finish.LENGTH
        check_completion(service.lab, prompt, got, long, ATOL)


def test_a_server_that_cannot_start_shows_the_end_of_its_log(lab, tmp_path):
    shutil.copytree(lab.publish(0), tmp_path / "model")
    fields = json.loads((tmp_path / "model" / "config.json").read_text())
    (tmp_path / "model" / "config.json").write_text(json.dumps(fields | {"architectures": ["NoSuchModel"]}))
    with pytest.raises(EngineError, match="NoSuchModel") as caught:
        asyncio.run(start_server(cpu_launch(tmp_path / "model"), tmp_path / "log"))
    assert caught.value.cause == "dead"


def test_ornith_serve_starts_a_server_and_ends_it(lab, tmp_path):
    """As a user would on this machine: the platform from the environment, the CPU's flags after --extra."""
    cpu = build_argv(cpu_launch(lab.publish(0)))
    flags = cpu[cpu.index("--device") :]
    words = ["serve", lab.publish(0), "--engine", "sglang", "--python", PYTHON, "--port", free_port(), "--slots", 4]
    words += ["--max-len", MAX_LEN, "--dtype", "float32", "--log", tmp_path / "log", "--extra", *flags]
    env = build_env(cpu_launch(lab.publish(0)), os.environ)
    ornith = subprocess.Popen(
        [sys.executable, "-m", "ornith_jax.cli", *map(str, words)], env=env, stdout=subprocess.PIPE, text=True
    )
    try:
        assert ornith.stdout is not None
        url = ornith.stdout.readline().split("serves on ")[1].split(",")[0]

        async def ask():
            engine = await SGLangEngine.connect(url)
            await engine.update_weights(lab.publish(1), 1)
            got = await engine.generate([1, 2, 3], SAMPLED, deadline_s=60)
            await engine.close()
            return got

        check_completion(lab, [1, 2, 3], asyncio.run(ask()), SAMPLED, ATOL)
        ornith.send_signal(signal.SIGTERM)
        assert ornith.wait(60) == 0
        with pytest.raises(EngineError, match="unreachable"):
            asyncio.run(ask())
    finally:
        ornith.kill()
