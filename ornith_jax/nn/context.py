"""What every block is told about the tokens: which segment, which position, and what the cache holds.

B batch, T new tokens, S cache slots.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import jax
import jax.numpy as jnp
from jax.sharding import Mesh, PartitionSpec

from ornith_jax.sharding import BATCH_AXES, constrain


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class Context:
    """Example of two packed sequences and one pad: segment_ids [[1, 1, 1, 2, 2, 0]] gives
    positions [[0, 1, 2, 0, 1, 0]], valid [[T, T, T, T, T, F]], segments [[1, 1, 1, 2, 2, 2]].

    segments_BT: pads carry the id of the sequence before them, so that recurrent state survives them.
    valid_BT: False for pads; they neither write state nor are attended to.
    cached_B: tokens already in the cache, or None for a full-sequence forward.
    mesh: over which the batch and the parameters are spread, or None on one device.
    routed_BTX: experts that this layer must use for each token, -1 where it chooses itself; None: everywhere.
    """

    segments_BT: jax.Array
    valid_BT: jax.Array
    positions_BT: jax.Array
    cached_B: jax.Array | None = None
    mesh: Mesh | None = field(default=None, metadata={"static": True})
    routed_BTX: jax.Array | None = None


def full_context(segment_ids_BT: jax.Array, positions_BT: jax.Array | None = None, mesh: Mesh | None = None) -> Context:
    """Context of whole sequences. Segment ids: 0 is padding, equal neighbours belong together."""
    B, T = segment_ids_BT.shape
    segment_ids_BT = constrain(segment_ids_BT, mesh, PartitionSpec(BATCH_AXES))  # all of T: running maxima follow
    index_T = jnp.arange(T, dtype=jnp.int32)[None, :]
    valid_BT = segment_ids_BT > 0
    last_valid_BT = jax.lax.cummax(jnp.where(valid_BT, index_T, -1), axis=1)
    segments_BT = jnp.take_along_axis(segment_ids_BT, jnp.maximum(last_valid_BT, 0), axis=1)
    segments_BT = jnp.where(last_valid_BT >= 0, segments_BT, 0)
    if positions_BT is None:
        starts_BT = jnp.concatenate([jnp.ones((B, 1), bool), segments_BT[:, 1:] != segments_BT[:, :-1]], axis=1)
        start_BT = jax.lax.cummax(jnp.where(starts_BT, index_T, 0), axis=1)
        positions_BT = jnp.where(valid_BT, index_T - start_BT, 0)
    return Context(segments_BT, valid_BT, positions_BT.astype(jnp.int32), mesh=mesh)


def cached_context(num_new_B: jax.Array, cached_B: jax.Array, T: int) -> Context:
    """Context of T new token slots per row, of which the first `num_new_B` are real, after `cached_B` old ones."""
    index_T = jnp.arange(T, dtype=jnp.int32)[None, :]
    valid_BT = index_T < num_new_B[:, None]
    return Context(jnp.ones_like(valid_BT, dtype=jnp.int32), valid_BT, cached_B[:, None] + index_T, cached_B)
