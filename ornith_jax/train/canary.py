"""What the learner expects after a few prompts: the canary that every update of an engine meets (rollout.canary)."""

from __future__ import annotations

import functools
from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from ornith_jax.config import ModelConfig
from ornith_jax.models import decoder
from ornith_jax.params import Params
from ornith_jax.sharding import MESH_AXES, batch_spec
from rollout.canary import Probe

PROMPTS, LENGTH = 8, 16
NEXT = 64  # of the likeliest next tokens that are written down


def make_probes(params: Params, cfg: ModelConfig, mesh: Mesh, dtype: str) -> list[Probe]:
    """Random prompts, the same for every version, and the log-probabilities of a full forward pass in `dtype`.

    Every process must call it. On a mesh there are as many prompts, and as long, as it can share out.
    """
    sizes = dict(zip(MESH_AXES, mesh.axis_sizes, strict=True))
    rows = PROMPTS * sizes["data"] * sizes["fsdp"] * sizes["expert"]
    ids = np.random.default_rng(0).integers(1, cfg.vocab_size, (rows, LENGTH * sizes["context"])).astype(np.int32)
    place = NamedSharding(mesh, batch_spec())
    placed = jax.make_array_from_callback(ids.shape, place, lambda index: ids[index])
    logprobs, likeliest = (np.asarray(x) for x in _expectation(cfg, mesh, dtype)(params, placed))
    return [
        Probe(token_ids=tuple(ids[n].tolist()), next_ids=tuple(likeliest[n].tolist()), logprobs=tuple(found.tolist()))
        for n, found in enumerate(logprobs[:PROMPTS])
    ]


@functools.cache
def _expectation(
    cfg: ModelConfig, mesh: Mesh, dtype: str
) -> Callable[[Params, jax.Array], tuple[jax.Array, jax.Array]]:
    """Jitted: parameters, ids [B, T] -> ([B, NEXT] log-probabilities, falling, float32; [B, NEXT] token ids)."""

    def expect(params: Params, ids_BT: jax.Array) -> tuple[jax.Array, jax.Array]:
        hidden_BTD = decoder.forward(params, cfg, ids_BT, dtype=jnp.dtype(dtype), mesh=mesh)
        logits_BV = decoder.logits(params, cfg, hidden_BTD[:, -1:])[:, 0].astype(jnp.float32)
        values, ids = jax.lax.top_k(jax.nn.log_softmax(logits_BV), min(NEXT, cfg.vocab_size))
        return values, ids

    return jax.jit(expect, out_shardings=NamedSharding(mesh, PartitionSpec()))
