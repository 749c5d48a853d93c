"""Attention without the scores of a whole row: equal to the plain form in value and gradient, alone and on a mesh."""

from __future__ import annotations

from dataclasses import replace

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from ornith_jax.config import AttentionConfig
from ornith_jax.kernels import splash
from ornith_jax.kernels.attention import NOBODY, attend_shard, long_attention
from ornith_jax.kernels.flash import Tokens, flash_attention
from ornith_jax.nn import attention as block
from ornith_jax.nn.context import full_context
from ornith_jax.params import init
from ornith_jax.sharding import make_mesh
from tests.reference.attention import attend

SEGMENTS = np.array([[0] * 5 + [1] * 40 + [0] * 3 + [2] * 40 + [0] * 12, [1] * 61 + [2] * 39])


def arrays(B: int, T: int, N: int, K: int, H: int) -> list[jax.Array]:
    """q, k, v, and a direction to take gradients in."""
    keys = jax.random.split(jax.random.key(0), 4)
    return [jax.random.normal(key, (B, T, heads, H)) for key, heads in zip(keys, (N, K, K, N), strict=True)]


def close(got, want, atol: float = 2e-5) -> None:
    """The sum along the direction, and every gradient. Largest absolute difference; the values are of order one."""
    np.testing.assert_allclose(got[0], want[0], rtol=1e-5, atol=1e-3)
    for one, other in zip(got[1], want[1], strict=True):
        np.testing.assert_allclose(one, other, atol=atol)


def plain(q, k, v, direction, ctx, scale: float, window: int | None):
    """The plain form of nn.attention, which holds all scores."""

    def run(q, k, v):
        return jnp.sum(direction * block._attend(q, [k], [v], [block._new_mask(ctx, window)], scale))

    return jax.jit(jax.value_and_grad(run, (0, 1, 2)))(q, k, v)


def mask_pads(direction: jax.Array, segments: np.ndarray) -> jax.Array:
    """What a pad gives means nothing, so nothing is asked of it."""
    return jnp.where((segments > 0)[:, :, None, None], direction, 0.0)


@pytest.mark.parametrize("window", [None, 1, 7, 50])
def test_blockwise_is_the_plain_form_with_groups_windows_segments_and_pads(window: int | None):
    q, k, v, direction = arrays(2, 100, 4, 2, 16)
    ctx = full_context(jnp.asarray(SEGMENTS))
    direction = mask_pads(direction, SEGMENTS)

    def run(q, k, v):
        tokens = Tokens(ctx.segments_BT, ctx.valid_BT, jnp.int32(0))
        return jnp.sum(direction * flash_attention(q, k, v, tokens, 0.3, window, block=16))

    close(jax.jit(jax.value_and_grad(run, (0, 1, 2)))(q, k, v), plain(q, k, v, direction, ctx, 0.3, window))


def test_blockwise_is_the_numpy_reference_and_gives_zeros_where_nothing_is_seen():
    q, k, v, _ = arrays(2, 100, 4, 2, 16)
    ctx = full_context(jnp.asarray(SEGMENTS))
    got = flash_attention(q, k, v, Tokens(ctx.segments_BT, ctx.valid_BT, jnp.int32(0)), 0.3, 7, block=32)
    for b in range(2):
        want = attend(np.asarray(q[b]), np.asarray(k[b]), np.asarray(v[b]), SEGMENTS[b], 0.3, 7)
        np.testing.assert_allclose(got[b][SEGMENTS[b] > 0], want[SEGMENTS[b] > 0], atol=2e-5)
    np.testing.assert_array_equal(got[0, :5], 0.0)


def test_key_blocks_out_of_reach_are_not_visited():
    """Keys that are not a number there: any product with them would show."""
    q, k, v, _ = arrays(1, 128, 2, 2, 16)
    two, one = jnp.asarray([[1] * 64 + [2] * 64], jnp.int32), jnp.ones((1, 128), jnp.int32)
    place = jnp.arange(128)[None, :, None, None]
    for bad, segments, window, fine in (
        (place >= 96, two, None, slice(0, 96)),  # later
        (place < 64, two, None, slice(64, 128)),  # of another sequence
        (place < 64, one, 32, slice(96, 128)),  # before the window
    ):
        tokens = Tokens(segments, segments > 0, jnp.int32(0))
        got = flash_attention(q, jnp.where(bad, jnp.nan, k), v, tokens, 0.3, window, block=32)
        assert np.isfinite(got[:, fine]).all()


@pytest.mark.parametrize("sizes", [{"context": 4, "tensor": 2}, {"fsdp": 2, "context": 2, "tensor": 2}])
def test_a_mesh_that_cuts_rows_heads_and_queries_gives_the_same_numbers(sizes: dict[str, int]):
    """Blocks of 512 against 600 and 300 queries per shard: the last block of a shard reaches into the next one."""
    q, k, v, direction = arrays(2, 1200, 4, 2, 16)
    segments = np.array([[1] * 700 + [2] * 480 + [0] * 20, [1] * 90 + [2] * 1110])
    ctx = full_context(jnp.asarray(segments))
    direction = mask_pads(direction, segments)
    mesh = make_mesh(sizes, jax.devices()[: np.prod(list(sizes.values()))])

    def run(q, k, v):
        seen = (ctx.segments_BT, ctx.valid_BT)
        return jnp.sum(direction * long_attention(q, k, v, *seen, scale=0.3, window=None, mesh=mesh))

    close(jax.jit(jax.value_and_grad(run, (0, 1, 2)))(q, k, v), plain(q, k, v, direction, ctx, 0.3, None))


@pytest.mark.parametrize(("window", "shards"), [(None, 1), (300, 1), (None, 2), (300, 2)])
def test_the_tpu_kernel_interpreted_is_the_plain_form(window: int | None, shards: int, monkeypatch: pytest.MonkeyPatch):
    """Its queries are cut over `context` as on a mesh of TPUs, with blocks of 128 so that there are several."""
    monkeypatch.setattr(splash, "BLOCK", 128)
    q, k, v, direction = arrays(1, 512, 4, 2, 128)
    segments = np.array([[1] * 340 + [2] * 130 + [0] * 42])
    ctx = full_context(jnp.asarray(segments))
    direction = mask_pads(direction, segments)
    mesh = make_mesh({"context": shards}, jax.devices()[:shards])
    kernel = splash.make_kernel(512, 4, window, shards, interpret=True)
    cut = jax.sharding.PartitionSpec(None, "context")

    def run(q, k, v):
        def attend(kernel, *inputs):
            return attend_shard(kernel, *inputs, scale=0.3, window=window, shards=shards)

        specs = (splash.kernel_spec(kernel, mesh, "context"), cut, cut, cut, cut, cut)
        mapped = jax.shard_map(attend, mesh=mesh, in_specs=specs, out_specs=cut, check_vma=False)
        return jnp.sum(direction * mapped(kernel, q, k, v, ctx.segments_BT, ctx.valid_BT))

    close(jax.jit(jax.value_and_grad(run, (0, 1, 2)))(q, k, v), plain(q, k, v, direction, ctx, 0.3, window), 5e-5)


def test_the_kernel_takes_only_whole_blocks_and_lanes():
    assert splash.fits(1024, 4096, 256)
    assert not splash.fits(1000, 4096, 256)
    assert not splash.fits(1024, 4096, 96)
    assert NOBODY < 0


def test_long_rows_take_the_blockwise_form_inside_the_block(monkeypatch: pytest.MonkeyPatch):
    cfg = AttentionConfig(
        num_heads=6, num_kv_heads=2, head_dim=8, rope_theta=1e4, rotary_dim=4, rotary_pairs=2, scale=0.4
    )
    params = init(block.attention_specs(cfg, 16, 0.3), jax.random.key(1), "float32")
    x = jax.random.normal(jax.random.key(2), (2, 100, 16))
    ctx = full_context(jnp.asarray(SEGMENTS))
    want, _ = block.attention(params, x, ctx, replace(cfg, window=20), 1e-6)
    monkeypatch.setattr(block, "LONG", 99)
    called = []
    monkeypatch.setattr(block, "long_attention", lambda *a, **k: called.append(1) or long_attention(*a, **k))
    got, _ = block.attention(params, x, ctx, replace(cfg, window=20), 1e-6)
    assert called
    np.testing.assert_allclose(got[SEGMENTS > 0], want[SEGMENTS > 0], atol=1e-5)


def test_memory_grows_with_the_length_and_not_with_its_square():
    """Compiled temporaries of value and gradient: eight times the tokens take about eight times the memory."""

    def temporaries(T: int) -> int:
        q, k, v = (jax.ShapeDtypeStruct((1, T, heads, 64), jnp.float32) for heads in (4, 2, 2))
        segments = jax.ShapeDtypeStruct((1, T), jnp.int32)

        def run(q, k, v, segments):
            seen = (segments, segments > 0)
            return jnp.sum(long_attention(q, k, v, *seen, scale=0.1, window=None, mesh=None))

        compiled = jax.jit(jax.grad(run, (0, 1, 2))).lower(q, k, v, segments).compile()
        return compiled.memory_analysis().temp_size_in_bytes

    small, large = temporaries(4096), temporaries(32768)
    assert large < 9 * small
    assert large < 4 * 32768 * 32768 / 4  # a sixteenth of the scores alone
