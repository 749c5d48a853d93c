"""Qwen3.5, dense and mixture-of-experts: (gdn, gdn, gdn, attn) repeated (HF models/qwen3_5, qwen3_5_moe).

Per layer: h += mixer(norm(h)); h += ffw(norm(h)). All these norms are zero-centred. Text path only.
"""

from __future__ import annotations

import jax

from ornith_jax.config import AttentionConfig, GatedDeltaConfig, Mixer, ModelConfig, MoEConfig
from ornith_jax.models.hf_config import Fields, dtype_of, layer_types_of, period_of
from ornith_jax.nn.attention import attention, attention_specs
from ornith_jax.nn.context import Context
from ornith_jax.nn.gated_delta import gated_delta, gated_delta_specs
from ornith_jax.nn.mlp import mlp, mlp_specs
from ornith_jax.nn.moe import moe, moe_specs
from ornith_jax.nn.norm import rms_norm
from ornith_jax.params import Params, ParamSpec, Table

ZERO_CENTERED_NORMS = True
SCALED_EMBEDDING = False


def layer_specs(cfg: ModelConfig, mixer: Mixer) -> Table:
    """One layer: two norms, the mixer, and either `mlp` or `moe`."""
    D, std = cfg.embed_dim, cfg.init_std
    norm = ParamSpec((D,), (None,), "zeros")
    specs = attention_specs if isinstance(mixer, AttentionConfig) else gated_delta_specs
    ffw = {"moe": moe_specs(cfg.moe, D, std)} if cfg.moe else {"mlp": mlp_specs(D, cfg.ffw_dim, std)}
    return {"pre_mixer_norm": norm, "mixer": specs(mixer, D, std), "pre_ffw_norm": norm, **ffw}  # type: ignore[arg-type]


def layer(
    params: Params, x_BTD: jax.Array, ctx: Context, cfg: ModelConfig, mixer: Mixer, cache: Params | None
) -> tuple[jax.Array, Params | None, jax.Array | None]:
    """[B, T, D] -> [B, T, D], the updated cache of this layer, and the load of its experts [E], if it has any."""
    h_BTD = rms_norm(x_BTD, params["pre_mixer_norm"], cfg.norm_eps, zero_centered=True)
    if isinstance(mixer, AttentionConfig):
        h_BTD, cache = attention(params["mixer"], h_BTD, ctx, mixer, cfg.norm_eps, cache)
    else:
        h_BTD, cache = gated_delta(params["mixer"], h_BTD, ctx, mixer, cfg.norm_eps, cache)
    x_BTD = x_BTD + h_BTD
    h_BTD = rms_norm(x_BTD, params["pre_ffw_norm"], cfg.norm_eps, zero_centered=True)
    if cfg.moe:
        h_BTD, load_E = moe(params["moe"], h_BTD, ctx, cfg.moe, jax.nn.silu)
        return x_BTD + h_BTD, cache, load_E
    return x_BTD + mlp(params["mlp"], h_BTD, jax.nn.silu), cache, None


def config_from_hf(model_type: str, fields: Fields) -> ModelConfig:
    """From the text part of a published config. Raises OrnithError for options this family does not support."""
    fields.require("hidden_act", "silu", "the family has no other activation")
    fields.require("attention_bias", False, "no published checkpoint of this family has biases")
    types = layer_types_of(
        fields,
        ("linear_attention", "full_attention"),
        ("linear_attention",) * (fields.integer("full_attention_interval", 4) - 1) + ("full_attention",),
    )
    mixers: dict[str, Mixer] = {
        "full_attention": _attention(fields),
        "linear_attention": _gated_delta(fields),
    }
    is_moe = model_type == "qwen3_5_moe_text"
    return ModelConfig(
        family="qwen3_5",
        vocab_size=fields.integer("vocab_size"),
        embed_dim=fields.integer("hidden_size"),
        num_layers=len(types),
        period=tuple(mixers[kind] for kind in period_of(types)),
        ffw_dim=0 if is_moe else fields.integer("intermediate_size"),
        moe=_moe(fields) if is_moe else None,
        tie_embeddings=bool(fields.get("tie_word_embeddings", False)),
        padding_id=fields.get("pad_token_id"),
        norm_eps=fields.number("rms_norm_eps", 1e-6),
        init_std=fields.number("initializer_range", 0.02),
        max_positions=fields.integer("max_position_embeddings", 262144),
        dtype=dtype_of(fields),
    )


def _attention(fields: Fields) -> AttentionConfig:
    head_dim = fields.integer("head_dim", 256)
    kind, theta, partial = fields.rope(None, 0.25)
    if kind != "default":
        raise fields.fail("rope_parameters", f"rope_type {kind!r} is not supported in this family")
    rotary_dim = int(head_dim * partial)
    return AttentionConfig(
        num_heads=fields.integer("num_attention_heads"),
        num_kv_heads=fields.integer("num_key_value_heads"),
        head_dim=head_dim,
        rope_theta=theta,
        rotary_dim=rotary_dim,
        rotary_pairs=rotary_dim // 2,
        scale=head_dim**-0.5,
        output_gate=True,
        zero_centered_norm=True,
    )


def _gated_delta(fields: Fields) -> GatedDeltaConfig:
    return GatedDeltaConfig(
        num_key_heads=fields.integer("linear_num_key_heads"),
        num_value_heads=fields.integer("linear_num_value_heads"),
        key_dim=fields.integer("linear_key_head_dim"),
        value_dim=fields.integer("linear_value_head_dim"),
        conv_width=fields.integer("linear_conv_kernel_dim", 4),
    )


def _moe(fields: Fields) -> MoEConfig:
    return MoEConfig(
        num_experts=fields.integer("num_experts"),
        experts_per_token=fields.integer("num_experts_per_tok"),
        expert_dim=fields.integer("moe_intermediate_size"),
        shared_dim=fields.integer("shared_expert_intermediate_size"),
    )
