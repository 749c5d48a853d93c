"""Log-probabilities and entropy of tokens from hidden states, a block of the vocabulary at a time.

    z = head h, with Gemma's cap tanh(z / cap), then divided by the temperature
    lse = log sum_v exp z_v; log p(v) = z_v - lse; H = lse - sum_v p_v z_v

The full [B, T, V] logits never exist, neither here nor in the backward pass, which computes each block again from lse:

    d z_v = g (1[v = id] - p_v) - g_H p_v (log p_v + H)

Why blocks of the vocabulary, and not of positions: the gradient of a block of the head is then one product over all
positions. It needs no [V, D] accumulator, and over a mesh it is reduced once and not once per chunk. Block i holds the
entries i, i + J, i + 2J, ...: a vocabulary that is sharded stays where it is, as do B and T, and every shard works on
every block.

B batch, T tokens, D model width, V vocabulary, J blocks, U = V / J entries of a block.
"""

from __future__ import annotations

from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp

from ornith_jax.config import ModelConfig
from ornith_jax.params import Params

Running = tuple[jax.Array, jax.Array, jax.Array, jax.Array]

LOWEST = -1e15  # stands for -inf: differences and squares of it are finite, and exp gives exactly 0


class Head(NamedTuple):
    """How logits are made. Static."""

    softcap: float | None
    float32: bool
    blocks: int
    temperature: float = 1.0


def token_logprobs(
    params: Params,
    cfg: ModelConfig,
    hidden_BTD: jax.Array,
    token_ids: jax.Array,
    segment_ids: jax.Array,
    *,
    chunk_tokens: int = 1024,
    float32_head: bool = True,
    temperature: float = 1.0,
) -> tuple[jax.Array, jax.Array]:
    """(logprobs, entropy), both [B, T] float32; index t concerns token t given its segment before t.

    Both are 0 for the first token of a segment and for padding. Differentiable in `hidden_BTD` and in the head.

    Args:
        hidden_BTD: after the final norm, as `models.decoder.forward` returns it.
        token_ids, segment_ids: [B, T] int32; segment 0 is padding.
        chunk_tokens: the logits that exist at once take the room of those of this many positions of every row.
        float32_head: logits are summed and kept in float32. False: they are rounded to the dtype of the hidden states,
            as in `models.decoder.logits`. Either way the head is cast to that dtype, like every weight: an engine
            that serves bfloat16 holds the same numbers.
        temperature: of the distribution. An unchanged policy has the ratio 1 only at the one it was sampled with.
    """
    head_VD = params["lm_head"] if "lm_head" in params else params["embed"]
    blocks = -(-token_ids.shape[1] // chunk_tokens)
    next_ids = jnp.pad(token_ids[:, 1:], ((0, 0), (0, 1)))
    head = Head(cfg.final_softcap, float32_head, _divide(cfg.vocab_size, blocks), temperature)
    logprobs, entropy = next_token(hidden_BTD, head_VD, next_ids, head)
    follows = (segment_ids[:, 1:] == segment_ids[:, :-1]) & (segment_ids[:, 1:] > 0)

    def of_token(values: jax.Array) -> jax.Array:
        """What position t - 1 says about its next token, at t."""
        return jnp.pad(jnp.where(follows, values[:, :-1], 0.0), ((0, 0), (1, 0)))

    return of_token(logprobs), of_token(entropy)


@partial(jax.custom_vjp, nondiff_argnums=(3,))
def next_token(
    hidden_BTD: jax.Array, head_VD: jax.Array, next_ids: jax.Array, head: Head
) -> tuple[jax.Array, jax.Array]:
    """log p(next_ids[b, t] | hidden[b, t]) and the entropy of that distribution, [B, T] float32."""
    return _forward(hidden_BTD, head_VD, next_ids, head)[0]


def _forward(
    hidden_BTD: jax.Array, head_VD: jax.Array, next_ids: jax.Array, head: Head
) -> tuple[tuple[jax.Array, jax.Array], tuple[jax.Array, ...]]:
    """A running maximum m, with s = sum exp(z - m), c = sum exp(z - m) (z - m), and the logit of the token itself."""
    blocks_UJD = _blocks(head_VD, head)

    def step(carry: Running, j: jax.Array) -> tuple[Running, None]:
        m, s, c, picked = carry
        block_UD = _block(blocks_UJD, j, hidden_BTD.dtype)
        logits_BTU, ids_11U = _logits(hidden_BTD, block_UD, j, head_VD.shape[0], head)
        top = jnp.maximum(m, logits_BTU.max(-1))
        centred_BTU = logits_BTU - top[..., None]
        exp_BTU = jnp.exp(centred_BTU)
        shrink = jnp.exp(m - top)
        c = shrink * (c + s * (m - top)) + (exp_BTU * centred_BTU).sum(-1)
        s = shrink * s + exp_BTU.sum(-1)
        picked = picked + jnp.where(ids_11U == next_ids[..., None], logits_BTU, 0.0).sum(-1)
        return (top, s, c, picked), None

    zero = jnp.zeros(next_ids.shape, jnp.float32)
    (m, s, c, picked), _ = jax.lax.scan(step, (zero + LOWEST, zero, zero, zero), jnp.arange(head.blocks))
    lse, entropy = m + jnp.log(s), jnp.log(s) - c / s
    return (picked - lse, entropy), (hidden_BTD, head_VD, next_ids, lse, entropy)


def _backward(
    head: Head, saved: tuple[jax.Array, ...], gradients: tuple[jax.Array, jax.Array]
) -> tuple[jax.Array, jax.Array, None]:
    hidden_BTD, head_VD, next_ids, lse, entropy = saved
    g, g_entropy = (x[..., None] for x in gradients)
    blocks_UJD = _blocks(head_VD, head)

    def step(carry: tuple[jax.Array, jax.Array], j: jax.Array) -> tuple[tuple[jax.Array, jax.Array], None]:
        d_hidden_BTD, d_blocks_UJD = carry
        block_UD = _block(blocks_UJD, j, hidden_BTD.dtype)
        logits_BTU, ids_11U = _logits(hidden_BTD, block_UD, j, head_VD.shape[0], head)
        logprobs_BTU = logits_BTU - lse[..., None]
        p_BTU = jnp.exp(logprobs_BTU)
        d_BTU = jnp.where(ids_11U == next_ids[..., None], g, 0.0) - p_BTU * (
            g + g_entropy * (logprobs_BTU + entropy[..., None])
        )
        if head.softcap is not None:
            d_BTU = d_BTU * (1 - (logits_BTU * head.temperature / head.softcap) ** 2)
        if head.temperature != 1:
            d_BTU = d_BTU / head.temperature
        d_BTU = d_BTU.astype(hidden_BTD.dtype)
        d_hidden_BTD = d_hidden_BTD + _product("btu,ud->btd", d_BTU, block_UD, head)
        d_block_UD = _product("btu,btd->ud", d_BTU, hidden_BTD, head).astype(d_blocks_UJD.dtype)
        return (d_hidden_BTD, jax.lax.dynamic_update_index_in_dim(d_blocks_UJD, d_block_UD, j, 1)), None

    empty = jnp.zeros(hidden_BTD.shape, jnp.float32), jnp.zeros_like(blocks_UJD)
    (d_hidden_BTD, d_blocks_UJD), _ = jax.lax.scan(step, empty, jnp.arange(head.blocks))
    d_head_VD = d_blocks_UJD.reshape(-1, head_VD.shape[1])[: head_VD.shape[0]]
    return d_hidden_BTD.astype(hidden_BTD.dtype), d_head_VD, None


next_token.defvjp(_forward, _backward)


def _logits(
    hidden_BTD: jax.Array, block_UD: jax.Array, j: jax.Array, vocab_size: int, head: Head
) -> tuple[jax.Array, jax.Array]:
    """Logits of block j, [B, T, U] float32, and its token ids [1, 1, U]; `LOWEST` where they pad the vocabulary."""
    logits_BTU = _product("btd,ud->btu", hidden_BTD, block_UD, head)
    if not head.float32:
        logits_BTU = logits_BTU.astype(hidden_BTD.dtype)
    if head.softcap is not None:
        logits_BTU = jnp.tanh(logits_BTU / head.softcap) * head.softcap
    if head.temperature != 1:
        logits_BTU = logits_BTU / head.temperature
    ids_11U = (jnp.arange(block_UD.shape[0]) * head.blocks + j)[None, None]
    return jnp.where(ids_11U < vocab_size, logits_BTU.astype(jnp.float32), LOWEST), ids_11U


def _product(equation: str, a: jax.Array, b: jax.Array, head: Head) -> jax.Array:
    """Summed in float32. Products of bfloat16 are exact there; a float32 head keeps float32 factors whole too."""
    precision = jax.lax.Precision.HIGHEST if head.float32 and a.dtype == jnp.float32 else None
    return jnp.einsum(equation, a, b, precision=precision, preferred_element_type=jnp.float32)


def _blocks(head_VD: jax.Array, head: Head) -> jax.Array:
    padding = -head_VD.shape[0] % head.blocks
    if padding:
        head_VD = jnp.pad(head_VD, ((0, padding), (0, 0)))
    return head_VD.reshape(-1, head.blocks, head_VD.shape[1])


def _block(blocks_UJD: jax.Array, j: jax.Array, dtype: jnp.dtype) -> jax.Array:
    return jax.lax.dynamic_index_in_dim(blocks_UJD, j, 1, keepdims=False).astype(dtype)


def _divide(vocab_size: int, at_least: int) -> int:
    """Blocks of a vocabulary: a divisor of it not far above `at_least`, so that no copy of the head is padded."""
    at_least = min(at_least, vocab_size)
    return next((n for n in range(at_least, 2 * at_least) if vocab_size % n == 0), at_least)
