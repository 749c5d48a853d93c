"""`config.json` for a model of ours: the inverse of `models.registry.config_from_hf`, text only."""

from __future__ import annotations

from typing import Any

from ornith_jax.config import AttentionConfig, GatedDeltaConfig, Mixer, ModelConfig
from ornith_jax.errors import OrnithError


def config_to_hf(cfg: ModelConfig) -> dict[str, Any]:
    """The fields that transformers and `config_from_hf` read. Raises OrnithError for a shape no published class has."""
    fields = {
        "vocab_size": cfg.vocab_size,
        "hidden_size": cfg.embed_dim,
        "num_hidden_layers": cfg.num_layers,
        "tie_word_embeddings": cfg.tie_embeddings,
        "pad_token_id": cfg.padding_id,
        "rms_norm_eps": cfg.norm_eps,
        "initializer_range": cfg.init_std,
        "max_position_embeddings": cfg.max_positions,
        "dtype": cfg.dtype,
        "attention_bias": False,
        "use_cache": True,
    }
    if cfg.ffw_dim:
        fields["intermediate_size"] = cfg.ffw_dim
    if cfg.moe:
        fields |= {"num_experts": cfg.moe.num_experts, "moe_intermediate_size": cfg.moe.expert_dim}
    fields |= (_qwen3_5 if cfg.family == "qwen3_5" else _gemma4)(cfg)
    return dict(sorted(fields.items()))


def _one(cfg: ModelConfig, kind: str, mixers: list[Mixer]) -> Any:
    """The only configuration among the mixers of one kind."""
    if len(set(mixers)) != 1:
        raise OrnithError(f"config: {cfg.family} needs one {kind} configuration, found {len(set(mixers))}")
    return mixers[0]


def _qwen3_5(cfg: ModelConfig) -> dict[str, Any]:
    attn = _one(cfg, "attention", [m for m in cfg.period if isinstance(m, AttentionConfig)])
    gdn = _one(cfg, "linear attention", [m for m in cfg.period if isinstance(m, GatedDeltaConfig)])
    kinds = ["full_attention" if isinstance(m, AttentionConfig) else "linear_attention" for m in cfg.period]
    fields = {
        "architectures": ["Qwen3_5MoeForCausalLM" if cfg.moe else "Qwen3_5ForCausalLM"],
        "model_type": "qwen3_5_moe_text" if cfg.moe else "qwen3_5_text",
        "hidden_act": "silu",
        "layer_types": kinds * cfg.repeats,
        "num_attention_heads": attn.num_heads,
        "num_key_value_heads": attn.num_kv_heads,
        "head_dim": attn.head_dim,
        "rope_parameters": {
            "rope_type": "default",
            "rope_theta": attn.rope_theta,
            "partial_rotary_factor": attn.rotary_dim / attn.head_dim,
        },
        "linear_num_key_heads": gdn.num_key_heads,
        "linear_num_value_heads": gdn.num_value_heads,
        "linear_key_head_dim": gdn.key_dim,
        "linear_value_head_dim": gdn.value_dim,
        "linear_conv_kernel_dim": gdn.conv_width,
        # Read by serving engines (sglang's own config class), not by transformers:
        "full_attention_interval": len(cfg.period),
        "attn_output_gate": True,
        "mamba_ssm_dtype": "float32",
    }
    if cfg.moe:
        fields["norm_topk_prob"] = True
        fields["num_experts_per_tok"] = cfg.moe.experts_per_token
        fields["shared_expert_intermediate_size"] = cfg.moe.shared_dim
    return fields


def _gemma4(cfg: ModelConfig) -> dict[str, Any]:
    attentions = [m for m in cfg.period if isinstance(m, AttentionConfig)]
    local = _one(cfg, "sliding", [m for m in attentions if m.window])
    full = _one(cfg, "global", [m for m in attentions if not m.window])
    kinds = ["sliding_attention" if m.window else "full_attention" for m in attentions]
    fields = {
        "architectures": ["Gemma4ForCausalLM"],
        "model_type": "gemma4_text",
        "hidden_activation": "gelu_pytorch_tanh",
        "layer_types": kinds * cfg.repeats,
        "num_attention_heads": local.num_heads,
        "num_key_value_heads": local.num_kv_heads,
        "head_dim": local.head_dim,
        "global_head_dim": full.head_dim,
        "num_global_key_value_heads": full.num_kv_heads,
        "attention_k_eq_v": full.key_is_value,
        "sliding_window": local.window,
        "final_logit_softcapping": cfg.final_softcap,
        "hidden_size_per_layer_input": 0,
        "num_kv_shared_layers": 0,
        "enable_moe_block": cfg.moe is not None,
        "rope_parameters": {
            "sliding_attention": {"rope_type": "default", "rope_theta": local.rope_theta},
            "full_attention": {
                "rope_type": "proportional",
                "rope_theta": full.rope_theta,
                "partial_rotary_factor": 2 * full.rotary_pairs / full.head_dim,
            },
        },
    }
    if cfg.moe:
        fields["top_k_experts"] = cfg.moe.experts_per_token
    return fields
