"""What to maximise, per token: one small function for each objective, all with the signature of `grpo`.

Everything is [B, T], and r = exp(logprobs - behavior_logprobs): the ratio is anchored at the policy that sampled, not
at the learner's own recomputation, which would be 1 and would silence the clip. Each function returns `PerToken`: the
objective, already times the staleness weight, and which tokens were cut at the low and at the high side of its bounds.
A token counts when `loss_mask` is 1 and its weight is above 0; elsewhere value and gradient are exactly 0.

DAPO (arXiv 2503.14476) is not here: its clip is `grpo`'s with clip_low 0.2 and clip_high 0.28, its token-level mean is
the denominator of the loss, and its dynamic sampling is the dropping of groups without signal.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import NamedTuple

import jax
import jax.numpy as jnp

from ornith_jax.experiment import LossSettings

LOG_RATIO_LIMIT = 20.0  # e^20 is far outside every trust region; beyond it the ratio stands still


class PerToken(NamedTuple):
    """All [B, T]. `cut_low`, `cut_high`: bool, tokens that count and whose ratio a bound replaced or silenced."""

    objective: jax.Array
    cut_low: jax.Array
    cut_high: jax.Array


def grpo(
    logprobs: jax.Array,
    behavior_logprobs: jax.Array,
    advantages: jax.Array,
    weight: jax.Array,
    loss_mask: jax.Array,
    segment_ids: jax.Array,
    settings: LossSettings,
) -> PerToken:
    """min(r A, clip(r, 1 - clip_low, 1 + clip_high) A) w: GRPO (arXiv 2402.03300) as Ornith-1.0 has it."""
    live = is_live(loss_mask, weight)
    ratio = jnp.exp(log_ratio(logprobs, behavior_logprobs, live))
    return _clipped(ratio, advantages, weight, live, settings)


def tis(
    logprobs: jax.Array,
    behavior_logprobs: jax.Array,
    advantages: jax.Array,
    weight: jax.Array,
    loss_mask: jax.Array,
    segment_ids: jax.Array,
    settings: LossSettings,
) -> PerToken:
    """stop(min(r, ratio_cap)) A log p: truncated importance sampling (Ionides 2008; IMPALA, arXiv 1802.01561)."""
    live = is_live(loss_mask, weight)
    ratio = jnp.exp(log_ratio(logprobs, behavior_logprobs, live))
    objective = jax.lax.stop_gradient(jnp.minimum(ratio, settings.ratio_cap)) * advantages * logprobs
    return PerToken(_weighed(objective, weight, live), jnp.zeros_like(live), live & (ratio > settings.ratio_cap))


def cispo(
    logprobs: jax.Array,
    behavior_logprobs: jax.Array,
    advantages: jax.Array,
    weight: jax.Array,
    loss_mask: jax.Array,
    segment_ids: jax.Array,
    settings: LossSettings,
) -> PerToken:
    """stop(clip(r, 1 - clip_low, 1 + clip_high)) A log p: CISPO (MiniMax-M1, arXiv 2506.13585).

    Every token keeps a gradient, whatever the sign of A. The paper sets no lower bound: clip_low = 1.
    """
    live = is_live(loss_mask, weight)
    ratio = jnp.exp(log_ratio(logprobs, behavior_logprobs, live))
    low, high = 1 - settings.clip_low, 1 + settings.clip_high
    objective = jax.lax.stop_gradient(jnp.clip(ratio, low, high)) * advantages * logprobs
    return PerToken(_weighed(objective, weight, live), live & (ratio < low), live & (ratio > high))


def sequence_mask(
    logprobs: jax.Array,
    behavior_logprobs: jax.Array,
    advantages: jax.Array,
    weight: jax.Array,
    loss_mask: jax.Array,
    segment_ids: jax.Array,
    settings: LossSettings,
) -> PerToken:
    """r A on segments whose geometric mean of r lies in [band_low, band_high], nothing on the others.

    The sequence mask of NeMo RL and of MLPerf Training v6.1 (`qwen35_397b_grpo`); survivors keep their plain ratios.
    """
    live = is_live(loss_mask, weight)
    log_r = log_ratio(logprobs, behavior_logprobs, live)
    mean = jnp.exp(segment_mean(jax.lax.stop_gradient(log_r), live, segment_ids))
    cut_low, cut_high = live & (mean < settings.band_low), live & (mean > settings.band_high)
    kept = live & ~cut_low & ~cut_high
    return PerToken(_weighed(jnp.exp(log_r) * advantages, weight, kept), cut_low, cut_high)


def gspo(
    logprobs: jax.Array,
    behavior_logprobs: jax.Array,
    advantages: jax.Array,
    weight: jax.Array,
    loss_mask: jax.Array,
    segment_ids: jax.Array,
    settings: LossSettings,
) -> PerToken:
    """The clip of `grpo` on s = (geometric mean of r over the segment): GSPO-token (arXiv 2507.18071).

    The paper clips within a few 1e-4 and gives every sequence the same weight; here, as everywhere, every token has it.
    """
    live = is_live(loss_mask, weight)
    log_r = log_ratio(logprobs, behavior_logprobs, live)
    mean = segment_mean(jax.lax.stop_gradient(log_r), live, segment_ids)
    ratio = jnp.exp(mean + log_r - jax.lax.stop_gradient(log_r))  # the value of s, the gradient of each token
    return _clipped(ratio, advantages, weight, live, settings)


def filtered(
    logprobs: jax.Array,
    behavior_logprobs: jax.Array,
    advantages: jax.Array,
    weight: jax.Array,
    loss_mask: jax.Array,
    segment_ids: jax.Array,
    settings: LossSettings,
) -> PerToken:
    """log p where A > 0: likelihood of what did better than its siblings (STaR, arXiv 2203.14465; RFT, 2308.01825)."""
    live = is_live(loss_mask, weight) & (advantages > 0)
    never = jnp.zeros_like(live)
    return PerToken(_weighed(logprobs, weight, live), never, never)


OBJECTIVES: Mapping[str, Callable[..., PerToken]] = {
    "grpo": grpo,
    "tis": tis,
    "cispo": cispo,
    "sequence_mask": sequence_mask,
    "gspo": gspo,
    "filtered": filtered,
}


def is_live(loss_mask: jax.Array, weight: jax.Array) -> jax.Array:
    """[B, T] bool: tokens that train. Those beyond k2 do not."""
    return (loss_mask > 0) & (weight > 0)


def log_ratio(logprobs: jax.Array, behavior_logprobs: jax.Array, live: jax.Array) -> jax.Array:
    """log r, 0 where a token does not count. Masked before exp, whose gradient could else be 0 times inf."""
    difference = jnp.where(live, logprobs - behavior_logprobs, 0.0)
    return jnp.clip(difference, -LOG_RATIO_LIMIT, LOG_RATIO_LIMIT)


def segment_mean(values: jax.Array, live: jax.Array, segment_ids: jax.Array) -> jax.Array:
    """[B, T]: at each token, the mean of `values` over the live tokens of its segment (0 where there is none)."""
    num_segments = segment_ids.shape[1] + 1  # a row of T tokens has at most T segments, and the padding

    def row(values: jax.Array, live: jax.Array, segments: jax.Array) -> jax.Array:
        sums = jax.ops.segment_sum(jnp.where(live, values, 0.0), segments, num_segments)
        counts = jax.ops.segment_sum(live.astype(jnp.float32), segments, num_segments)
        return (sums / jnp.maximum(counts, 1.0))[segments]

    return jax.vmap(row)(values, live, segment_ids)


def _clipped(
    ratio: jax.Array, advantages: jax.Array, weight: jax.Array, live: jax.Array, settings: LossSettings
) -> PerToken:
    low, high = 1 - settings.clip_low, 1 + settings.clip_high
    objective = jnp.minimum(ratio * advantages, jnp.clip(ratio, low, high) * advantages)
    cut_low = live & (advantages < 0) & (ratio < low)
    cut_high = live & (advantages > 0) & (ratio > high)
    return PerToken(_weighed(objective, weight, live), cut_low, cut_high)


def _weighed(objective: jax.Array, weight: jax.Array, live: jax.Array) -> jax.Array:
    return jnp.where(live, objective * weight, 0.0)
