"""Sums of the policy loss, which micro-batches add up, and the metrics that come out of them once per update."""

from __future__ import annotations

from collections.abc import Mapping

import jax
import jax.numpy as jnp
import numpy as np

Sums = dict[str, jax.Array]
"""Float32 scalars, and `staleness` [k2 + 2]: counts of trained tokens by d = 0..k2, and beyond. Keys on "/max": maxima.

`tokens` are trained ones, `tokens/live` those of them within k2, `tokens/fresh` those that the present weights wrote.
"""


def merge(a: Sums, b: Sums) -> Sums:
    """The sums of two micro-batches as one."""
    return {name: jnp.maximum(a[name], b[name]) if name.endswith("/max") else a[name] + b[name] for name in a}


def metrics(sums: Mapping[str, np.ndarray]) -> dict[str, float]:
    """Means over tokens, on the host. A mean over no token is 0.

    `ratio/ess`: effective sample size (sum r)^2 / (n sum r^2), in (0, 1]. `kl/engine_fresh`: k3 KL of engine and
    learner with the same weights, which is their numerical mismatch. `staleness/<d>`: fraction of trained tokens;
    `staleness/beyond`: of those that count nothing.
    """
    total = {name: np.asarray(value, np.float64) for name, value in sums.items()}
    live = max(float(total["tokens/live"]), 1.0)
    squares = float(total["ratio/square"])
    found = {
        "tokens": float(total["tokens"]),
        "loss": float(total["loss"]) / max(float(total["tokens"]), 1.0),
        "ratio/mean": float(total["ratio/sum"]) / live,
        "ratio/max": float(total["ratio/max"]),
        "ratio/ess": float(total["ratio/sum"]) ** 2 / (live * squares) if squares else 0.0,
        "kl/engine_fresh": float(total["kl/engine_fresh"]) / max(float(total["tokens/fresh"]), 1.0),
    }
    found |= {name: float(total[name]) / live for name in ("clip/low", "clip/high", "kl/engine", "entropy", "weight")}
    if "kl/reference" in total:
        found["kl/reference"] = float(total["kl/reference"]) / live
    shares = total["staleness"] / max(float(total["tokens"]), 1.0)
    names = [f"staleness/{d}" for d in range(len(shares) - 1)] + ["staleness/beyond"]
    return found | dict(zip(names, shares.tolist(), strict=True))
