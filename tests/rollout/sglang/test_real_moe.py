"""The conformance suite against a real SGLang server with a tiny Qwen3.5 mixture-of-experts checkpoint of ours."""

import numpy as np
import pytest

from ornith_jax.models.decoder import forward
from rollout.sequence import sequences
from rollout.types import Stage, Turn
from tests.rollout.conformance import SAMPLED, Service
from tests.rollout.sglang.conftest import connect, make_lab, serving
from tests.rollout.sglang.real import RealServer

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def lab(root):
    return make_lab(root / "weights", "tiny-qwen3.5-moe")


@pytest.fixture(scope="module")
def running(lab, root):
    with serving(lab, root, routed_experts=True) as pair:
        yield pair


@pytest.fixture(scope="module")
def service(lab, running):
    runner, server = running
    engine = runner.run(connect(server))
    runner.run(engine.update_weights(lab.publish(1), 1))
    yield Service(lab, runner, engine)
    runner.run(engine.close())


@pytest.fixture
def unready(lab, running):
    runner, server = running
    engine = runner.run(connect(server))
    yield Service(lab, runner, engine)
    runner.run(engine.close())


class TestRealMoE(RealServer):
    def test_recorded_experts_are_those_of_our_router(self, service: Service):
        """Replayed, they change nothing; another token's experts do. Over two turns, the second on a cached prefix."""
        lab, cfg = service.lab, service.lab.cfg
        prompt, turns = lab.prompt(30), []
        for _ in range(2):
            got = service.run(service.ask(prompt, SAMPLED))
            turns.append(Turn(stage=Stage.SOLUTION, prompt_ids=tuple(prompt), completion=got))
            prompt = [*prompt, *got.token_ids, 3, 4]
        assert turns[1].completion.cached_tokens > 0
        (sequence,) = sequences(turns)
        assert sequence.routed_experts is not None
        experts = sequence.routed_experts.reshape(1, len(sequence.token_ids), cfg.num_layers, -1)
        params, ids = lab.params(service.version), sequence.token_ids[None]
        own = forward(params, cfg, ids)
        replayed = forward(params, cfg, ids, router="replayed", routed_experts=experts)
        np.testing.assert_allclose(replayed, own, atol=1e-4, rtol=1e-4)
        others = forward(params, cfg, ids, router="replayed", routed_experts=np.roll(experts, 1, axis=1))
        assert np.abs(np.asarray(others - own)).mean() > 1e-2
