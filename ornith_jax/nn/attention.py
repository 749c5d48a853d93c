"""Softmax attention with grouped key/value heads: causal, sliding window, packed segments, and a ring cache.

B batch, T query tokens, S key slots, N query heads, K key/value heads, G = N / K, H head width, D model width.
"""

from __future__ import annotations

import jax
import jax.numpy as jnp

from ornith_jax.config import AttentionConfig
from ornith_jax.kernels.attention import long_attention
from ornith_jax.nn.context import Context
from ornith_jax.nn.linear import project
from ornith_jax.nn.norm import rms_norm
from ornith_jax.nn.rope import rope
from ornith_jax.params import Params, ParamSpec, Table

LONG = 1024  # tokens; beyond, and without a cache, the scores of a whole row are never held at once
MASKED = -1e30  # finite, so that the row of a pad stays finite


def attention_specs(cfg: AttentionConfig, embed_dim: int, init_std: float) -> Table:
    """q [N, H, D], or q_gate [N, 2, H, D] (per head: query, then gate); k, v [K, H, D]; o [D, N, H]."""
    N, K, H = cfg.num_heads, cfg.num_kv_heads, cfg.head_dim
    norm = ParamSpec((H,), (None,), "zeros" if cfg.zero_centered_norm else "ones")
    kv = ParamSpec((K, H, embed_dim), ("kv_heads", "head_dim", "embed"), init_std=init_std)
    specs = {
        "k": kv,
        "o": ParamSpec((embed_dim, N, H), ("embed", "heads", "head_dim"), init_std=init_std),
        "q_norm": norm,
        "k_norm": norm,
    }
    if cfg.output_gate:
        specs["q_gate"] = ParamSpec((N, 2, H, embed_dim), ("heads", None, "head_dim", "embed"), init_std=init_std)
    else:
        specs["q"] = ParamSpec((N, H, embed_dim), ("heads", "head_dim", "embed"), init_std=init_std)
    if not cfg.key_is_value:
        specs["v"] = kv
    return specs


def init_attention_cache(cfg: AttentionConfig, batch: int, max_len: int, dtype: jax.typing.DTypeLike) -> Params:
    """Keys and values [B, S, K, H]. A sliding window needs only `window` slots: slot = position mod S."""
    slots = min(max_len, cfg.window) if cfg.window else max_len
    shape = (batch, slots, cfg.num_kv_heads, cfg.head_dim)
    return {"k": jnp.zeros(shape, dtype), "v": jnp.zeros(shape, dtype)}


def attention(
    params: Params,
    x_BTD: jax.Array,
    ctx: Context,
    cfg: AttentionConfig,
    eps: float,
    cache: Params | None = None,
) -> tuple[jax.Array, Params | None]:
    """One attention block, without its residual. Equals HF Qwen3_5Attention and Gemma4TextAttention.

    With a cache, new tokens see the cached ones and each other, and are then written to it.
    """
    q_BTNH, k_BTKH, v_BTKH, gate_BTNH = _heads(params, x_BTD, ctx, cfg, eps)
    if cache is None and x_BTD.shape[1] > LONG:
        seen = (ctx.segments_BT, ctx.valid_BT)
        out_BTNH = long_attention(q_BTNH, k_BTKH, v_BTKH, *seen, scale=cfg.scale, window=cfg.window, mesh=ctx.mesh)
    else:
        keys, values, masks = [k_BTKH], [v_BTKH], [_new_mask(ctx, cfg.window)]
        if cache is not None:
            keys, values = [cache["k"], k_BTKH], [cache["v"], v_BTKH]
            masks = [_cache_mask(ctx, cfg.window, cache["k"].shape[1]), *masks]
        out_BTNH = _attend(q_BTNH, keys, values, masks, cfg.scale)
    if gate_BTNH is not None:
        out_BTNH = out_BTNH * jax.nn.sigmoid(gate_BTNH)
    if cache is not None:
        cache = _write(cache, k_BTKH, v_BTKH, ctx)
    return project(out_BTNH, params["o"], contract=2), cache


def _heads(
    params: Params, x_BTD: jax.Array, ctx: Context, cfg: AttentionConfig, eps: float
) -> tuple[jax.Array, jax.Array, jax.Array, jax.Array | None]:
    """Projected, normalised and rotated q, k, v, and the output gate if there is one."""
    gate_BTNH = None
    if cfg.output_gate:
        q_gate = project(x_BTD, params["q_gate"])
        q_BTNH, gate_BTNH = q_gate[:, :, :, 0], q_gate[:, :, :, 1]
    else:
        q_BTNH = project(x_BTD, params["q"])
    k_BTKH = project(x_BTD, params["k"])
    v_BTKH = k_BTKH if cfg.key_is_value else project(x_BTD, params["v"])
    if cfg.value_norm:
        v_BTKH = rms_norm(v_BTKH, None, eps)
    q_BTNH = rms_norm(q_BTNH, params["q_norm"], eps, zero_centered=cfg.zero_centered_norm)
    k_BTKH = rms_norm(k_BTKH, params["k_norm"], eps, zero_centered=cfg.zero_centered_norm)
    return rope(q_BTNH, ctx.positions_BT, cfg), rope(k_BTKH, ctx.positions_BT, cfg), v_BTKH, gate_BTNH


def _attend(
    q_BTNH: jax.Array, keys: list[jax.Array], values: list[jax.Array], masks: list[jax.Array], scale: float
) -> jax.Array:
    """One softmax over several key blocks, joined at the scores: cached keys are never copied. float32 inside."""
    B, T, N, H = q_BTNH.shape
    K, dtype = keys[0].shape[2], q_BTNH.dtype
    G = N // K
    q = jnp.moveaxis(q_BTNH.reshape(B, T, K, G, H), 1, 3).reshape(B * K, G * T, H) * jnp.asarray(scale, dtype)
    scores = [
        jnp.where(
            mask_BTS[:, None, None],
            jnp.einsum("ath,ash->ats", q, _heads_first(k, dtype)).reshape(B, K, G, T, -1).astype(jnp.float32),
            MASKED,
        )
        for k, mask_BTS in zip(keys, masks, strict=True)
    ]
    weights = jax.nn.softmax(jnp.concatenate(scores, axis=-1), axis=-1).astype(dtype).reshape(B * K, G * T, -1)
    out, start = jnp.zeros((B * K, G * T, H), dtype), 0
    for v in values:
        out = out + jnp.einsum("ats,ash->ath", weights[..., start : start + v.shape[1]], _heads_first(v, dtype))
        start += v.shape[1]
    return jnp.moveaxis(out.reshape(B, K, G, T, H), 3, 1).reshape(B, T, N, H)


def _heads_first(x_BSKH: jax.Array, dtype: jax.typing.DTypeLike) -> jax.Array:
    """[B * K, S, H]: one plain batched product for all heads."""
    B, S, K, H = x_BSKH.shape
    return jnp.moveaxis(x_BSKH, 2, 1).reshape(B * K, S, H).astype(dtype)


def _new_mask(ctx: Context, window: int | None) -> jax.Array:
    """[B, T, T]: key in the same segment, not a pad, not later, and within the window (itself included)."""
    T = ctx.valid_BT.shape[1]
    query_T1, key_1T = jnp.arange(T)[:, None], jnp.arange(T)[None, :]
    seen = key_1T <= query_T1
    if window is not None:
        seen &= query_T1 - key_1T < window
    same = ctx.segments_BT[:, :, None] == ctx.segments_BT[:, None, :]
    return seen[None] & same & ctx.valid_BT[:, None, :]


def _cache_mask(ctx: Context, window: int | None, slots: int) -> jax.Array:
    """[B, T, S]: which cached keys a new token sees. Slot s holds the newest cached position p = s mod S."""
    assert ctx.cached_B is not None
    newest_B1 = ctx.cached_B[:, None] - 1
    position_BS = newest_B1 - (newest_B1 - jnp.arange(slots, dtype=jnp.int32)[None, :]) % slots
    seen_BTS = jnp.broadcast_to((position_BS >= 0)[:, None, :], (*ctx.positions_BT.shape, slots))
    if window is not None:
        seen_BTS &= ctx.positions_BT[:, :, None] - position_BS[:, None, :] < window
    return seen_BTS


def _write(cache: Params, k_BTKH: jax.Array, v_BTKH: jax.Array, ctx: Context) -> Params:
    """Write the new keys and values at position mod S; pads and what a ring would overwrite are dropped."""
    slots = cache["k"].shape[1]
    newest_B1 = jnp.max(jnp.where(ctx.valid_BT, ctx.positions_BT, -1), axis=1, keepdims=True)
    keep_BT = ctx.valid_BT & (ctx.positions_BT > newest_B1 - slots)
    slot_BT = jnp.where(keep_BT, ctx.positions_BT % slots, slots)
    rows_B1 = jnp.arange(slot_BT.shape[0])[:, None]
    return {
        "k": cache["k"].at[rows_B1, slot_BT].set(k_BTKH.astype(cache["k"].dtype), mode="drop"),
        "v": cache["v"].at[rows_B1, slot_BT].set(v_BTKH.astype(cache["v"].dtype), mode="drop"),
    }
