"""The policy loss: objective, KL term and entropy bonus, summed over tokens and divided by what the caller says."""

from __future__ import annotations

import jax
import jax.numpy as jnp

from ornith_jax.errors import OrnithError
from ornith_jax.experiment import LossSettings
from ornith_jax.rl.metrics import Sums
from ornith_jax.rl.objectives import OBJECTIVES, PerToken, is_live, log_ratio
from ornith_jax.rl.staleness import staleness_weight
from ornith_jax.rl.types import Batch


def policy_loss(
    logprobs: jax.Array,
    entropy: jax.Array,
    batch: Batch,
    policy_version: jax.Array | int,
    settings: LossSettings,
    denominator: jax.Array | float,
) -> tuple[jax.Array, Sums]:
    """loss = -sum_t [ L_t + w(d_t) (entropy H_t - kl k3_t) ] / denominator, and sums to watch (rl.metrics).

    Args:
        logprobs, entropy: [B, T] float32 of the current policy, from `rl.logprobs.token_logprobs`.
        policy_version: committed updates of the weights that `logprobs` come from; scalar.
        denominator: trained tokens of the whole update, over all micro-batches and devices (`Packed.trained_tokens`).
            A sum over a number that is given, never a mean of means: micro-batches change nothing.
    Returns:
        (scalar float32, sums). The KL term needs `batch.ref_logprobs`; k3 is exp(q) - q - 1 with q = ref - logprobs
        (J. Schulman, "Approximating KL divergence", 2020), as in GRPO, arXiv 2402.03300.
    """
    staleness = policy_version - batch.token_versions
    weight = staleness_weight(staleness, settings)
    result = OBJECTIVES[settings.kind](
        logprobs, batch.behavior_logprobs, batch.advantages, weight, batch.loss_mask, batch.segment_ids, settings
    )
    live = is_live(batch.loss_mask, weight)
    objective = result.objective
    if settings.entropy:
        objective += jnp.where(live, settings.entropy * weight * entropy, 0.0)
    sums: Sums = {}
    if settings.kl:
        if batch.ref_logprobs is None:
            raise OrnithError("loss.kl is above 0, but the batch has no ref_logprobs; compute them, or set loss.kl=0")
        kl = k3(log_ratio(batch.ref_logprobs, logprobs, live))
        objective -= settings.kl * weight * kl
        sums["kl/reference"] = kl.sum()
    loss = -objective.sum() / denominator
    sums |= _sums(logprobs, entropy, batch, staleness, weight, objective, result, settings)
    return loss, jax.lax.stop_gradient(sums)


def k3(log_ratio: jax.Array) -> jax.Array:
    """exp(q) - q - 1 >= 0: with q = log(a / b) of samples from b, an unbiased estimate of KL(b || a)."""
    return jnp.expm1(log_ratio) - log_ratio


def _sums(
    logprobs: jax.Array,
    entropy: jax.Array,
    batch: Batch,
    staleness: jax.Array,
    weight: jax.Array,
    objective: jax.Array,
    result: PerToken,
    settings: LossSettings,
) -> Sums:
    live = is_live(batch.loss_mask, weight)
    fresh = live & (staleness == 0)
    log_r = log_ratio(logprobs, batch.behavior_logprobs, live)
    ratio = jnp.where(live, jnp.exp(log_r), 0.0)
    mismatch = k3(log_r)
    age = jnp.where(batch.loss_mask > 0, jnp.minimum(staleness, settings.k2 + 1), -1)
    ages = jnp.arange(settings.k2 + 2)[:, None, None]
    return {
        "tokens": batch.loss_mask.sum(),
        "tokens/live": _count(live),
        "tokens/fresh": _count(fresh),
        "loss": -objective.sum(),
        "ratio/sum": ratio.sum(),
        "ratio/square": (ratio * ratio).sum(),
        "ratio/max": ratio.max(),
        "clip/low": _count(result.cut_low),
        "clip/high": _count(result.cut_high),
        "kl/engine": mismatch.sum(),
        "kl/engine_fresh": jnp.where(fresh, mismatch, 0.0).sum(),
        "entropy": jnp.where(live, entropy, 0.0).sum(),
        "weight": jnp.where(live, weight, 0.0).sum(),
        "staleness": (age[None] == ages).sum((1, 2), dtype=jnp.float32),
    }


def _count(where: jax.Array) -> jax.Array:
    return where.sum(dtype=jnp.float32)
