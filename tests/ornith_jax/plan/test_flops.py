"""Operations and cache bytes of the published sizes, against the figures of their technical notes (docs/models.md)."""

from __future__ import annotations

import pytest

from ornith_jax.config import AttentionConfig
from ornith_jax.models.named import NAMED
from ornith_jax.plan.flops import active_matmul_params, cache_bytes, decode_flops, forward_flops, mixer_flops

# 10^9 forward operations per token in a sequence of 4,096 and of 32,768 tokens.
FORWARD = {
    "qwen3.5-9b": (16.27, 18.1),
    "qwen3.5-35b-a3b": (6.39, 8.73),
    "qwen3.5-397b-a17b": (34.1, 41.2),
    "gemma4-31b": (64.2, 73.8),
}


@pytest.mark.parametrize("name", FORWARD)
def test_forward_operations_of_the_published_sizes(name: str):
    for length, want in zip((4096, 32768), FORWARD[name], strict=True):
        assert forward_flops(NAMED[name], length) / 1e9 == pytest.approx(want, rel=3e-3)


def test_a_window_counts_the_pairs_that_are_seen():
    local = next(m for m in NAMED["tiny-gemma4"].period if isinstance(m, AttentionConfig) and m.window)
    T, W = 100, local.window
    assert W is not None
    pairs = sum(min(t + 1, W) for t in range(T))
    assert mixer_flops(local, T) == pytest.approx(4 * local.num_heads * local.head_dim * pairs / T, rel=0.03)


def test_only_the_chosen_experts_count():
    assert active_matmul_params(NAMED["qwen3.5-397b-a17b"]) == pytest.approx(16.33e9, rel=1e-3)
    assert active_matmul_params(NAMED["gemma4-31b"]) == pytest.approx(30.70e9, rel=1e-3)  # the tied table once


def test_cache_bytes_and_decoding_of_the_published_sizes():
    nine = NAMED["qwen3.5-9b"]
    assert cache_bytes(nine, 1001) - cache_bytes(nine, 1) == 1000 * 32768
    assert cache_bytes(nine, 1) == pytest.approx(50.3e6, rel=2e-3)
    gemma = NAMED["gemma4-31b"]
    assert (
        cache_bytes(gemma, 10_000) - cache_bytes(gemma, 9_000) == 1000 * 81920
    )  # beyond the window, global layers only
    assert decode_flops(nine, 32768) > decode_flops(nine, 0) == pytest.approx(2 * 7.94e9, rel=0.02)
