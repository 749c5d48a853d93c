"""How much a token still counts, by the age of the policy that wrote it.

    d_t    = policy_version - token_versions[t]: committed optimizer updates between its weights and now
    w(d)   = 1 (d <= K1),  exp(-decay (d - K1)) (K1 < d <= K2),  0 (d > K2)

Source: the Ornith-1.0 release, its second equation. The unit of d and the values of K1, K2 and decay are unpublished.
"""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np

from ornith_jax.errors import OrnithError
from ornith_jax.experiment import LossSettings


def staleness_weight(staleness: jax.Array, settings: LossSettings) -> jax.Array:
    """w(d), float32 of the shape of `staleness` (integers): exactly 1 up to k1 and exactly 0 beyond k2."""
    beyond_k1 = jnp.maximum(staleness - settings.k1, 0).astype(jnp.float32)
    return jnp.where(staleness > settings.k2, 0.0, jnp.exp(-settings.decay * beyond_k1))


def check_staleness(token_versions: np.ndarray, loss_mask: np.ndarray, policy_version: int, name: str) -> np.ndarray:
    """d of the trained tokens, int [number of trained tokens]. `name` says whose tokens they are.

    Raises:
        OrnithError: a token was written by a version that does not exist yet (a run restored to an older checkpoint
            still sees its own future), or by none.
    """
    versions = token_versions[loss_mask.astype(bool)]
    if versions.size and versions.max() > policy_version:
        raise OrnithError(
            f"{name}: a token of policy version {versions.max()}, but the learner is at {policy_version}; "
            "drop the trajectories that the checkpoint does not know"
        )
    if versions.size and versions.min() < 0:
        raise OrnithError(f"{name}: a trained token has policy version {versions.min()}; the engine must stamp each")
    return policy_version - versions
