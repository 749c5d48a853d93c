"""Attention over long rows without a cache: which form computes it, and how a mesh shares the work.

Batch rows are spread over `data`, `fsdp` and `expert`, heads over `tensor`, queries over `context`. Keys and values
are gathered over `context`: grouped heads make them small (32,768 tokens of 4 heads of 256 in bfloat16: 67 MB).

B batch, T tokens, N query heads, K key/value heads, H head width.
"""

from __future__ import annotations

import jax
import jax.numpy as jnp
from jax.sharding import Mesh, PartitionSpec

from ornith_jax.kernels.flash import Tokens, flash_attention
from ornith_jax.kernels.splash import Kernel, fits, kernel_spec, make_kernel, splash_attention
from ornith_jax.sharding import BATCH_AXES

NOBODY = -1  # the segment of keys that nobody sees


def long_attention(
    q_BTNH: jax.Array,
    k_BTKH: jax.Array,
    v_BTKH: jax.Array,
    segments_BT: jax.Array,
    valid_BT: jax.Array,
    *,
    scale: float,
    window: int | None,
    mesh: Mesh | None,
) -> jax.Array:
    """[B, T, N, H]: causal, within segments, not to pads. On TPUs the splash kernel where it fits, else blockwise."""
    shards, heads = (1, 1) if mesh is None else (mesh.shape["context"], mesh.shape["tensor"])
    platform = jax.default_backend() if mesh is None else mesh.devices.flat[0].platform
    (_, T, N, H), kernel = q_BTNH.shape, None
    if platform == "tpu" and fits(T // shards, T, H):
        kernel = make_kernel(T, N // heads, window, shards)
    inputs = (q_BTNH, k_BTKH, v_BTKH, segments_BT, valid_BT)
    if mesh is None:
        return attend_shard(kernel, *inputs, scale=scale, window=window, shards=1)

    def attend(kernel: Kernel | None, *inputs: jax.Array) -> jax.Array:
        return attend_shard(kernel, *inputs, scale=scale, window=window, shards=shards)

    wide, narrow = PartitionSpec(BATCH_AXES, "context", "tensor"), PartitionSpec(BATCH_AXES, "context")
    kernel_in = None if kernel is None else kernel_spec(kernel, mesh, "context")
    # The kernel does not say over which axes its results vary, so that cannot be checked. Every axis is in the specs.
    run = jax.shard_map(
        attend, mesh=mesh, in_specs=(kernel_in, wide, wide, wide, narrow, narrow), out_specs=wide, check_vma=False
    )
    return run(kernel, *inputs)


def attend_shard(
    kernel: Kernel | None,
    q: jax.Array,
    k: jax.Array,
    v: jax.Array,
    segments: jax.Array,
    valid: jax.Array,
    *,
    scale: float,
    window: int | None,
    shards: int,
) -> jax.Array:
    """One shard: its queries against the keys of all shards of the axis `context`. Blockwise without a kernel."""
    first, own_segments = jnp.int32(0), segments
    if shards > 1:
        first = jax.lax.axis_index("context") * q.shape[1]
        k, v, segments, valid = (jax.lax.all_gather(x, "context", axis=1, tiled=True) for x in (k, v, segments, valid))
    if kernel is None:
        return flash_attention(q, k, v, Tokens(segments, valid, first), scale, window)
    return splash_attention(kernel, q, k, v, own_segments, jnp.where(valid, segments, NOBODY), scale)
