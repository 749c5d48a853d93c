"""Greedy decoding by the engine is the full forward, for every family: any batch, any length, any row, any turn."""

import asyncio
from dataclasses import replace

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from ornith_jax.models import decoder
from ornith_jax.models.named import TINY_GEMMA, TINY_GEMMA_MOE, TINY_QWEN, TINY_QWEN_MOE
from ornith_jax.serve.engine import EmbeddedEngine
from rollout.settings import EngineSettings
from rollout.types import Completion, Sampling
from tests.rollout.lab import Lab, check_completion

FAMILIES = {
    "qwen3.5": TINY_QWEN,
    "qwen3.5-moe": replace(TINY_QWEN_MOE, num_layers=4),
    "gemma4": replace(TINY_GEMMA, num_layers=6),
    "gemma4-moe": replace(TINY_GEMMA_MOE, num_layers=6),
}
# Around the pieces in which a prompt is read (32, 128), Gemma's window of 24, and the delta rule's chunk of 64.
LENGTHS = (1, 2, 8, 9, 23, 25, 33, 34, 64, 65, 66, 90)
GREEDY = Sampling(max_new_tokens=30, temperature=0.0)
ATOL = 1e-3


@pytest.mark.parametrize("family", FAMILIES)
def test_greedy_tokens_are_those_of_the_full_forward(family: str, tmp_path):
    asyncio.run(_try(Lab(tmp_path, FAMILIES[family], max_len=128)))


async def _try(lab: Lab) -> None:
    settings = EngineSettings(slots=4, max_len=lab.max_len, dtype="float32", routed_experts=True)
    engine = EmbeddedEngine(lab.cfg, settings)
    for version in (1, 2):
        assert await engine.update_weights(lab.publish(version), version) < 1.0
        prompts = [lab.prompt(length) for length in LENGTHS]
        for batch in (1, 3, len(LENGTHS)):  # the last has more requests than rows: rows are used again
            answers = await asyncio.gather(*(engine.generate(p, GREEDY, deadline_s=100) for p in prompts[:batch]))
            for prompt, got in zip(prompts, answers, strict=False):
                assert got.versions == ((0, version),)
                check_completion(lab, prompt, got, GREEDY, ATOL)
        await _next_turns(lab, engine, prompts, answers)
    await engine.close()


async def _next_turns(lab: Lab, engine: EmbeddedEngine, prompts: list[list[int]], answers: list[Completion]) -> None:
    """Each conversation goes on from what is cached: all of it but the last token, which was never read."""
    turns = [[*prompt, *answer.token_ids, 5, 6, 7] for prompt, answer in zip(prompts, answers, strict=True)]
    for turn in turns:
        got = await engine.generate(turn, GREEDY, deadline_s=100)
        check_completion(lab, turn, got, GREEDY, ATOL)
        assert got.cached_tokens == len(turn) - 4
    check_routing(lab, turns[-1], got)


def check_routing(lab: Lab, prompt: list[int], got: Completion) -> None:
    """The record, of what was cached too, is what one pass over the whole sequence routes."""
    ids = np.array([[*prompt, *got.token_ids[:-1]]], np.int32)
    if lab.cfg.moe is None:
        assert got.routed_experts == b""
        return
    record = np.frombuffer(got.routed_experts, "<i4").reshape(ids.shape[1], lab.cfg.num_layers, -1)
    cache = decoder.init_cache(lab.cfg, 1, ids.shape[1])
    extend = jax.jit(lambda p, i, c: decoder.extend_routed(p, lab.cfg, i, jnp.array([i.shape[1]]), c))
    whole = np.asarray(extend(lab.params(got.versions[0][1]), ids, cache)[2])[0]
    assert (record == whole).mean() > 0.999, "more than near ties can explain"
