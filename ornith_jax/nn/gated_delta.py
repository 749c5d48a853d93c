"""Gated DeltaNet: projections, short convolution, gated delta rule, gated norm (HF Qwen3_5GatedDeltaNet).

B batch, T tokens, D model width, Q key heads, H value heads, A key width, U value width, W conv taps.
"""

from __future__ import annotations

import jax
import jax.numpy as jnp
from jax.sharding import PartitionSpec

from ornith_jax.config import GatedDeltaConfig
from ornith_jax.nn.context import Context
from ornith_jax.nn.conv import short_conv
from ornith_jax.nn.delta_rule import delta_rule_chunked, delta_rule_recurrent
from ornith_jax.nn.linear import project
from ornith_jax.nn.norm import gated_rms_norm
from ornith_jax.params import Params, ParamSpec, Table
from ornith_jax.sharding import BATCH_AXES, HEAD_AXES, constrain

L2_EPS = 1e-6


def gated_delta_specs(cfg: GatedDeltaConfig, embed_dim: int, init_std: float) -> Table:
    """q, k [Q, A, D]; v, z [H, U, D]; b, a [H, D]; conv_* [heads, width, W]; out [D, H, U]."""
    Q, H, A, U, W = cfg.num_key_heads, cfg.num_value_heads, cfg.key_dim, cfg.value_dim, cfg.conv_width

    def weight(*shape: int) -> ParamSpec:
        return ParamSpec(shape, ("heads", *("head_dim",) * (len(shape) - 2), "embed"), init_std=init_std)

    def conv(heads: int, width: int) -> ParamSpec:
        return ParamSpec((heads, width, W), ("heads", "head_dim", None), init_std=init_std)

    return {
        "q": weight(Q, A, embed_dim),
        "k": weight(Q, A, embed_dim),
        "v": weight(H, U, embed_dim),
        "z": weight(H, U, embed_dim),
        "b": weight(H, embed_dim),
        "a": weight(H, embed_dim),
        "conv_q": conv(Q, A),
        "conv_k": conv(Q, A),
        "conv_v": conv(H, U),
        "a_log": ParamSpec((H,), ("heads",), "a_log", keep_float32=True),
        "dt_bias": ParamSpec((H,), ("heads",), "ones"),
        "norm": ParamSpec((U,), (None,), "ones", keep_float32=True),
        "out": ParamSpec((embed_dim, H, U), ("embed", "heads", "head_dim"), init_std=init_std),
    }


def init_gated_delta_cache(cfg: GatedDeltaConfig, batch: int, dtype: jax.typing.DTypeLike) -> Params:
    """The last W-1 convolution inputs, and the recurrent state in float32."""
    tail, Q, H = cfg.conv_width - 1, cfg.num_key_heads, cfg.num_value_heads
    return {
        "q": jnp.zeros((batch, tail, Q * cfg.key_dim), dtype),
        "k": jnp.zeros((batch, tail, Q * cfg.key_dim), dtype),
        "v": jnp.zeros((batch, tail, H * cfg.value_dim), dtype),
        "state": jnp.zeros((batch, H, cfg.key_dim, cfg.value_dim), jnp.float32),
    }


def gated_delta(
    params: Params,
    x_BTD: jax.Array,
    ctx: Context,
    cfg: GatedDeltaConfig,
    eps: float,
    cache: Params | None = None,
) -> tuple[jax.Array, Params | None]:
    """One Gated DeltaNet block, without its residual. With a cache, it continues from its state.

    Time is sequential here, so over a mesh that splits it, the convolution and the recurrence have all of T and a part
    of the heads: one all-to-all before and one after, as in DeepSpeed-Ulysses (arXiv 2309.14509).
    """
    B, T, _ = x_BTD.shape
    tails, mixed = {}, {}
    for name, heads, width in _streams(cfg):
        x_BTC = _split_heads(project(x_BTD, params[name]), ctx).reshape(B, T, heads * width)
        w_CW = params[f"conv_{name}"].reshape(heads * width, cfg.conv_width)
        y_BTC, tails[name] = short_conv(x_BTC, w_CW, ctx, cache[name] if cache else None)
        mixed[name] = y_BTC.astype(jnp.float32).reshape(B, T, heads, width)
    group = cfg.num_value_heads // cfg.num_key_heads  # value head h reads key head h // group
    q = jnp.repeat(_l2_normalize(mixed["q"]) * cfg.key_dim**-0.5, group, axis=2)
    k = jnp.repeat(_l2_normalize(mixed["k"]), group, axis=2)
    g_BTH, beta_BTH = (_split_heads(x_BTH, ctx) for x_BTH in _decay_and_rate(params, x_BTD, ctx))

    state = cache["state"] if cache else jnp.zeros((B, cfg.num_value_heads, cfg.key_dim, cfg.value_dim))
    rule = (q, k, mixed["v"], g_BTH, beta_BTH, ctx.segments_BT, state)
    o_BTHU, state = delta_rule_recurrent(*rule) if T == 1 else delta_rule_chunked(*rule, chunk=cfg.chunk)

    z_BTHU = project(x_BTD, params["z"])
    o_BTHU = gated_rms_norm(_split_time(o_BTHU.astype(x_BTD.dtype), ctx), z_BTHU, params["norm"], eps)
    out_BTD = project(o_BTHU, params["out"], contract=2)
    if cache is None:
        return out_BTD, None
    return out_BTD, {name: tails[name].astype(cache[name].dtype) for name in tails} | {"state": state}


def _split_heads(x: jax.Array, ctx: Context) -> jax.Array:
    """[B, T, H, ...] with all of T, and H over every axis that splits either.

    First as it was projected: else the input is gathered over T instead, and its gradient summed over it.
    """
    return constrain(_split_time(x, ctx), ctx.mesh, PartitionSpec(BATCH_AXES, None, HEAD_AXES))


def _split_time(x: jax.Array, ctx: Context) -> jax.Array:
    """[B, T, H, ...] as the projections have it: T over `context`, H over `tensor`."""
    return constrain(x, ctx.mesh, PartitionSpec(BATCH_AXES, "context", "tensor"))


def _streams(cfg: GatedDeltaConfig) -> tuple[tuple[str, int, int], ...]:
    """(name, heads, width) of the three convolved streams."""
    keys = (cfg.num_key_heads, cfg.key_dim)
    return (("q", *keys), ("k", *keys), ("v", cfg.num_value_heads, cfg.value_dim))


def _decay_and_rate(params: Params, x_BTD: jax.Array, ctx: Context) -> tuple[jax.Array, jax.Array]:
    """g <= 0 (log decay) and beta (learning rate of the state), float32; both 0 on pads, which then do nothing."""
    a_BTH = project(x_BTD, params["a"]).astype(jnp.float32)
    beta_BTH = jax.nn.sigmoid(project(x_BTD, params["b"])).astype(jnp.float32)
    a_H = -jnp.exp(params["a_log"].astype(jnp.float32))
    g_BTH = a_H[None, None] * jax.nn.softplus(a_BTH + params["dt_bias"].astype(jnp.float32)[None, None])
    valid = ctx.valid_BT[..., None]
    return jnp.where(valid, g_BTH, 0.0), jnp.where(valid, beta_BTH, 0.0)


def _l2_normalize(x: jax.Array) -> jax.Array:
    return x * jax.lax.rsqrt(jnp.sum(jnp.square(x), axis=-1, keepdims=True) + L2_EPS)
