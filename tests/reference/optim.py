"""AdamW and Newton-Schulz as they are written down, one parameter at a time, float64 numpy."""

from __future__ import annotations

import numpy as np


def adamw(
    p: np.ndarray, grads: list[np.ndarray], rates: list[float], b1: float, b2: float, eps: float, weight_decay: float
) -> np.ndarray:
    """The parameter after one update for each gradient (Loshchilov & Hutter, arXiv 1711.05101, decay times rate)."""
    m = v = np.zeros_like(p)
    for t, (g, rate) in enumerate(zip(grads, rates, strict=True), 1):
        m = b1 * m + (1 - b1) * g
        v = b2 * v + (1 - b2) * g**2
        p = p - rate * (m / (1 - b1**t) / (np.sqrt(v / (1 - b2**t)) + eps) + weight_decay * p)
    return p


def newton_schulz(g: np.ndarray) -> np.ndarray:
    """The singular vectors of g with singular values near one, in five quintic steps (Jordan, Muon, 2024)."""
    x = g / np.linalg.norm(g)
    if wide := g.shape[0] > g.shape[1]:
        x = x.T
    for _ in range(5):
        a = x @ x.T
        x = 3.4445 * x + (-4.7750 * a + 2.0315 * a @ a) @ x
    return x.T if wide else x
