"""The loss of supervised training: minus the log-likelihood of the tokens under the mask. Same form as `rl.loss`."""

from __future__ import annotations

from collections.abc import Mapping

import jax
import numpy as np

from ornith_jax.experiment import LossSettings
from ornith_jax.rl.metrics import Sums
from ornith_jax.rl.types import Batch


def likelihood_loss(
    logprobs: jax.Array,
    entropy: jax.Array,
    batch: Batch,
    policy_version: jax.Array | int,
    settings: LossSettings,
    denominator: jax.Array | float,
) -> tuple[jax.Array, Sums]:
    """-sum_t mask_t log p_t / denominator, and sums. Versions, advantages and the settings play no part.

    Arguments as those of `rl.loss.policy_loss`, so that one step serves both.
    """
    total = -(batch.loss_mask * logprobs).sum()
    sums = {"tokens": batch.loss_mask.sum(), "loss": total, "entropy": (batch.loss_mask * entropy).sum()}
    return total / denominator, jax.lax.stop_gradient(sums)


def likelihood_metrics(sums: Mapping[str, np.ndarray]) -> dict[str, float]:
    """Means over tokens, on the host: `loss` in nats per token, `entropy` of the model's predictions likewise."""
    tokens = float(sums["tokens"])
    return {"tokens": tokens} | {name: float(sums[name]) / max(tokens, 1.0) for name in ("loss", "entropy")}
