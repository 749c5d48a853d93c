"""Greedy decoding by the engine is the full forward, for every family: any batch, any length, any row, any turn."""

import asyncio
from dataclasses import replace

import pytest

from ornith_jax.models.named import TINY_GEMMA, TINY_GEMMA_MOE, TINY_QWEN, TINY_QWEN_MOE
from ornith_jax.serve.engine import EmbeddedEngine
from rollout.settings import EngineSettings
from rollout.types import Sampling
from tests.rollout.lab import Lab, check_completion

FAMILIES = {
    "qwen3.5": TINY_QWEN,
    "qwen3.5-moe": replace(TINY_QWEN_MOE, num_layers=4),
    "gemma4": replace(TINY_GEMMA, num_layers=6),
    "gemma4-moe": replace(TINY_GEMMA_MOE, num_layers=6),
}
# Around the pieces in which a prompt is read (32, 128), Gemma's window of 24, and the delta rule's chunk of 64.
LENGTHS = (1, 2, 8, 9, 10, 23, 25, 33, 34, 64, 65, 66, 90)
GREEDY = Sampling(max_new_tokens=30, temperature=0.0)
ATOL = 1e-3


@pytest.mark.parametrize("family", FAMILIES)
def test_greedy_tokens_are_those_of_the_full_forward(family: str, tmp_path):
    lab = Lab(tmp_path, FAMILIES[family], max_len=128)
    asyncio.run(_try(lab))


async def _try(lab: Lab) -> None:
    engine = EmbeddedEngine(lab.cfg, EngineSettings(slots=4, max_len=lab.max_len, dtype="float32"))
    for version in (1, 2):
        assert await engine.update_weights(lab.publish(version), version) < 1.0
        prompts = [lab.prompt(length) for length in LENGTHS]
        for batch in (1, 3, len(LENGTHS)):  # the last has more requests than rows: rows are used again
            answers = await asyncio.gather(*(engine.generate(p, GREEDY, deadline_s=100) for p in prompts[:batch]))
            for prompt, got in zip(prompts, answers, strict=False):
                assert got.versions == ((0, version),)
                check_completion(lab, prompt, got, GREEDY, ATOL)
        cached = await _next_turns(lab, engine, prompts, answers)
        assert cached == [len(p) + 29 if len(p) + 33 < lab.max_len else 0 for p in prompts]
    await engine.close()


async def _next_turns(lab: Lab, engine: EmbeddedEngine, prompts: list, answers: list) -> list[int]:
    """Each conversation goes on from what is cached; returns how much of each prompt was."""
    cached = []
    for prompt, answer in zip(prompts, answers, strict=True):
        longer = [*prompt, *answer.token_ids, 5, 6, 7]
        if len(longer) >= lab.max_len:
            cached.append(0)
            continue
        got = await engine.generate(longer, GREEDY, deadline_s=100)
        check_completion(lab, longer, got, GREEDY, ATOL)
        cached.append(got.cached_tokens)
    return cached
