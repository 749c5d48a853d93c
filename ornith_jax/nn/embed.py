"""Token embedding and language-model head. B batch, T tokens, V vocabulary, D model width."""

from __future__ import annotations

import jax
import jax.numpy as jnp
from jax.sharding import Mesh, PartitionSpec

from ornith_jax.nn.linear import project
from ornith_jax.params import Params, ParamSpec, Table
from ornith_jax.sharding import batch_spec, constrain, mesh_axes, partition_spec

AXES = ("vocab", "embed")


def embed_specs(vocab_size: int, embed_dim: int, init_std: float, *, tied: bool) -> Table:
    """embed [V, D], and lm_head [V, D] unless tied."""
    table = ParamSpec((vocab_size, embed_dim), AXES, init_std=init_std)
    return {"embed": table} if tied else {"embed": table, "lm_head": table}


def embed(
    table_VD: jax.Array,
    token_ids_BT: jax.Array,
    dtype: jax.typing.DTypeLike,
    padding_id: int | None,
    mesh: Mesh | None = None,
) -> jax.Array:
    """[B, T, D]. The row of `padding_id` gets no gradient from lookups (torch's `padding_idx`).

    Over a mesh, each device looks up its part of D for the rows of all devices that have other parts; then D is
    exchanged for rows. Only ids and hidden states travel, never the table or its gradient.
    """
    width = mesh_axes(partition_spec("embed", ParamSpec(table_VD.shape, AXES))[1])
    ids_BT = constrain(token_ids_BT, mesh, PartitionSpec("data"))
    x_BTD = constrain(table_VD[ids_BT].astype(dtype), mesh, PartitionSpec("data", None, width))
    # First D for T, then D for rows: both at once is an exchange that XLA does not find, and it gathers everything.
    x_BTD = constrain(x_BTD, mesh, PartitionSpec("data", "context", tuple(a for a in width if a != "context")))
    if padding_id is not None:
        x_BTD = jnp.where((ids_BT == padding_id)[..., None], jax.lax.stop_gradient(x_BTD), x_BTD)
    return constrain(x_BTD, mesh, batch_spec())


def lm_logits(params: Params, hidden_BTD: jax.Array, softcap: float | None) -> jax.Array:
    """[B, T, V] float32 logits, with Gemma's cap * tanh(logits / cap) when given."""
    weight_VD = params["lm_head"] if "lm_head" in params else params["embed"]
    logits_BTV = project(hidden_BTD, weight_VD)
    if softcap is not None:
        logits_BTV = jnp.tanh(logits_BTV / softcap) * softcap
    return logits_BTV.astype(jnp.float32)
