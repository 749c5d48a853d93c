"""The whole rollout tier over real sandboxes of which many fail: every episode is a record, no failure is a reward."""

import asyncio

from envs.sandbox.faulty import FaultyOpener
from envs.sandbox.open import open_sandbox
from envs.sandbox.pool import Pool
from envs.suites import fledgling
from rollout import retry
from rollout.chat.chat import load_chat
from rollout.collect import collect
from rollout.expert import expert_script
from rollout.scripted import ScriptedEngine
from rollout.settings import RolloutSettings, SamplingSettings
from rollout.store.reader import Trajectories
from rollout.types import StopReason
from tests.envs.conftest import base_image  # noqa: F401
from tests.rollout.tokenizers import folder


def test_a_third_of_all_sandboxes_failing_leaves_typed_records_and_the_run_goes_on(
    tmp_path,
    monkeypatch,
    base_image,  # noqa: F811
):
    faulty = FaultyOpener(open_sandbox, rate=0.35, seed=5, faults=("start", "vanish", "disk_full"))

    async def opened(_pool, image, **options):
        return await faulty(image, **options)

    monkeypatch.setattr(Pool, "open", opened)
    monkeypatch.setattr(retry, "FIRST_S", 0.01)
    settings = RolloutSettings(scaffolds_per_task=1, solutions_per_scaffold=3, groups_in_flight=2)
    tasks, chat = fledgling.generate(1, 4), load_chat(folder("qwen3_5"), "qwen3_5")
    engine = ScriptedEngine(chat, expert_script(chat, tasks, settings))
    asyncio.run(collect(tmp_path, tasks, engine, chat, settings, SamplingSettings(), seed=0, groups=4))

    source = Trajectories(tmp_path / "trajectories")
    found = [source[place] for place in range(len(source))]
    assert len({t.id for t in found}) == 12
    assert faulty.injected["start"] > 0
    assert faulty.injected["vanish"] + faulty.injected["disk_full"] > 0
    broken = [t for t in found if t.verdict.outcome == "infra"]
    assert broken, "no fault reached an episode"
    assert all(t.verdict.cause and not t.verdict.trainable for t in broken)
    assert {t.stop for t in broken} <= {StopReason.SANDBOX_ERROR, StopReason.SUBMITTED}, "or while it was graded"
    assert all(t.verdict.outcome == "passed" for t in found if t not in broken), "the expert loses to no fault"
