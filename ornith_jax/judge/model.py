"""The small model that reads windows: its shape, and what it says of every line.

W windows, T tokens of one window, V words.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np

from ornith_jax.config import AttentionConfig, GatedDeltaConfig, ModelConfig
from ornith_jax.models import decoder
from ornith_jax.params import Params
from rollout.judging.windows import CATEGORY_IDS, CLEAN, PAD, SUSPECT, VOCAB_SIZE, WINDOW, Window, control

DELTA = GatedDeltaConfig(num_key_heads=2, num_value_heads=4, key_dim=32, value_dim=32)
ATTENTION = AttentionConfig(
    num_heads=4,
    num_kv_heads=2,
    head_dim=32,
    rope_theta=1e4,
    rotary_dim=8,
    rotary_pairs=4,
    scale=32**-0.5,
    output_gate=True,
    zero_centered_norm=True,
)
CONFIG = ModelConfig(
    family="qwen3_5",
    vocab_size=VOCAB_SIZE,
    embed_dim=96,
    num_layers=4,
    period=(DELTA, DELTA, DELTA, ATTENTION),
    ffw_dim=256,
    tie_embeddings=True,
    max_positions=4096,
    dtype="float32",
)
"""Qwen3.5's layers at a size that two cores train in a minute."""
BATCH = 4  # windows of one pass: one shape, compiled once


def suspicion(params: Params, cfg: ModelConfig, windows: Sequence[Window]) -> list[np.ndarray]:
    """For every window the probability that its lines [len(tags)] are suspect, had all before them been clean."""
    found: list[np.ndarray] = []
    for start in range(0, len(windows), BATCH):
        some = windows[start : start + BATCH]
        chances_WT = np.asarray(_chances(params, cfg, jnp.asarray(_padded([w.token_ids for w in some]))))
        found += [chances_WT[row, np.asarray(w.tags) - 1] for row, w in enumerate(some)]
    return found


def category_of(params: Params, cfg: ModelConfig, window: Window, line: int) -> int:
    """Which of the categories (an index into CATEGORY_IDS) the model gives the line `window.lines[line]`."""
    ids = np.append(window.token_ids[: window.tags[line]], control(SUSPECT))
    logits_V = _logits(params, cfg, jnp.asarray(_padded([ids])))[0, len(ids) - 1]
    return int(np.argmax(np.asarray(logits_V)[list(CATEGORY_IDS)]))


def _padded(rows: Sequence[np.ndarray]) -> np.ndarray:
    """[BATCH, WINDOW + 1] int32; what follows a row is padding, which no token before it sees."""
    padded = np.full((BATCH, WINDOW + 1), control(PAD), np.int32)
    for row, ids in zip(padded, rows, strict=False):
        row[: len(ids)] = ids
    return padded


@partial(jax.jit, static_argnums=1)
def _chances(params: Params, cfg: ModelConfig, ids_WT: jax.Array) -> jax.Array:
    """[W, T]: of suspect against clean, as the next token."""
    logits_WTV = _logits(params, cfg, ids_WT)
    return jax.nn.sigmoid(logits_WTV[..., control(SUSPECT)] - logits_WTV[..., control(CLEAN)])


@partial(jax.jit, static_argnums=1)
def _logits(params: Params, cfg: ModelConfig, ids_WT: jax.Array) -> jax.Array:
    return decoder.logits(params, cfg, decoder.forward(params, cfg, ids_WT)).astype(jnp.float32)
