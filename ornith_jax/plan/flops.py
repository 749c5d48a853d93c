"""Floating-point operations per token, from the configuration (the formulas of docs/scale.md).

A product of an [m, k] with a [k, n] matrix counts 2 m k n. Norms, activations and the router's softmax are left out.
"""

from __future__ import annotations

from ornith_jax.config import AttentionConfig, GatedDeltaConfig, Mixer, ModelConfig
from ornith_jax.models.decoder import table
from ornith_jax.params import flatten

NOT_MATRICES = ("conv_q", "conv_k", "conv_v")
EXPERTS = "/experts/"


def active_matmul_params(cfg: ModelConfig) -> int:
    """Weights that one token is multiplied with: chosen experts only, the head, and no embedding lookup."""
    total = 0
    for name, spec in flatten(table(cfg)).items():
        stacked = len(spec.shape) - (1 if name.startswith("layers/") else 0)
        if name.rsplit("/", 1)[-1] in NOT_MATRICES or (name == "embed" and not cfg.tie_embeddings):
            continue
        if stacked < 2 and not name.endswith("shared_gate"):
            continue
        if EXPERTS in name and cfg.moe is not None:
            total += spec.size * cfg.moe.experts_per_token // cfg.moe.num_experts
        else:
            total += spec.size
    return total


def mixer_flops(mixer: Mixer, context: int) -> float:
    """Forward, per token, without the projections; `context` tokens in a sequence, averaged over their positions."""
    if isinstance(mixer, GatedDeltaConfig):
        C, dk, dv = mixer.chunk, mixer.key_dim, mixer.value_dim
        rule = mixer.num_value_heads * (4 * C * dk + C * (dk + dv) + 2 * C * dv + 6 * dk * dv)
        channels = 2 * mixer.num_key_heads * dk + mixer.num_value_heads * dv
        return rule + 2 * mixer.conv_width * channels
    seen = context / 2
    if mixer.window is not None and mixer.window < context:
        seen = mixer.window - mixer.window * (mixer.window - 1) / (2 * context)
    return 4 * mixer.num_heads * mixer.head_dim * seen


def decode_mixer_flops(mixer: Mixer, context: int) -> float:
    """Of one new token after `context` cached ones."""
    if isinstance(mixer, GatedDeltaConfig):
        return mixer.num_value_heads * 7 * mixer.key_dim * mixer.value_dim
    return 4 * mixer.num_heads * mixer.head_dim * min(context, mixer.window or context)


def forward_flops(cfg: ModelConfig, context: int) -> float:
    """Per token of a sequence of `context` tokens."""
    return 2 * active_matmul_params(cfg) + cfg.repeats * sum(mixer_flops(m, context) for m in cfg.period)


def decode_flops(cfg: ModelConfig, context: int) -> float:
    """Per new token after `context` cached ones."""
    return 2 * active_matmul_params(cfg) + cfg.repeats * sum(decode_mixer_flops(m, context) for m in cfg.period)


def cache_bytes(cfg: ModelConfig, context: int, itemsize: int = 2) -> float:
    """Of one sequence of `context` tokens: keys and values in the cache's dtype, recurrent states in float32."""
    total = 0.0
    for mixer in cfg.period:
        if isinstance(mixer, AttentionConfig):
            slots = min(context, mixer.window or context)
            total += 2 * slots * mixer.num_kv_heads * mixer.head_dim * itemsize
        else:
            total += 4 * mixer.num_value_heads * mixer.key_dim * mixer.value_dim
    return total * cfg.repeats
