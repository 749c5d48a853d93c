"""JAX's splash-attention kernel for TPUs (jax.experimental.pallas.ops.tpu), behind the arguments of `flash_attention`.

B batch, T queries of this shard, S keys, N query heads of this shard, K key/value heads of this shard, H head width.
"""

from __future__ import annotations

import jax
import jax.numpy as jnp
from jax.experimental.pallas.ops.tpu.splash_attention import splash_attention_kernel as splash
from jax.experimental.pallas.ops.tpu.splash_attention import splash_attention_mask as masks
from jax.sharding import NamedSharding, PartitionSpec

BLOCK = 512
LANES = 128  # width of a TPU register: heads must be a multiple of it

Kernel = splash.SplashAttentionKernel


def fits(T: int, S: int, head_dim: int) -> bool:
    """Can the kernel take these shapes? (T: queries of one shard.)"""
    return T % BLOCK == 0 and S % BLOCK == 0 and head_dim % LANES == 0


def make_kernel(S: int, num_heads: int, window: int | None, shards: int = 1, *, interpret: bool = False) -> Kernel:
    """The kernel of S queries and S keys, whose queries will be cut into `shards` equal runs; `num_heads` per shard."""
    mask = masks.CausalMask((S, S)) if window is None else masks.LocalMask((S, S), (window - 1, 0), 0)
    sizes = splash.BlockSizes(
        block_q=BLOCK,
        block_kv=BLOCK,
        block_q_dkv=BLOCK,
        block_kv_dkv=BLOCK,
        block_q_dq=BLOCK,
        block_kv_dq=BLOCK,
    )
    return splash.make_splash_mha(
        masks.MultiHeadMask([mask] * num_heads),
        block_sizes=sizes,
        head_shards=1,
        q_seq_shards=shards,
        interpret=interpret,
    )


def kernel_spec(kernel: Kernel, mesh: jax.sharding.Mesh, axis: str) -> Kernel:
    """How `shard_map` cuts the kernel's tables: by queries, over mesh axis `axis`."""
    return kernel.manual_sharding_spec(NamedSharding(mesh, PartitionSpec(None, axis)))


def splash_attention(
    kernel: Kernel,
    q_BTNH: jax.Array,
    k_BSKH: jax.Array,
    v_BSKH: jax.Array,
    query_segments_BT: jax.Array,
    key_segments_BS: jax.Array,
    scale: float,
) -> jax.Array:
    """[B, T, N, H]. Keys that nobody may see carry a segment id that no query has. Such a query gives nonsense."""
    q, k, v = (jnp.moveaxis(x, 2, 1) for x in (q_BTNH * jnp.asarray(scale, q_BTNH.dtype), k_BSKH, v_BSKH))
    segments = splash.SegmentIds(query_segments_BT, key_segments_BS)
    out: jax.Array = jax.vmap(kernel)(q, k, v, segments)  # type: ignore[assignment]
    return jnp.moveaxis(out, 1, 2)
