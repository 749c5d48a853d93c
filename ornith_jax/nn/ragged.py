"""Exchange of slices of unequal length between the devices along the mesh axis `expert`, inside `shard_map`.

TPU and GPU have it as one collective. A CPU has not, so there the slices travel in padded buffers, the receiver's
whole length for every sender: S x R rows, for tests and small machines.
"""

from __future__ import annotations

from typing import NamedTuple

import jax
import jax.numpy as jnp

AXIS = "expert"


class Slices(NamedTuple):
    """N slices, N / S for each device in its order; the names and meaning are those of `lax.ragged_all_to_all`.

    Example of device 0 of 2, one slice each: input_offsets [0, 1], send_sizes [1, 2], output_offsets [0, 0] sends its
    row 0 to itself and rows 1, 2 to device 1, both to the start of the output; recv_sizes [1, 1] come back to it.
    """

    input_offsets: jax.Array
    send_sizes: jax.Array
    output_offsets: jax.Array
    recv_sizes: jax.Array


def exchange(rows: jax.Array, into: jax.Array, slices: Slices) -> jax.Array:
    """`into` [R, D] of each device, with the slices of everybody's `rows` [P, D] that are meant for it written over."""
    return jax.lax.platform_dependent(rows, into, *slices, cpu=_padded, default=_ragged)


def _ragged(rows: jax.Array, into: jax.Array, *slices: jax.Array) -> jax.Array:
    return jax.lax.ragged_all_to_all(rows, into, *slices, axis_name=AXIS)


def _padded(
    rows: jax.Array,
    into: jax.Array,
    input_offsets: jax.Array,
    send_sizes: jax.Array,
    output_offsets: jax.Array,
    recv_sizes: jax.Array,
) -> jax.Array:
    """One `all_to_all` of [S, R, D]; a slot that nobody sends to keeps what is in `into`."""
    del recv_sizes
    S, R = jax.lax.axis_size(AXIS), into.shape[0]
    row_P = jnp.arange(rows.shape[0], dtype=jnp.int32)
    after_NP = row_P[None] - input_offsets[:, None]
    inside_NP = (after_NP >= 0) & (after_NP < send_sizes[:, None])
    slice_P = jnp.argmax(inside_NP, axis=0)
    slot_P = output_offsets[slice_P] + row_P - input_offsets[slice_P]
    slot_P = jnp.where(jnp.any(inside_NP, axis=0), slot_P, R)  # beyond the end: dropped below
    to_P = slice_P // (send_sizes.shape[0] // S)
    padded = jnp.zeros((S, R, rows.shape[1]), rows.dtype).at[to_P, slot_P].set(rows, mode="drop")
    filled = jnp.zeros((S, R), jnp.int32).at[to_P, slot_P].set(1, mode="drop")
    arrived = jax.lax.all_to_all(padded, AXIS, 0, 0)
    written_R = jnp.sum(jax.lax.all_to_all(filled, AXIS, 0, 0), axis=0) > 0
    return jnp.where(written_R[:, None], jnp.sum(arrived, axis=0), into)
