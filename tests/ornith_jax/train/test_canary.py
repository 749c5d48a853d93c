"""An engine that does not serve what was published is found out, whatever the checksums say."""

import asyncio
import json
from pathlib import Path

import jax
import numpy as np
import pytest

from ornith_jax.experiment import Experiment
from ornith_jax.params import flatten, unflatten
from ornith_jax.train.canary import make_probes
from ornith_jax.train.publish import publish
from ornith_jax.train.state import mesh_of
from rollout.canary import FILE, TOLERANCE, CheckedEngine, read_probes, to_json
from rollout.errors import EngineError, RolloutError
from rollout.remote import RemoteEngine
from rollout.run_dir import Events, read_cards, read_events
from rollout.settings import EngineSettings
from rollout.tier import open_tier
from rollout.types import Sampling
from tests.ornith_jax.train.pipeline import served
from tests.ornith_jax.train.tiny import DENSE
from tests.rollout.lab import Lab

EXPERIMENT = Experiment(name="canary", model="", engine=EngineSettings(slots=2, max_len=64, dtype="float32"))


def changed(params: dict, change) -> dict:
    """With one matrix of the last layer's MLP replaced."""
    flat = flatten(params)
    name = next(name for name, x in flat.items() if name.startswith("layers/") and "/mlp/" in name and x.ndim == 3)
    return unflatten(flat | {name: change(np.asarray(flat[name]))})


def transposed(x: np.ndarray) -> np.ndarray:
    """The numbers of the other layout, in this one's place."""
    return np.ascontiguousarray(np.swapaxes(x, 1, 2)).reshape(x.shape)


HARMS = {
    "none": lambda lab: lab.params(2),
    "stale": lambda lab: lab.params(1),
    "transposed": lambda lab: changed(lab.params(2), transposed),
    "zeroed": lambda lab: changed(lab.params(2), np.zeros_like),
}


def probes_of(params: dict) -> bytes:
    probes = make_probes(params, DENSE, mesh_of(EXPERIMENT, jax.devices()[:1]), "float32")
    return json.dumps(to_json(probes)).encode()


@pytest.fixture(scope="module")
def published(tmp_path_factory) -> dict[str, Path]:
    """Version 2, with the canary of version 2 and the weights that the name says."""
    lab = Lab(tmp_path_factory.mktemp("lab"), DENSE)
    right = probes_of(lab.params(2))
    return {
        harm: publish(make(lab), DENSE, lab.root / harm, 2, side_files={FILE: right}) for harm, make in HARMS.items()
    }


async def checked(run: Path, published: Path) -> tuple[float, list[tuple]]:
    """(seconds of the update, what was noted) of a real engine behind HTTP."""
    noted: list[tuple] = []
    async with asyncio.timeout(120), served(run, EXPERIMENT, "engine-7"):
        remote = await RemoteEngine.connect(read_cards(run)[0])
        try:
            engine = CheckedEngine(remote, "engine-7", "float32", lambda *values: noted.append(values))
            return await engine.load_verified(published, 2), noted
        finally:
            await remote.close()


@pytest.mark.slow
def test_right_weights_pass_with_rounding_to_spare(tmp_path, published):
    _, [(version, _, difference)] = asyncio.run(checked(tmp_path, published["none"]))
    assert version == 2
    assert 0 < difference < TOLERANCE["float32"] / 10
    assert len({probe.next_ids[0] for probe in read_probes(published["none"])}) > 1, "the probes tell nothing apart"


@pytest.mark.slow
@pytest.mark.parametrize("harm", ["stale", "transposed", "zeroed"])
def test_wrong_weights_are_named(tmp_path, published, harm):
    with pytest.raises(RolloutError, match=r"engine engine-7: after two updates to version 2 .* does not serve"):
        asyncio.run(checked(tmp_path, published[harm]))


def test_a_version_without_a_canary_is_refused(tmp_path):
    with pytest.raises(RolloutError, match=r"canary\.json: missing"):
        read_probes(tmp_path)


@pytest.mark.slow
def test_engines_join_late_die_and_come_back_elsewhere(tmp_path, published):
    """The tier: no engine, one, two, the first gone, the first back at another place under the same name."""
    ask = Sampling(max_new_tokens=2, temperature=0.0)

    async def live(tier, joined: int) -> None:
        """Until so many have joined in all: nobody may have asked the one that is gone, which then counts as live."""
        while tier.restarts != joined or tier.num_live != 2:
            await asyncio.sleep(0.05)

    async def play() -> list[int]:
        async with asyncio.timeout(120), open_tier(tmp_path, "float32", Events(tmp_path, "tier")) as tier:
            loading = asyncio.create_task(tier.update_weights(published["none"], 2))
            await asyncio.sleep(0.2)
            assert not loading.done()
            async with served(tmp_path, EXPERIMENT, "engine-1"):
                async with served(tmp_path, EXPERIMENT, "engine-0"):
                    await loading
                    await live(tier, 2)
                    first = await tier.generate([1, 2, 3], ask, deadline_s=60)
                again = await tier.generate([1, 2, 3], ask, deadline_s=60)
                other = await tier.generate([4, 5, 6], ask, deadline_s=60)
                async with served(tmp_path, EXPERIMENT, "engine-0"):
                    await live(tier, 3)
                    assert tier.policy_version == 2
            tier.raise_failure()
            return [first, again, other]

    first, again, other = asyncio.run(play())
    assert first.token_ids == again.token_ids
    assert {span[1] for got in (first, again, other) for span in got.versions} == {2}
    synced = [event["engine"] for event in read_events(tmp_path) if event["event"] == "engine_synced"]
    assert sorted(synced) == ["engine-0", "engine-0", "engine-1"]


@pytest.mark.slow
def test_a_card_whose_port_belongs_to_somebody_else_is_seen(tmp_path):
    async def play() -> None:
        async with served(tmp_path, EXPERIMENT, "engine-0"):
            card = read_cards(tmp_path)[0]
            stranger = type(card)(name=card.name, url=card.url, pid=card.pid + 1, host=card.host)
            await RemoteEngine.connect(stranger)

    with pytest.raises(EngineError, match="is not engine-0 any more"):
        asyncio.run(play())
