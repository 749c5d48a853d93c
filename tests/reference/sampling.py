"""What is sampled from: temperature, then top-k, top-p and min-p, renormalised. T rows, V vocabulary; float64."""

from __future__ import annotations

import numpy as np

from rollout.types import Sampling


def log_softmax(x: np.ndarray) -> np.ndarray:
    x = x - x.max(axis=-1, keepdims=True)
    with np.errstate(divide="ignore"):
        return x - np.log(np.exp(x).sum(axis=-1, keepdims=True))


def behavior_logprobs(logits: np.ndarray, sampling: Sampling) -> np.ndarray:
    """[T, V] float64, the slow and obvious form: sort, cut, renormalise; -inf where a token cannot be drawn."""
    if sampling.temperature == 0:
        return log_softmax(logits)
    logprobs = log_softmax(logits / sampling.temperature)
    for row in logprobs:
        order = np.argsort(-row, kind="stable")
        probs = np.exp(row[order])
        kept = (np.cumsum(probs) - probs <= sampling.top_p) & (probs >= sampling.min_p * probs[0])
        kept[sampling.top_k or len(row) :] = False
        row[order[~kept]] = -np.inf
    return log_softmax(logprobs)


def is_borderline(logits: np.ndarray, sampling: Sampling, margin: float) -> np.ndarray:
    """[T] bool: a token stands so near to a cut that rounding decides on its side."""
    probs = -np.sort(-np.exp(log_softmax(logits / sampling.temperature)), axis=-1)
    before = np.cumsum(probs, axis=-1) - probs
    near = (np.abs(before - sampling.top_p) < margin).any(axis=-1) & (sampling.top_p < 1)
    near |= (np.abs(probs - sampling.min_p * probs[:, :1]) < margin).any(axis=-1) & (sampling.min_p > 0)
    if sampling.top_k:
        near |= np.abs(probs[:, sampling.top_k - 1] - probs[:, sampling.top_k]) < margin
    return near
