"""What the loss eats. Everything is [B, T], and index t always concerns token t itself, never the one after it."""

from __future__ import annotations

from dataclasses import dataclass

import flax.struct
import jax
import numpy as np


@dataclass(frozen=True, slots=True, kw_only=True)
class Sample:
    """One sequence to train on: a chain of turns of one stage, on the host.

    `token_ids` = P0 + A0 + E0 + A1: prompt, first answer, its observation, second answer;
    `loss_mask` = 0..0 + 1..1 + 0..0 + 1..1. Behaviour log-probabilities and versions mean nothing where it is 0.
    """

    token_ids: np.ndarray  # [T] int32
    loss_mask: np.ndarray  # [T] bool: written by the policy
    behavior_logprobs: np.ndarray  # [T] float32
    token_versions: np.ndarray  # [T] int32
    advantage: float
    routed_experts: np.ndarray | None = None  # [T, layers, experts_per_token] int32, -1 where it is not known


@flax.struct.dataclass
class Batch:
    """Packed rows. Padding has segment id 0; `logprobs[b, t]` is log p(token_ids[b, t] | its segment before t)."""

    token_ids: jax.Array  # int32
    segment_ids: jax.Array  # int32
    positions: jax.Array  # int32, from 0 in each segment
    loss_mask: jax.Array  # float32, 1 on trained tokens
    behavior_logprobs: jax.Array  # float32
    advantages: jax.Array  # float32
    token_versions: jax.Array  # int32
    routed_experts: jax.Array | None = None  # [B, T, layers, experts_per_token] int32, for a replayed router
    ref_logprobs: jax.Array | None = None  # float32, when the KL term is on
