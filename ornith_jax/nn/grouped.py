"""Grouped matrix product: rows sorted by group, one weight matrix per group, no row dropped.

TPU and GPU have it as `lax.ragged_dot_general`. On a CPU that lowers to a masked product with *every* group,
E times the work, so there the rows are cut into blocks of one group each. M rows, E groups, K in, N out.
"""

from __future__ import annotations

import jax
import jax.numpy as jnp

DIMENSIONS = jax.lax.RaggedDotDimensionNumbers(
    dot_dimension_numbers=(((1,), (2,)), ((), ())), lhs_ragged_dimensions=[0], rhs_group_dimensions=[0]
)


def grouped_dot(x_MK: jax.Array, w_ENK: jax.Array, sizes_E: jax.Array) -> jax.Array:
    """[M, N]: row m times the transposed weight of its group; rows of group e follow those of group e - 1."""
    return jax.lax.platform_dependent(x_MK, w_ENK, sizes_E, cpu=_blocked_dot, default=_ragged_dot)


def grouped_dot_reference(x_MK: jax.Array, w_ENK: jax.Array, sizes_E: jax.Array) -> jax.Array:
    """The slow, obvious form: gather the matrix of every row."""
    return jnp.einsum("mk,mnk->mn", x_MK, w_ENK[_group_of_row(sizes_E, x_MK.shape[0])])


def _ragged_dot(x_MK: jax.Array, w_ENK: jax.Array, sizes_E: jax.Array) -> jax.Array:
    return jax.lax.ragged_dot_general(x_MK, w_ENK, sizes_E, DIMENSIONS)


def _group_of_row(sizes_E: jax.Array, num_rows: int) -> jax.Array:
    return jnp.searchsorted(jnp.cumsum(sizes_E), jnp.arange(num_rows, dtype=sizes_E.dtype), side="right")


def _block_rows(num_rows: int, num_groups: int) -> int:
    """Rows per block: near the mean group, a power of two between 8 and 64."""
    rows = 8
    while rows < 64 and rows * num_groups < num_rows:
        rows *= 2
    return rows


def _layout(sizes_E: jax.Array, num_rows: int, block: int) -> tuple[jax.Array, jax.Array, jax.Array]:
    """(padded row of every row, group of every block, number of blocks in use)."""
    blocks_E = -(-sizes_E // block)
    ends_E = jnp.cumsum(blocks_E)
    group_M = _group_of_row(sizes_E, num_rows)
    first_row_E = jnp.cumsum(sizes_E) - sizes_E
    first_block_E = ends_E - blocks_E
    row_M = jnp.arange(num_rows, dtype=sizes_E.dtype)
    slot_M = first_block_E[group_M] * block + row_M - first_row_E[group_M]
    most = -(-num_rows // block) + min(sizes_E.shape[0], num_rows)
    group_of_block = jnp.searchsorted(ends_E, jnp.arange(most, dtype=sizes_E.dtype), side="right")
    return slot_M, group_of_block, ends_E[-1]


def _to_blocks(x_MK: jax.Array, slot_M: jax.Array, num_blocks: int, block: int) -> jax.Array:
    padded = jnp.zeros((num_blocks * block, x_MK.shape[1]), x_MK.dtype).at[slot_M].set(x_MK, unique_indices=True)
    return padded.reshape(num_blocks, block, x_MK.shape[1])


def _each_block(blocks: jax.Array, w_EAB: jax.Array, groups: jax.Array, used: jax.Array, equation: str) -> jax.Array:
    """einsum of every block in use with the weight of its group."""
    width = w_EAB.shape[1 if equation.endswith("n") else 2]

    def body(i: jax.Array, out: jax.Array) -> jax.Array:
        return out.at[i].set(jnp.einsum(equation, blocks[i], w_EAB[groups[i]]))

    # Like `blocks`, so that under shard_map the carry of the loop starts with the type that it ends with.
    return jax.lax.fori_loop(0, used, body, jax.lax.full_like(blocks, 0, shape=(*blocks.shape[:2], width)))


@jax.custom_vjp
def _blocked_dot(x_MK: jax.Array, w_ENK: jax.Array, sizes_E: jax.Array) -> jax.Array:
    return _blocked_fwd(x_MK, w_ENK, sizes_E)[0]


def _blocked_fwd(x_MK: jax.Array, w_ENK: jax.Array, sizes_E: jax.Array):  # type: ignore[no-untyped-def]
    block = _block_rows(x_MK.shape[0], w_ENK.shape[0])
    slot_M, groups, used = _layout(sizes_E, x_MK.shape[0], block)
    x_blocks = _to_blocks(x_MK, slot_M, groups.shape[0], block)
    out = _each_block(x_blocks, w_ENK, groups, used, "mk,nk->mn")
    return out.reshape(-1, out.shape[-1])[slot_M], (x_blocks, w_ENK, slot_M, groups, used)


def _blocked_bwd(residuals, dy_MN: jax.Array):  # type: ignore[no-untyped-def]
    x_blocks, w_ENK, slot_M, groups, used = residuals
    dy_blocks = _to_blocks(dy_MN, slot_M, *x_blocks.shape[:2])
    dx = _each_block(dy_blocks, w_ENK, groups, used, "mn,nk->mk")

    def add(i: jax.Array, dw_ENK: jax.Array) -> jax.Array:
        return dw_ENK.at[groups[i]].add(jnp.einsum("mn,mk->nk", dy_blocks[i], x_blocks[i]))

    dw_ENK = jax.lax.fori_loop(0, used, add, jnp.zeros_like(w_ENK))
    return dx.reshape(-1, dx.shape[-1])[slot_M], dw_ENK, None


_blocked_dot.defvjp(_blocked_fwd, _blocked_bwd)
