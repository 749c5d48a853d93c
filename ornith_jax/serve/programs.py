"""What runs on the device: fill rows of the cache, decode rows for some steps, take a row out and put it back.

Every shape is static. A program works on a box, the first `length` positions of some rows, so that short and few
sequences do not pay for the longest and the most; there is one compiled program per size of box in use.

B rows, T tokens, N steps, V vocabulary, M stop tokens, L layers, X experts per token.
"""

from __future__ import annotations

from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from ornith_jax.config import AttentionConfig, ModelConfig
from ornith_jax.models import decoder
from ornith_jax.params import Params
from ornith_jax.serve.sampler import Knobs, sample

MAX_STEPS = 64  # N: tokens per row that one call of `decode` may write
MAX_STOPS = 8  # M: stop tokens that a request may name


class Rows(NamedTuple):
    """What `decode` is told about every row. A row whose budget is 0 is left exactly as it is."""

    token: jax.Array  # [B] int32: the newest token, not yet in the cache
    budget: jax.Array  # [B] int32: tokens that may still be written
    stops: jax.Array  # [B, M] int32, padded with -1
    knobs: Knobs


def new_cache(cfg: ModelConfig, rows: int, max_len: int, dtype: Any) -> Params:
    """An empty cache, one layer after the other: `decode` would copy stacked layers at every token."""
    return decoder.unstack(decoder.init_cache(cfg, rows, max_len, dtype), cfg)


def read(cache: Params, cfg: ModelConfig, row: jax.Array, rows: int, length: int) -> Params:
    """A copy of the box: rows `row` to `row + rows`, the first `length` positions. A ring shorter than that is whole.

    A cut ring stays a ring: while every position is below `length`, position mod `length` is the position.
    """

    def cut(x: jax.Array, has_positions: bool) -> jax.Array:
        sizes = (rows, *(min(length, x.shape[1]) if has_positions else n for n in x.shape[1:2]), *x.shape[2:])
        return jax.lax.dynamic_slice(x, (row, *(0,) * (x.ndim - 1)), sizes)

    return _map(cut, cfg, cache)


def write(cache: Params, cfg: ModelConfig, row: jax.Array, box: Params) -> Params:
    """The cache with the box put back at `row`."""

    def paste(x: jax.Array, part: jax.Array, has_positions: bool) -> jax.Array:
        del has_positions
        return jax.lax.dynamic_update_slice(x, part, (row, *(0,) * (x.ndim - 1)))

    return _map(paste, cfg, cache, box)


def _map(f: Any, cfg: ModelConfig, *caches: Params) -> Params:
    """f(leaf, ..., has_positions) over the leaves: keys and values have positions, recurrent state has none."""
    layers = tuple(
        {
            name: jax.tree.map(
                partial(f, has_positions=isinstance(mixer, AttentionConfig)), *(p[name] for p in periods)
            )
            for name, mixer in decoder.slots(cfg)
        }
        for periods in zip(*(cache["layers"] for cache in caches), strict=True)
    )
    return {"length": f(*(cache["length"] for cache in caches), has_positions=False), "layers": layers}


take_row = jax.jit(partial(read, rows=1), static_argnames=("cfg", "length"))
"""take_row(cache, cfg, row, length=...): a row of its own, batch 1."""

put_row = jax.jit(write, static_argnames=("cfg",), donate_argnums=0)
"""put_row(cache, cfg, row, box): the cache is given away."""


@partial(jax.jit, static_argnames=("cfg", "length", "dtype"), donate_argnames=("cache",))
def fill(
    params: Params,
    cache: Params,
    row: jax.Array,
    token_ids_BT: jax.Array,
    num_new_B: jax.Array,
    *,
    cfg: ModelConfig,
    length: int,
    dtype: Any,
) -> tuple[Params, jax.Array | None]:
    """Prefill of the B rows from `row` on: row b reads the first `num_new_B[b]` of its T token slots, or none.

    Nothing is sampled; `cache` is given away. Returns it, and the experts of every token [B, T, L, X] int32, or None.
    """
    box = read(cache, cfg, row, token_ids_BT.shape[0], length)
    _, box, experts_BTLX = decoder.extend_routed(params, cfg, token_ids_BT, num_new_B, box, dtype=dtype)
    return write(cache, cfg, row, box), experts_BTLX


@partial(jax.jit, static_argnames=("cfg", "length", "dtype"), donate_argnames=("cache",))
def decode(
    params: Params, cache: Params, rows: Rows, steps: jax.Array, *, cfg: ModelConfig, length: int, dtype: Any
) -> tuple[Params, jax.Array, jax.Array, jax.Array | None]:
    """Up to `steps` <= MAX_STEPS tokens for the first B rows of the cache, which is given away.

    Returns the cache, tokens [N, B] int32 and their behaviour log-probabilities [N, B] float32; -1 and 0 where a row
    had stopped. Ends early when all rows have. Last, of a mixture, the experts [N, B, L, X] int32 of the tokens read.
    """
    B = rows.token.shape[0]
    first = jnp.zeros((), jnp.int32)

    def goes_on(carry: tuple[Any, ...]) -> jax.Array:
        step, _, _, budget_B, *_ = carry
        return (step < steps) & jnp.any(budget_B > 0)

    def one(carry: tuple[Any, ...]) -> tuple[Any, ...]:
        step, box, token_B, budget_B, tokens_NB, logprobs_NB, experts_NBLX = carry
        active_B = budget_B > 0
        num_new_B = active_B.astype(jnp.int32)
        hidden_BTD, box, read_BTLX = decoder.extend_routed(params, cfg, token_B[:, None], num_new_B, box, dtype=dtype)
        # A float32 head, as the learner's: bfloat16 logits would be off by more than the whole rest of the network.
        logits_BV = decoder.logits(params, cfg, hidden_BTD.astype(jnp.float32))[:, 0]
        next_B, logprob_B = sample(logits_BV, rows.knobs, box["length"])
        stopped_B = jnp.any(next_B[:, None] == rows.stops, axis=1)
        budget_B = jnp.where(active_B & ~stopped_B, budget_B - 1, 0)
        tokens_NB = tokens_NB.at[step].set(jnp.where(active_B, next_B, -1))
        logprobs_NB = logprobs_NB.at[step].set(jnp.where(active_B, logprob_B, 0.0))
        if read_BTLX is not None:
            experts_NBLX = experts_NBLX.at[step].set(read_BTLX[:, 0])
        return step + 1, box, jnp.where(active_B, next_B, token_B), budget_B, tokens_NB, logprobs_NB, experts_NBLX

    written = jnp.full((MAX_STEPS, B), -1, jnp.int32), jnp.zeros((MAX_STEPS, B), jnp.float32)
    experts = None
    if cfg.moe:
        experts = jnp.zeros((MAX_STEPS, B, cfg.num_layers, cfg.moe.experts_per_token), jnp.int32)
    start = (first, read(cache, cfg, first, B, length), rows.token, rows.budget, *written, experts)
    _, box, _, _, tokens_NB, logprobs_NB, experts = jax.lax.while_loop(goes_on, one, start)
    return write(cache, cfg, first, box), tokens_NB, logprobs_NB, experts
