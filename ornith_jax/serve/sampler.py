"""Sampling: one jitted function for all rows, and the log-probability of the distribution that was sampled from.

B rows, V vocabulary. Order of the truncations, as in SGLang's reference sampler: temperature first; then top-k, top-p
and min-p each measured on that one distribution, and what survives all three is renormalised.
"""

from __future__ import annotations

from typing import NamedTuple

import jax
import jax.numpy as jnp

GROUP = 64  # tokens whose weights are summed before one is drawn: short running sums are exact and cheap
ONE_BITS = 0x3F800000  # float32 1.0; the bits of non-negative floats are ordered as the floats are


class Knobs(NamedTuple):
    """How every row samples; [B] each. `top_k` 0 and `top_p` 1 mean all; temperature 0 is greedy.

    `seed` [B, 2] uint32: the two halves of a 64-bit number. A row draws from (seed, position) and nothing else, so a
    request gets the same tokens whatever runs beside it.
    """

    temperature: jax.Array  # float32
    top_p: jax.Array  # float32
    top_k: jax.Array  # int32
    min_p: jax.Array  # float32
    seed: jax.Array  # uint32


def sample(logits_BV: jax.Array, knobs: Knobs, position_B: jax.Array) -> tuple[jax.Array, jax.Array]:
    """(token_B int32, logprob_B float32): the behaviour policy's own log-probability of the token.

    A greedy row returns the log-probability at temperature 1 without truncation, as SGLang does.
    """
    greedy_B = knobs.temperature <= 0
    logprobs_BV = jax.nn.log_softmax(logits_BV / jnp.where(greedy_B, 1.0, knobs.temperature)[:, None], axis=-1)
    truncated_B = ~greedy_B & ((knobs.top_p < 1) | (knobs.top_k > 0) | (knobs.min_p > 0))
    logprobs_BV = jax.lax.cond(
        jnp.any(truncated_B),
        lambda: jnp.where(truncated_B[:, None], truncate(logprobs_BV, knobs), logprobs_BV),
        lambda: logprobs_BV,
    )
    best_B = jnp.argmax(logits_BV, axis=-1).astype(jnp.int32)
    token_B = jax.lax.cond(
        jnp.all(greedy_B),
        lambda: best_B,
        lambda: jnp.where(greedy_B, best_B, draw(jnp.exp(logprobs_BV), uniform(knobs.seed, position_B))),
    )
    return token_B, jnp.take_along_axis(logprobs_BV, token_B[:, None], axis=1)[:, 0]


def truncate(logprobs_BV: jax.Array, knobs: Knobs) -> jax.Array:
    """The log-probabilities after top-k, top-p and min-p, renormalised; -inf where a token was cut.

    A token stays if less than k tokens are likelier, at most `top_p` of the mass is on likelier ones, and it has at
    least `min_p` times the probability of the best. All three are a floor on the probability, found by bisection
    over the bits of a float: exact, and many times cheaper than sorting the vocabulary. Equal tokens share a fate.
    """
    probs_BV = jnp.exp(logprobs_BV)
    mass_B = jnp.where(knobs.top_p < 1, knobs.top_p, jnp.inf)
    count_B = jnp.where(knobs.top_k > 0, knobs.top_k, probs_BV.shape[1])

    def halve(_: int, bounds: tuple[jax.Array, jax.Array]) -> tuple[jax.Array, jax.Array]:
        low_B, high_B = bounds
        middle_B = (low_B + high_B) // 2
        above_BV = probs_BV > jax.lax.bitcast_convert_type(middle_B, jnp.float32)[:, None]
        mass_above_B = jnp.sum(jnp.where(above_BV, probs_BV, 0.0), axis=-1)
        stays_B = (mass_above_B <= mass_B) & (jnp.sum(above_BV, axis=-1, dtype=jnp.int32) < count_B)
        return jnp.where(stays_B, low_B, middle_B + 1), jnp.where(stays_B, middle_B, high_B)

    start = jnp.zeros(probs_BV.shape[:1], jnp.int32), jnp.full(probs_BV.shape[:1], ONE_BITS, jnp.int32)
    _, floor_bits_B = jax.lax.fori_loop(0, 30, halve, start)
    floor_B = jnp.maximum(
        jax.lax.bitcast_convert_type(floor_bits_B, jnp.float32), knobs.min_p * jnp.max(probs_BV, axis=-1)
    )
    kept_BV = jnp.where(probs_BV >= floor_B[:, None], logprobs_BV, -jnp.inf)
    return kept_BV - jax.nn.logsumexp(kept_BV, axis=-1, keepdims=True)


def uniform(seed_B2: jax.Array, position_B: jax.Array) -> jax.Array:
    """[B, 2] float32 in [0, 1): a function of the row's own seed and position."""

    def one(seed: jax.Array, position: jax.Array) -> jax.Array:
        key = jax.random.fold_in(jax.random.wrap_key_data(seed, impl="threefry2x32"), position)
        return jax.random.uniform(key, (2,), jnp.float32)

    return jax.vmap(one)(seed_B2, position_B)


def draw(probs_BV: jax.Array, uniform_B2: jax.Array) -> jax.Array:
    """[B] int32: a group of tokens by its mass, then a token of the group. One of probability zero never comes."""
    B, V = probs_BV.shape
    groups_BGC = jnp.pad(probs_BV, ((0, 0), (0, -V % GROUP))).reshape(B, -1, GROUP)
    group_B = _invert(jnp.sum(groups_BGC, axis=-1), uniform_B2[:, 0])
    members_BC = jnp.take_along_axis(groups_BGC, group_B[:, None, None], axis=1)[:, 0]
    return group_B * GROUP + _invert(members_BC, uniform_B2[:, 1])


def _invert(weights_BN: jax.Array, uniform_B: jax.Array) -> jax.Array:
    """[B] int32: the first index of positive weight whose running sum exceeds `uniform` times the whole."""
    positive_BN = weights_BN > 0
    sums_BN = jnp.where(positive_BN, jnp.cumsum(weights_BN, axis=-1), 0.0)
    target_B1 = (uniform_B * jnp.max(sums_BN, axis=-1))[:, None]
    return jnp.argmax(positive_BN & (sums_BN > target_B1), axis=-1).astype(jnp.int32)
