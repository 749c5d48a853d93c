"""What an engine is tried with: a tiny random model, published in many versions, and what each should answer.

The versions differ in the final norm alone. Keys, values and recurrent states are then the same in all of them, so
that the log-probability of every token is known exactly, even of one written in the middle of an update.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from ornith_jax.config import ModelConfig
from ornith_jax.models import decoder
from ornith_jax.params import init
from ornith_jax.train.publish import publish
from rollout.published import READY, seal, version_folder
from rollout.types import Completion, Sampling
from tests.reference.sampling import behavior_logprobs


class Lab:
    """`max_len` is the longest request that the engines are started for."""

    def __init__(
        self, root: Path, cfg: ModelConfig, *, max_len: int = 512, side_files: Mapping[str, bytes] | None = None
    ) -> None:
        self.root, self.cfg, self.max_len, self.side_files = root, cfg, max_len, side_files
        params = init(decoder.table(cfg), jax.random.key(0), jnp.float32)
        # Wide enough for a token to depend on all before it, and for some tokens to be much likelier than others.
        params = jax.tree.map(lambda x: 3 * x if x.ndim > 1 else x, params)
        head = "embed" if cfg.tie_embeddings else "lm_head"
        self._params = {**params, head: 4 * params[head]}

    def params(self, version: int) -> dict[str, Any]:
        noise = np.random.default_rng(version).normal(0.0, 0.5, self.cfg.embed_dim).astype(np.float32)
        return {**self._params, "final_norm": self._params["final_norm"] + noise}

    def publish(self, version: int) -> Path:
        folder = version_folder(self.root, version)
        if not folder.exists():
            publish(self.params(version), self.cfg, self.root, version, side_files=self.side_files)
        return folder

    def prompt(self, length: int, seed: int = 0) -> list[int]:
        return np.random.default_rng([seed, length]).integers(1, self.cfg.vocab_size, length).tolist()

    def logits(self, version: int, token_ids: Sequence[int]) -> np.ndarray:
        """[T, V]: row t is what a model of that version expects after token t. The full forward, no cache."""
        padded = np.zeros((1, 64 * (1 + len(token_ids) // 64)), np.int32)
        padded[0, : len(token_ids)] = token_ids
        segments = (np.arange(padded.shape[1]) < len(token_ids)).astype(np.int32)[None]
        return np.asarray(_logits(self.params(version), self.cfg, padded, segments))[0, : len(token_ids)]

    def expected(self, version: int, prompt: Sequence[int], written: Sequence[int], sampling: Sampling) -> np.ndarray:
        """[completion, V] log-probabilities of what was sampled from, before each written token."""
        logits = self.logits(version, [*prompt, *written])[len(prompt) - 1 : -1].astype(np.float64)
        return behavior_logprobs(logits, sampling)


def check_completion(lab: Lab, prompt: Sequence[int], got: Completion, sampling: Sampling, atol: float) -> None:
    """Every token was drawn from, and scored under, the distribution of the version that claims it."""
    assert len(got.behavior_logprobs) == len(got.token_ids)
    if not got.token_ids:
        assert got.versions == ()
        return
    starts = [start for start, _ in got.versions]
    assert starts[0] == 0
    assert starts == sorted(set(starts))
    assert starts[-1] < len(got.token_ids)
    for (start, version), end in zip(got.versions, [*starts[1:], len(got.token_ids)], strict=True):
        expected = lab.expected(version, prompt, got.token_ids, sampling)[start:end]
        wanted = expected[np.arange(end - start), np.array(got.token_ids[start:end])]
        np.testing.assert_allclose(got.behavior_logprobs[start:end], wanted, atol=atol, rtol=0)
        if sampling.temperature == 0:
            assert (wanted >= expected.max(axis=1) - atol).all(), "not the likeliest token"


@partial(jax.jit, static_argnums=1)
def _logits(params: Any, cfg: ModelConfig, ids: jax.Array, segments: jax.Array) -> jax.Array:
    return decoder.logits(params, cfg, decoder.forward(params, cfg, ids, segment_ids_BT=segments))


def harmed(good: Path, bad: Path, harm: str) -> Path:
    """A copy of a published folder with one thing wrong."""
    if harm == "no folder":
        return bad
    bad.mkdir()
    for file in good.iterdir():
        (bad / file.name).write_bytes(file.read_bytes())
    weights = bad / "model.safetensors"
    if harm == "no marker":
        (bad / READY).unlink()
    elif harm == "a flipped byte":
        data = bytearray(weights.read_bytes())
        data[-5] ^= 1
        weights.write_bytes(data)
    elif harm == "a file less":
        weights.unlink()
    else:
        (bad / READY).unlink()
        seal(bad, json.loads((good / READY).read_text())["policy_version"] + 1)
    return bad
