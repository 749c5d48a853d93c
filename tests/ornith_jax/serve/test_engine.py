"""What only the embedded engine promises: its cache, its thread, its copies of the weights."""

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import replace
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from ornith_jax.errors import OrnithError
from ornith_jax.models import decoder
from ornith_jax.models.named import TINY_QWEN
from ornith_jax.params import init
from ornith_jax.serve.engine import EmbeddedEngine
from ornith_jax.serve.loop import Swap
from ornith_jax.serve.prefixes import Prefixes, Snapshot
from ornith_jax.serve.slots import boxes_of, length_of, piece_of
from rollout.errors import EngineError
from rollout.settings import EngineSettings
from rollout.types import Finish, Sampling
from tests.reference.sampling import log_softmax
from tests.rollout.lab import Lab, check_completion

CFG = replace(TINY_QWEN, num_layers=4)
SETTINGS = EngineSettings(slots=4, max_len=256, dtype="float32")
GREEDY = Sampling(max_new_tokens=20, temperature=0.0)
WAIT_S = 100.0


@pytest.fixture(scope="module")
def lab(tmp_path_factory: pytest.TempPathFactory) -> Lab:
    return Lab(tmp_path_factory.mktemp("weights"), CFG, max_len=SETTINGS.max_len)


def with_engine(lab: Lab, what: Callable[[EmbeddedEngine], Awaitable[Any]], settings: EngineSettings = SETTINGS) -> Any:
    """Run `what` on an engine that holds version 1."""

    async def run() -> Any:
        engine = EmbeddedEngine(lab.cfg, settings)
        try:
            await engine.update_params(lab.params(1), 1)
            return await asyncio.wait_for(what(engine), WAIT_S)
        finally:
            await engine.close()

    return asyncio.run(run())


def other_params() -> Any:
    return jax.tree.map(lambda x: 3 * x if x.ndim > 1 else x, init(decoder.table(CFG), jax.random.key(9), jnp.float32))


def test_new_weights_meet_the_old_cache_of_a_running_request(lab: Lab):
    """All weights change. From the first token of the new version on, the new weights read what the old ones cached."""

    async def update_meanwhile(engine: EmbeddedEngine):
        for _ in range(20):
            task = asyncio.ensure_future(engine.generate(prompt, long, deadline_s=WAIT_S))
            await asyncio.sleep(0.03)
            await engine.update_params(new, 2)
            got = await task
            if len(got.versions) == 2:
                later = await engine.generate([*prompt, *got.token_ids, 3], GREEDY, deadline_s=WAIT_S)
                assert later.cached_tokens == 0, "continued from a cache that two versions wrote"
                return got
            await engine.update_params(old, 1)
        raise AssertionError("no update met a running request")

    old, new = lab.params(1), other_params()
    prompt, long = lab.prompt(10), Sampling(max_new_tokens=240, temperature=0.0)
    got = with_engine(lab, update_meanwhile)
    (_, first), (switch, second) = got.versions
    assert (first, second) == (1, 2)
    ids = np.array([*prompt, *got.token_ids], np.int32)
    cut = len(prompt) + switch - 1  # the token before the switch is the first that the new weights read
    _, cache = extend(old, ids[:cut], decoder.init_cache(CFG, 1, len(ids), "float32"))
    hidden, _ = extend(new, ids[cut:-1], cache)
    expected = log_softmax(np.asarray(decoder.logits(new, CFG, hidden))[0].astype(np.float64))
    wanted = expected[np.arange(len(expected)), got.token_ids[switch:]]
    np.testing.assert_allclose(got.behavior_logprobs[switch:], wanted, atol=1e-3)
    np.testing.assert_allclose(wanted, expected.max(axis=1), atol=1e-3)


def extend(params: Any, ids: np.ndarray, cache: Any) -> Any:
    return jax.jit(lambda p, i, c: decoder.extend(p, CFG, i[None], jnp.array([i.shape[0]]), c))(params, ids, cache)


def test_siblings_read_their_prompt_once_and_prefixes_are_exact(lab: Lab):
    async def siblings(engine: EmbeddedEngine):
        asks = [engine.generate(prompt, replace(sampled, seed=n), deadline_s=WAIT_S) for n in range(6)]
        first = await asyncio.gather(*asks)
        changed = [*prompt, *first[0].token_ids[:-1], first[0].token_ids[-1] ^ 1, 3]
        return first, changed, await engine.generate(changed, GREEDY, deadline_s=WAIT_S)

    prompt, sampled = lab.prompt(60), Sampling(max_new_tokens=8)
    first, changed, other = with_engine(lab, siblings)
    assert sorted(got.cached_tokens for got in first)[1:] == [59] * 5
    for n, got in enumerate(first):
        check_completion(lab, prompt, got, replace(sampled, seed=n), atol=1e-3)
    assert other.cached_tokens == 67, "all but the last token of the completion, which was never read"
    check_completion(lab, changed, other, GREEDY, atol=1e-3)


def test_cached_equals_uncached(lab: Lab):
    """The same sampled conversation with and without a place for prefixes."""

    async def converse(engine: EmbeddedEngine):
        prompt, cached, written = lab.prompt(30), [], []
        for turn in range(4):
            got = await engine.generate(prompt, Sampling(max_new_tokens=15, seed=turn), deadline_s=WAIT_S)
            prompt = [*prompt, *got.token_ids, *lab.prompt(turn + 1)]
            cached.append(got.cached_tokens)
            written.append(got.token_ids)
        return cached, written

    cached, written = with_engine(lab, converse)
    uncached, same = with_engine(lab, converse, replace(SETTINGS, prefix_snapshots=0))
    assert written == same
    assert uncached == [0] * 4
    assert cached[0] == 0
    assert all(cached[1:])


def test_a_straggler_moves_to_the_first_row_and_loses_nothing(lab: Lab):
    async def tail(engine: EmbeddedEngine):
        short = [engine.generate(lab.prompt(3 + n), Sampling(max_new_tokens=2), deadline_s=WAIT_S) for n in range(3)]
        tasks = [asyncio.ensure_future(each) for each in (*short, engine.generate(prompt, long, deadline_s=WAIT_S))]
        await asyncio.gather(*tasks[:3])
        rows = set()
        while not tasks[3].done():
            rows |= set(engine._loop.running)
            await asyncio.sleep(0.002)
        return rows, tasks[3].result()

    prompt, long = lab.prompt(20), Sampling(max_new_tokens=230, temperature=0.0)
    rows, got = with_engine(lab, tail)
    assert 0 in rows
    check_completion(lab, prompt, got, long, atol=1e-3)


def test_the_least_recently_used_prefix_goes_first():
    prefixes = Prefixes(2)
    one, two, three = (Snapshot(np.arange(n, dtype=np.int32), {}) for n in (1, 2, 3))
    prefixes.put(one)
    prefixes.put(two)
    assert prefixes.longest(np.array([0, 9], np.int32)) is one
    prefixes.put(three)
    assert prefixes.longest(two.token_ids) is one, "two was used longest ago"
    assert prefixes.longest(np.arange(9, dtype=np.int32)) is three
    assert prefixes.longest(np.array([7], np.int32)) is None


def test_the_engine_has_its_own_copy_of_the_learners_weights(lab: Lab):
    async def give_away(engine: EmbeddedEngine):
        params = jax.tree.map(jnp.array, lab.params(2))
        await engine.update_params(params, 2)
        for x in jax.tree.leaves(params):
            x.delete()  # as a donating train step does
        return await engine.generate(prompt, GREEDY, deadline_s=WAIT_S)

    prompt = lab.prompt(5)
    got = with_engine(lab, give_away)
    assert got.versions == ((0, 2),)
    check_completion(lab, prompt, got, GREEDY, atol=1e-3)


def test_a_thread_that_fails_tells_everybody_and_refuses_from_then_on(lab: Lab):
    async def break_it(engine: EmbeddedEngine):
        long = Sampling(max_new_tokens=200)
        tasks = [asyncio.ensure_future(engine.generate([1 + n], long, deadline_s=WAIT_S)) for n in range(6)]
        await asyncio.sleep(0.01)
        engine._loop.order(Swap({"layers": ()}, 2))  # weights that no program accepts
        done = await asyncio.gather(*tasks, return_exceptions=True)
        with pytest.raises(EngineError) as late:
            await engine.generate([1], GREEDY, deadline_s=WAIT_S)
        with pytest.raises(EngineError) as ill:
            await engine.health()
        return [*(error for error in done if isinstance(error, Exception)), late.value, ill.value]

    errors = with_engine(lab, break_it)
    assert len(errors) >= 3
    assert {error.cause for error in errors} == {"dead"}


def test_closing_tells_those_who_wait(lab: Lab):
    async def close(engine: EmbeddedEngine):
        long = Sampling(max_new_tokens=200)
        tasks = [asyncio.ensure_future(engine.generate([1 + n], long, deadline_s=WAIT_S)) for n in range(9)]
        await asyncio.sleep(0.01)
        await engine.close()
        await engine.close()
        return await asyncio.gather(*tasks, return_exceptions=True)

    left = [got for got in with_engine(lab, close) if isinstance(got, EngineError)]
    assert left
    assert {error.cause for error in left} == {"dead"}


def test_weights_that_are_not_finite_give_no_tokens(lab: Lab):
    async def poison(engine: EmbeddedEngine):
        await engine.update_params({**lab.params(1), "final_norm": jnp.full(CFG.embed_dim, jnp.nan)}, 2)
        with pytest.raises(EngineError) as refused:
            await engine.generate([1, 2], GREEDY, deadline_s=WAIT_S)
        await engine.update_params(lab.params(1), 3)
        return refused.value.cause, await engine.generate([1, 2], GREEDY, deadline_s=WAIT_S)

    cause, got = with_engine(lab, poison)
    assert cause == "bad_answer"
    check_completion(lab, [1, 2], replace(got, versions=((0, 1),)), GREEDY, atol=1e-3)


def test_bfloat16_stays_close_to_the_learner(lab: Lab):
    async def ask(engine: EmbeddedEngine):
        return await engine.generate(prompt, Sampling(max_new_tokens=200, seed=1), deadline_s=WAIT_S)

    prompt = lab.prompt(20)
    got = with_engine(lab, ask, replace(SETTINGS, dtype="bfloat16"))
    assert got.finish is Finish.LENGTH
    ids = jnp.asarray([[*prompt, *got.token_ids]])
    params = jax.tree.map(lambda x: x.astype(jnp.bfloat16), lab.params(1))
    hidden = decoder.forward(params, CFG, ids, dtype="bfloat16").astype(jnp.float32)
    learner = np.asarray(jax.nn.log_softmax(decoder.logits(params, CFG, hidden)))[0, len(prompt) - 1 : -1]
    d = learner[np.arange(200), np.array(got.token_ids)] - np.array(got.behavior_logprobs)
    k3 = float(np.mean(np.exp(d) - 1 - d))
    print(f"k3 divergence between learner and engine in bfloat16: {k3:.1e}")
    assert k3 < 2e-3


def test_more_than_one_device_is_refused():
    with pytest.raises(OrnithError, match="tensor_parallel=1"):
        EmbeddedEngine(CFG, replace(SETTINGS, tensor_parallel=2))


def test_sizes_are_few_and_large_enough():
    assert [piece_of(n, 1) for n in (1, 32, 33, 65, 100, 300, 512, 9999)] == [32, 32, 32, 128, 128, 512, 512, 512]
    assert [piece_of(9999, rows) for rows in (1, 4, 16, 64)] == [512, 128, 32, 32]
    for n in range(1, 2000):
        assert piece_of(n, 1) < max(2 * n, 33)
    assert [length_of(n, 20000) for n in (1, 257, 4097, 8193, 17000)] == [256, 1024, 8192, 16384, 20000]
    assert length_of(10, 128) == 128
    assert [boxes_of(n) for n in (1, 3, 4, 32)] == [(1,), (1, 3), (1, 4), (1, 4, 16, 32)]
