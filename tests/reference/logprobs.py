"""Log-probabilities and entropy with all the logits at once. B batch, T tokens, D model width, V vocabulary."""

from __future__ import annotations

import jax
import jax.numpy as jnp


def next_token(hidden_BTD, head_VD, next_ids, softcap, temperature=1.0):
    """(log p of next_ids, entropy), [B, T] float32, by the definition."""
    logits_BTV = jnp.einsum("btd,vd->btv", hidden_BTD, head_VD, preferred_element_type=jnp.float32)
    if softcap is not None:
        logits_BTV = softcap * jnp.tanh(logits_BTV / softcap)
    logprobs_BTV = jax.nn.log_softmax(logits_BTV / temperature, axis=-1)
    picked_BT1 = jnp.take_along_axis(logprobs_BTV, next_ids[..., None], axis=-1)
    return picked_BT1[..., 0], -(jnp.exp(logprobs_BTV) * logprobs_BTV).sum(-1)
