"""The conformance suite against a real SGLang server with a tiny Qwen3.5 mixture-of-experts checkpoint of ours."""

import pytest

from tests.rollout.conformance import Service
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
    pass
