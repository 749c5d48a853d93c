"""Several servers as one engine. The servers here are fakes: real ones do not die and slow down on command."""

import asyncio

import pytest

from rollout.errors import EngineError
from rollout.published import seal, version_folder
from rollout.sglang.prefixes import BLOCK, PrefixMap
from rollout.sglang.replicas import Replicas
from rollout.sglang.request import ServerInfo
from rollout.types import Completion, Finish, Sampling

INFO = ServerInfo(model_path="", vocab_size=9, max_len=9, capacity=2, deterministic=True, routed_experts=False)
SAMPLING = Sampling(max_new_tokens=1)


class FakeServer:
    """Answers with its name as the only token; breaks when told to."""

    def __init__(self, name: int, seconds: float = 0.0):
        self.name, self.seconds, self.capacity = name, seconds, INFO.capacity
        self.load, self.policy_version, self.broken, self.closed = 0, None, "", False

    async def generate(self, prompt_ids, sampling, *, deadline_s):
        self.load += 1
        try:
            await asyncio.sleep(self.seconds)
            if self.broken:
                raise EngineError(self.broken, "as told")
            versions = ((0, self.policy_version),)
            return Completion(token_ids=(self.name,), behavior_logprobs=(0.0,), versions=versions, finish=Finish.STOP)
        finally:
            self.load -= 1

    async def load_verified(self, path, policy_version):
        if self.broken:
            raise EngineError(self.broken, "as told")
        self.policy_version = policy_version
        return 0.1 * self.name

    async def close(self):
        self.closed = True


class Fleet:
    """Starters that make fakes and remember them, the newest of a place last."""

    def __init__(self, count: int):
        self.made = [[] for _ in range(count)]
        self.starters = [self._starter(at) for at in range(count)]

    def _starter(self, at: int):
        async def start(*, again: bool):
            assert again == bool(self.made[at])
            self.made[at].append(FakeServer(at))
            return self.made[at][-1]

        return start


@pytest.fixture
def published(tmp_path):
    for version in (0, 1):
        folder = version_folder(tmp_path, version)
        folder.mkdir()
        (folder / "x.safetensors").write_text(str(version))
        seal(folder, version)
    return lambda version: (version_folder(tmp_path, version), version)


def run(coroutine):
    return asyncio.run(asyncio.wait_for(coroutine, 20))


def test_turns_of_an_episode_meet_their_cache_and_new_episodes_spread(published):
    async def scenario():
        fleet = Fleet(2)
        engine = await Replicas.start(fleet.starters)
        await engine.update_weights(*published(0))
        fleet.made[0][0].seconds = fleet.made[1][0].seconds = 0.05
        first = [1] * BLOCK
        other = [2] * BLOCK
        a, b = await asyncio.gather(*(engine.generate(p, SAMPLING, deadline_s=5) for p in (first, other)))
        assert {a.token_ids, b.token_ids} == {(0,), (1,)}
        for prompt, home in ((first, a), (other, b)) * 3:
            again = await engine.generate([*prompt, 5, 6], SAMPLING, deadline_s=5)
            assert again.token_ids == home.token_ids
        await engine.close()

    run(scenario())


def test_a_request_whose_server_dies_goes_elsewhere_and_the_server_is_replaced(published):
    async def scenario():
        fleet = Fleet(2)
        engine = await Replicas.start(fleet.starters)
        await engine.update_weights(*published(1))
        fleet.made[0][0].broken = "dead"
        answers = [await engine.generate([1], SAMPLING, deadline_s=5) for _ in range(4)]
        assert answers[0].token_ids == (1,)
        while engine.restarts == 0:
            await asyncio.sleep(0.01)
        assert fleet.made[0][0].closed
        assert fleet.made[0][1].policy_version == 1, "it answers only with the wanted weights"
        await engine.close()

    run(scenario())


def test_the_only_server_dies_and_the_request_waits_for_the_next(published):
    async def scenario():
        fleet = Fleet(1)
        engine = await Replicas.start(fleet.starters)
        await engine.update_weights(*published(0))
        fleet.made[0][0].broken = "unreachable"
        completion = await engine.generate([1], SAMPLING, deadline_s=5)
        assert completion.versions == ((0, 0),)
        assert engine.restarts == 1
        await engine.close()

    run(scenario())


def test_nobody_comes_back_in_time(published):
    async def scenario():
        fleet = Fleet(1)
        engine = await Replicas.start(fleet.starters)
        await engine.update_weights(*published(0))
        fleet.made[0][0].broken = "dead"

        async def never(*, again):
            await asyncio.sleep(60)

        engine._starters[0] = never
        with pytest.raises(EngineError, match="in time"):
            await engine.generate([1], SAMPLING, deadline_s=0.2)
        await engine.close()

    run(scenario())


def test_a_refused_request_is_not_tried_again(published):
    async def scenario():
        fleet = Fleet(2)
        engine = await Replicas.start(fleet.starters)
        await engine.update_weights(*published(0))
        fleet.made[0][0].broken = "rejected"
        with pytest.raises(EngineError, match="rejected"):
            await engine.generate([1], SAMPLING, deadline_s=5)
        assert engine.restarts == 0
        await engine.close()

    run(scenario())


def test_nothing_is_generated_before_the_first_version():
    async def scenario():
        async def start(*, again):
            server = FakeServer(0)
            server.broken = "not_ready"
            return server

        engine = await Replicas.start([start])
        assert engine.policy_version is None
        with pytest.raises(EngineError, match="not_ready"):
            await engine.generate([1], SAMPLING, deadline_s=1)
        await engine.close()

    run(scenario())


def test_a_bad_folder_leaves_everybody_on_the_old_version(published):
    async def scenario():
        fleet = Fleet(2)
        engine = await Replicas.start(fleet.starters)
        await engine.update_weights(*published(0))
        folder, version = published(1)
        (folder / "x.safetensors").write_text("other")
        with pytest.raises(EngineError, match="update_failed"):
            await engine.update_weights(folder, version)
        assert engine.policy_version == 0
        assert [made[-1].policy_version for made in fleet.made] == [0, 0]
        await engine.close()

    run(scenario())


def test_a_server_lost_in_an_update_is_replaced_by_one_with_the_new_version(published):
    async def scenario():
        fleet = Fleet(2)
        engine = await Replicas.start(fleet.starters)
        await engine.update_weights(*published(0))
        fleet.made[1][0].broken = "dead"
        await engine.update_weights(*published(1))
        assert engine.policy_version == 1
        while engine.restarts == 0:
            await asyncio.sleep(0.01)
        assert fleet.made[1][1].policy_version == 1
        await engine.close()

    run(scenario())


def test_one_server_that_does_not_start_closes_the_others():
    async def scenario():
        fleet = Fleet(1)

        async def fails(*, again):
            raise EngineError("dead", "no device")

        with pytest.raises(EngineError, match="no device"):
            await Replicas.start([*fleet.starters, fails])
        assert fleet.made[0][0].closed

    run(scenario())


def test_the_longest_known_beginning_wins():
    prefixes = PrefixMap()
    short, long = [1] * BLOCK, [1] * BLOCK + [2] * BLOCK
    prefixes.add(short, 0)
    prefixes.add(long, 1)
    assert prefixes.find([*long, 3]) == 1
    assert prefixes.find([*short, 4]) == 1, "the last one that saw the shared beginning"
    assert prefixes.find([1] * (BLOCK - 1)) is None
    assert prefixes.find([9] * BLOCK) is None
