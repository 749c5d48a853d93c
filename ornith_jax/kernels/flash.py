"""Blockwise causal attention in plain JAX: memory grows with T, not with T x S (arXiv 2205.14135, 2307.08691).

The forward pass keeps the output and the log of the sum of exponentials; the backward pass computes the weights again.
Key blocks that no query of a block can see (later ones, older than the window, or of earlier sequences of a packed
row) are never visited, so that a row of many short sequences costs what the sequences cost.

B batch, T queries, S keys, N query heads, K key/value heads, G = N / K, H head width, C block, I blocks of queries.
"""

from __future__ import annotations

from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp

BLOCK = 512  # queries, and keys, whose scores exist at once
MASKED = -1e30


class Tokens(NamedTuple):
    """What the mask is made of. Query t stands at place `offset + t` among the keys.

    segments_BS: int32, one id per sequence. valid_BS: False for keys that nobody sees (pads).
    """

    segments_BS: jax.Array
    valid_BS: jax.Array
    offset: jax.Array


def flash_attention(
    q_BTNH: jax.Array,
    k_BSKH: jax.Array,
    v_BSKH: jax.Array,
    tokens: Tokens,
    scale: float,
    window: int | None,
    block: int = BLOCK,
) -> jax.Array:
    """[B, T, N, H] in the dtype of q; softmax and sums are float32. A query that sees nothing gives zeros.

    A query sees keys of its own segment that are valid, not later, and less than `window` places back.
    """
    (B, T, N, H), K = q_BTNH.shape, k_BSKH.shape[2]
    q = _pad(jnp.transpose(q_BTNH.reshape(B, T, K, N // K, H), (0, 2, 3, 1, 4)), 3, block)
    k, v = (_pad(jnp.moveaxis(x, 2, 1), 2, block) for x in (k_BSKH, v_BSKH))
    # One block more, so that the last queries are looked up where they are: a slice beyond the end would be moved.
    segments, valid = (_pad(x, 1, block, more=block) for x in (tokens.segments_BS, tokens.valid_BS))
    tokens = Tokens(segments, valid, jnp.asarray(tokens.offset, jnp.int32))
    out_BKGTH = _flash(q, k, v, tokens, scale, window, block)[:, :, :, :T]
    return jnp.transpose(out_BKGTH, (0, 3, 1, 2, 4)).reshape(B, T, N, H)


def _pad(x: jax.Array, axis: int, block: int, more: int = 0) -> jax.Array:
    """Zeros (or False: keys that nobody sees) up to a whole number of blocks."""
    widths = [(0, 0)] * x.ndim
    widths[axis] = (0, -x.shape[axis] % block + more)
    return jnp.pad(x, widths)


@partial(jax.custom_vjp, nondiff_argnums=(4, 5, 6))
def _flash(
    q: jax.Array, k: jax.Array, v: jax.Array, tokens: Tokens, scale: float, window: int | None, block: int
) -> jax.Array:
    """q [B, K, G, T, H]; k, v [B, K, S, H]."""
    return _forward(q, k, v, tokens, scale, window, block)[0]


def _forward(  # type: ignore[no-untyped-def]
    q: jax.Array, k: jax.Array, v: jax.Array, tokens: Tokens, scale: float, window: int | None, block: int
):
    def query_block(i: jax.Array) -> tuple[jax.Array, jax.Array]:
        q_i = _cut(q, i, 3, block)

        def key_block(j: jax.Array, carry: tuple[jax.Array, ...]) -> tuple[jax.Array, ...]:
            out, largest, total = carry
            scores, seen = _scores(q_i, _cut(k, j, 2, block), tokens, i, j, scale, window)
            higher = jnp.maximum(largest, jnp.max(scores, axis=-1))
            weights = jnp.where(seen, jnp.exp(scores - higher[..., None]), 0.0)
            shrink = jnp.exp(largest - higher)
            add = _product("bkgts,bksh->bkgth", weights.astype(v.dtype), _cut(v, j, 2, block))
            return out * shrink[..., None] + add, higher, total * shrink + jnp.sum(weights, axis=-1)

        lead = q_i.shape[:-1]
        start = (jnp.zeros(q_i.shape, jnp.float32), jnp.full(lead, MASKED, jnp.float32), jnp.zeros(lead, jnp.float32))
        out, largest, total = jax.lax.fori_loop(*_reach(k, tokens, i, window, block), key_block, start)
        some = jnp.where(total > 0, total, 1.0)
        return (out / some[..., None]).astype(q.dtype), largest + jnp.log(some)

    out, logsum = jax.lax.map(query_block, jnp.arange(q.shape[3] // block, dtype=jnp.int32))
    out, logsum = _join(out), _join(logsum)
    return out, (q, k, v, tokens, out, logsum)


def _backward(scale: float, window: int | None, block: int, residuals, d_out: jax.Array):  # type: ignore[no-untyped-def]
    q, k, v, tokens, out, logsum = residuals
    inner = jnp.sum(out.astype(jnp.float32) * d_out.astype(jnp.float32), axis=-1)  # sum of weight x its cotangent

    def query_block(carry: tuple[jax.Array, jax.Array], i: jax.Array):  # type: ignore[no-untyped-def]
        q_i, d_out_i, logsum_i, inner_i = (_cut(x, i, 3, block) for x in (q, d_out, logsum, inner))

        def key_block(j: jax.Array, carry: tuple[jax.Array, ...]) -> tuple[jax.Array, ...]:
            dq_i, dk, dv = carry
            k_j, v_j = _cut(k, j, 2, block), _cut(v, j, 2, block)
            scores, seen = _scores(q_i, k_j, tokens, i, j, scale, window)
            weights = jnp.where(seen, jnp.exp(scores - logsum_i[..., None]), 0.0)
            d_weights = _product("bkgth,bksh->bkgts", d_out_i, v_j)
            d_scores = (weights * (d_weights - inner_i[..., None]) * scale).astype(q.dtype)
            dv = _add(dv, _product("bkgts,bkgth->bksh", weights.astype(q.dtype), d_out_i), j, block)
            dk = _add(dk, _product("bkgts,bkgth->bksh", d_scores, q_i), j, block)
            return dq_i + _product("bkgts,bksh->bkgth", d_scores, k_j), dk, dv

        start = (jnp.zeros(q_i.shape, jnp.float32), *carry)
        dq_i, dk, dv = jax.lax.fori_loop(*_reach(k, tokens, i, window, block), key_block, start)
        return (dk, dv), dq_i.astype(q.dtype)

    blocks = jnp.arange(q.shape[3] // block, dtype=jnp.int32)
    (dk, dv), dq = jax.lax.scan(query_block, (jnp.zeros(k.shape, jnp.float32), jnp.zeros(v.shape, jnp.float32)), blocks)
    return _join(dq), dk.astype(k.dtype), dv.astype(v.dtype), None


_flash.defvjp(_forward, _backward)


def _reach(k: jax.Array, tokens: Tokens, i: jax.Array, window: int | None, block: int) -> tuple[jax.Array, jax.Array]:
    """Query block i visits key blocks first..end-1: from the oldest key its first query may see to its last query."""
    first_query = tokens.offset + i * block
    first_segment_B1 = jax.lax.dynamic_slice_in_dim(tokens.segments_BS, first_query, 1, axis=1)
    oldest = jnp.min(jnp.argmax(tokens.segments_BS == first_segment_B1, axis=1)).astype(jnp.int32)
    if window is not None:
        oldest = jnp.maximum(oldest, first_query - window + 1)
    end = jnp.minimum((first_query + 2 * block - 1) // block, k.shape[2] // block)
    return jnp.minimum(oldest // block, end), end


def _scores(
    q_i: jax.Array, k_j: jax.Array, tokens: Tokens, i: jax.Array, j: jax.Array, scale: float, window: int | None
) -> tuple[jax.Array, jax.Array]:
    """(scores [B, K, G, C, C], MASKED where not seen; seen [B, 1, 1, C, C]) of one block of queries and one of keys."""
    block = k_j.shape[2]
    first_query = tokens.offset + i * block
    places_C = jnp.arange(block, dtype=jnp.int32)
    back_CC = (first_query + places_C)[:, None] - (j * block + places_C)[None, :]
    near_CC = (back_CC >= 0) if window is None else (back_CC >= 0) & (back_CC < window)
    query_segments_BC = jax.lax.dynamic_slice_in_dim(tokens.segments_BS, first_query, block, axis=1)
    key_segments_BC, valid_BC = (_cut(x, j, 1, block) for x in (tokens.segments_BS, tokens.valid_BS))
    same_BCC = query_segments_BC[:, :, None] == key_segments_BC[:, None, :]
    seen = (near_CC[None] & same_BCC & valid_BC[:, None, :])[:, None, None]
    return jnp.where(seen, _product("bkgth,bksh->bkgts", q_i, k_j) * scale, MASKED), seen


def _product(equation: str, a: jax.Array, b: jax.Array) -> jax.Array:
    return jnp.einsum(equation, a, b, preferred_element_type=jnp.float32)


def _cut(x: jax.Array, i: jax.Array, axis: int, block: int) -> jax.Array:
    return jax.lax.dynamic_slice_in_dim(x, i * block, block, axis)


def _add(x: jax.Array, part: jax.Array, j: jax.Array, block: int) -> jax.Array:
    return jax.lax.dynamic_update_slice_in_dim(x, _cut(x, j, 2, block) + part, j * block, axis=2)


def _join(blocks: jax.Array) -> jax.Array:
    """[I, B, K, G, C, ...] -> [B, K, G, I * C, ...]"""
    x = jnp.moveaxis(blocks, 0, 3)
    return x.reshape(*x.shape[:3], -1, *x.shape[5:])
