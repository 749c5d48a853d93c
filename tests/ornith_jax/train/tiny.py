"""Small experiments and batches for the tests of training."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np

from ornith_jax.config import ModelConfig
from ornith_jax.experiment import Experiment, LossSettings, MeshSettings, OptimSettings, TrainSettings
from ornith_jax.models.named import TINY_QWEN, TINY_QWEN_MOE
from ornith_jax.rl.pack import pack
from ornith_jax.rl.types import Batch, Sample

# One layer of each kind: what compiles is the period.
DENSE = replace(TINY_QWEN, period=TINY_QWEN.period[2:], num_layers=2, embed_dim=32, ffw_dim=64, vocab_size=64)
MOE = replace(TINY_QWEN_MOE, period=TINY_QWEN_MOE.period[2:], num_layers=2, embed_dim=32, vocab_size=64)
ROWS, LENGTH = 8, 32


def experiment(*, mesh: dict[str, int] | None = None, **train: Any) -> Experiment:
    """Float32 throughout; nothing is clipped by the norm, so that errors of scale are seen."""
    return Experiment(
        name="tiny",
        model="tiny-qwen3.5",
        mesh=MeshSettings(**(mesh or {})),
        loss=LossSettings(router="trained"),
        optim=OptimSettings(learning_rate=1e-2, clip_norm=1e3),
        train=TrainSettings(**{"seq_len": LENGTH, "rows": ROWS, "remat": "full", "dtype": "float32"} | train),
    )


def samples(cfg: ModelConfig, number: int, seed: int = 0) -> list[Sample]:
    """Random sequences of 5 to 20 tokens: a prompt, then an answer that trains, by a policy near the uniform one."""
    rng = np.random.default_rng(seed)
    found = []
    for _ in range(number):
        length = int(rng.integers(5, 21))
        written = np.arange(length) >= int(rng.integers(1, length))
        found.append(
            Sample(
                token_ids=rng.integers(1, cfg.vocab_size, length).astype(np.int32),
                loss_mask=written,
                behavior_logprobs=(-np.log(cfg.vocab_size) + 0.3 * rng.normal(size=length)).astype(np.float32),
                token_versions=np.zeros(length, np.int32),
                advantage=float(rng.normal()),
            )
        )
    return found


def batches(cfg: ModelConfig, accumulation: int = 1, seed: int = 0) -> Batch:
    """[A, 8 / A, 32]: the same eight packed rows for every A, with padding."""
    packed = pack(samples(cfg, 14, seed), rows=ROWS, seq_len=LENGTH).batch
    assert packed.token_ids.shape == (1, ROWS, LENGTH)
    return Batch(**{name: reshape(getattr(packed, name), accumulation) for name in FIELDS})


FIELDS = (
    *("token_ids", "segment_ids", "positions", "loss_mask"),
    *("behavior_logprobs", "advantages", "token_versions"),
)


def reshape(x: np.ndarray, accumulation: int) -> np.ndarray:
    return x.reshape(accumulation, ROWS // accumulation, LENGTH)
