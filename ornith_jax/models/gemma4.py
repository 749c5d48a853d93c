"""Gemma 4 text models, dense (31B) and MoE (26B-A4B): (5 x local, 1 x global) repeated (HF models/gemma4).

Per layer: h += norm(attn(norm(h))); h += norm(ffw(norm(h))); h *= layer_scalar. Norm weights are plain.
Variants with shared key/value layers or per-layer embeddings (E2B, E4B) are refused.
"""

from __future__ import annotations

import jax
import jax.numpy as jnp

from ornith_jax.config import AttentionConfig, Mixer, ModelConfig, MoEConfig
from ornith_jax.models.hf_config import Fields, dtype_of, layer_types_of, period_of
from ornith_jax.nn.attention import attention, attention_specs
from ornith_jax.nn.context import Context
from ornith_jax.nn.experts import experts_specs
from ornith_jax.nn.linear import project
from ornith_jax.nn.mlp import gelu_tanh, mlp, mlp_specs
from ornith_jax.nn.moe import route, routed_experts, router_record
from ornith_jax.nn.norm import rms_norm
from ornith_jax.params import Params, ParamSpec, Table

ZERO_CENTERED_NORMS = False
SCALED_EMBEDDING = True


def layer_specs(cfg: ModelConfig, mixer: Mixer) -> Table:
    """One layer. `layer_scalar` [1] is a checkpoint buffer: it is applied but never trained."""
    assert isinstance(mixer, AttentionConfig)
    D, std = cfg.embed_dim, cfg.init_std
    norm = ParamSpec((D,), (None,), "ones")
    table: Table = {
        "pre_mixer_norm": norm,
        "mixer": attention_specs(mixer, D, std),
        "post_mixer_norm": norm,
        "pre_ffw_norm": norm,
        "mlp": mlp_specs(D, cfg.ffw_dim, std),
        "post_ffw_norm": norm,
        "layer_scalar": ParamSpec((1,), (None,), "ones", trainable=False),
    }
    if cfg.moe:
        table["moe"] = {
            "router": ParamSpec((cfg.moe.num_experts, D), ("experts", "embed"), init_std=std),
            "router_scale": norm,
            "expert_scale": ParamSpec((cfg.moe.num_experts,), (None,), "ones"),
            "experts": experts_specs(cfg.moe, D, std),
            "pre_norm": norm,
            "post_norm": norm,
            "post_mlp_norm": norm,
        }
    return table


def layer(
    params: Params, x_BTD: jax.Array, ctx: Context, cfg: ModelConfig, mixer: Mixer, cache: Params | None
) -> tuple[jax.Array, Params | None, jax.Array | None]:
    """[B, T, D] -> [B, T, D], the updated cache of this layer, and the load of its experts [E], if it has any."""
    assert isinstance(mixer, AttentionConfig)
    eps = cfg.norm_eps
    h_BTD = rms_norm(x_BTD, params["pre_mixer_norm"], eps)
    h_BTD, cache = attention(params["mixer"], h_BTD, ctx, mixer, eps, cache)
    x_BTD = x_BTD + rms_norm(h_BTD, params["post_mixer_norm"], eps)
    h_BTD, load_E = mlp(params["mlp"], rms_norm(x_BTD, params["pre_ffw_norm"], eps), gelu_tanh), None
    if cfg.moe:
        routed_BTD, load_E = _moe(params["moe"], x_BTD, ctx, cfg.moe, eps)
        h_BTD = rms_norm(h_BTD, params["moe"]["post_mlp_norm"], eps) + routed_BTD
    x_BTD = x_BTD + rms_norm(h_BTD, params["post_ffw_norm"], eps)
    scalar = jax.lax.stop_gradient(params["layer_scalar"]).astype(x_BTD.dtype)
    return x_BTD * scalar[None, None], cache, load_E


def _moe(params: Params, x_BTD: jax.Array, ctx: Context, cfg: MoEConfig, eps: float) -> tuple[jax.Array, jax.Array]:
    """The routed experts beside the dense MLP, both reading the residual stream (HF Gemma4TextRouter, -Experts)."""
    dtype = x_BTD.dtype
    scale_D = params["router_scale"].astype(dtype) * jnp.asarray(x_BTD.shape[-1] ** -0.5, dtype)
    logits_BTE = project(rms_norm(x_BTD, None, eps) * scale_D[None, None], params["router"])
    weights_BTX, experts_BTX = route(logits_BTE, cfg, ctx)
    weights_BTX = weights_BTX * params["expert_scale"].astype(jnp.float32)[experts_BTX]
    h_BTD = rms_norm(x_BTD, params["pre_norm"], eps)
    h_BTD = routed_experts(params["experts"], h_BTD, weights_BTX, experts_BTX, gelu_tanh, ctx.mesh)
    return rms_norm(h_BTD, params["post_norm"], eps), router_record(experts_BTX, ctx, cfg.num_experts)


def config_from_hf(model_type: str, fields: Fields) -> ModelConfig:
    """From the text part of a published config. Raises OrnithError for options this family does not support."""
    del model_type
    fields.require("hidden_activation", "gelu_pytorch_tanh", "the family has no other activation")
    fields.require("attention_bias", False, "no published checkpoint of this family has biases")
    fields.require("num_kv_shared_layers", 0, "layers that share keys and values, as in E2B and E4B")
    fields.require("use_double_wide_mlp", False, "the E2B and E4B form")
    if fields.integer("hidden_size_per_layer_input", 0):
        raise fields.fail("hidden_size_per_layer_input", "per-layer embeddings (E2B, E4B) are not supported")
    if fields.get("use_bidirectional_attention") == "all":
        raise fields.fail("use_bidirectional_attention", "'all' is not supported: this is a causal language model")
    types = layer_types_of(
        fields,
        ("sliding_attention", "full_attention"),
        ("sliding_attention",) * 5 + ("full_attention",),
    )
    mixers = {kind: _attention(fields, kind, types) for kind in dict.fromkeys(types)}
    softcap = fields.get("final_logit_softcapping")
    return ModelConfig(
        family="gemma4",
        vocab_size=fields.integer("vocab_size"),
        embed_dim=fields.integer("hidden_size"),
        num_layers=len(types),
        period=tuple(mixers[kind] for kind in period_of(types)),
        ffw_dim=fields.integer("intermediate_size"),
        moe=_moe_config(fields) if fields.get("enable_moe_block") else None,
        tie_embeddings=bool(fields.get("tie_word_embeddings", True)),
        padding_id=fields.get("pad_token_id", 0),
        norm_eps=fields.number("rms_norm_eps", 1e-6),
        init_std=fields.number("initializer_range", 0.02),
        final_softcap=None if softcap is None else fields.number("final_logit_softcapping"),
        max_positions=fields.integer("max_position_embeddings", 262144),
        dtype=dtype_of(fields),
    )


def _attention(fields: Fields, kind: str, types: tuple[str, ...]) -> AttentionConfig:
    """Sliding layers use `head_dim` and a window; global ones their own sizes, and values equal to keys."""
    sliding = kind == "sliding_attention"
    head_dim, kv_heads = fields.integer("head_dim", 256), fields.integer("num_key_value_heads")
    key_is_value = not sliding and bool(fields.get("attention_k_eq_v", False))
    if not sliding:
        override = _per_layer(fields, types.index(kind))
        head_dim = override.get("head_dim", fields.integer("global_head_dim", 512))
        if key_is_value:
            kv_heads = override.get("num_key_value_heads", fields.integer("num_global_key_value_heads", kv_heads))
    rope_kind, theta, partial = fields.rope(kind, 1.0)
    pairs = int(partial * head_dim) // 2
    return AttentionConfig(
        num_heads=fields.integer("num_attention_heads"),
        num_kv_heads=kv_heads,
        head_dim=head_dim,
        rope_theta=theta,
        rotary_dim=head_dim if rope_kind == "proportional" else 2 * pairs,
        rotary_pairs=pairs,
        scale=1.0,
        window=fields.integer("sliding_window") if sliding else None,
        value_norm=True,
        key_is_value=key_is_value,
    )


def _per_layer(fields: Fields, index: int) -> dict[str, int]:
    """transformers >= 5.20 saves per-layer overrides as {"05": {"head_dim": ...}} instead of the global_* fields."""
    return {int(k): v for k, v in fields.get("per_layer_config", {}).items()}.get(index, {})


def _moe_config(fields: Fields) -> MoEConfig:
    return MoEConfig(
        num_experts=fields.integer("num_experts"),
        experts_per_token=fields.integer("top_k_experts"),
        expert_dim=fields.integer("moe_intermediate_size"),
    )
