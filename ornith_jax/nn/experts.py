"""The experts of a mixture: every token through the ones chosen for it, by grouped products over sorted rows.

M tokens, D model width, E experts, X experts per token, P = M * X pairs of a token and an expert, I expert width.
"""

from __future__ import annotations

from collections.abc import Callable

import jax
import jax.numpy as jnp

from ornith_jax.config import MoEConfig
from ornith_jax.nn.grouped import grouped_dot
from ornith_jax.nn.mlp import Activation
from ornith_jax.params import Params, ParamSpec, Table


def experts_specs(cfg: MoEConfig, embed_dim: int, init_std: float) -> Table:
    """gate_up [E, 2, I, D] (gate, then up) and down [E, D, I]."""
    E, width = cfg.num_experts, cfg.expert_dim
    return {
        "gate_up": ParamSpec((E, 2, width, embed_dim), ("experts", None, "ffw", "embed"), init_std=init_std),
        "down": ParamSpec((E, embed_dim, width), ("experts", "embed", "ffw"), init_std=init_std),
    }


def experts_reference(
    params: Params, x_MD: jax.Array, weights_MX: jax.Array, experts_MX: jax.Array, act: Activation
) -> jax.Array:
    """Every expert on every token, then the chosen ones weighted: the slow, obvious form."""
    gate_up = jnp.einsum("md,ecid->mcei", x_MD, params["gate_up"].astype(x_MD.dtype))
    out_MED = jnp.einsum("mei,edi->med", act(gate_up[:, 0]) * gate_up[:, 1], params["down"].astype(x_MD.dtype))
    chosen_MXD = jnp.take_along_axis(out_MED, experts_MX[..., None], axis=1)
    return jnp.sum(chosen_MXD * weights_MX[..., None].astype(x_MD.dtype), axis=1)


def experts(
    params: Params, x_MD: jax.Array, weights_MX: jax.Array, experts_MX: jax.Array, act: Activation
) -> jax.Array:
    """[M, D] by one grouped product per projection, on one device."""
    gate_up, down = params["gate_up"].astype(x_MD.dtype), params["down"].astype(x_MD.dtype)

    def product(rows_PD: jax.Array, sizes_E: jax.Array) -> jax.Array:
        return grouped_mlp(gate_up, down, rows_PD, sizes_E, act)

    return by_expert(x_MD, weights_MX, experts_MX, down.shape[0], product)


def grouped_mlp(
    gate_up: jax.Array, down: jax.Array, rows_PD: jax.Array, sizes_E: jax.Array, act: Activation
) -> jax.Array:
    """[P, D]: down(act(gate row) * up row) with the weights of each row's expert; rows are sorted by expert."""
    E, D = down.shape[:2]
    gate, up = jnp.split(grouped_dot(rows_PD, gate_up.reshape(E, -1, D), sizes_E), 2, axis=-1)
    return grouped_dot(act(gate) * up, down, sizes_E)


def by_expert(
    x_MD: jax.Array,
    weights_MX: jax.Array,
    experts_MX: jax.Array,
    num_experts: int,
    product: Callable[[jax.Array, jax.Array], jax.Array],
) -> jax.Array:
    """Sort the pairs by expert, `product(rows_PD, sizes_E)`, and sum back per token with the weights."""
    M, X = experts_MX.shape
    flat_P = experts_MX.reshape(-1)
    # Not jnp.argsort: under shard_map its hidden iota is typed as equal on all devices, and so is then the order.
    # Gradients through it were seen to miss a psum, without an error (jax 0.10.2, plain gathers; here both forms gave
    # the same). `0 * flat_P` makes this iota vary as it should.
    order_P = jax.lax.sort((flat_P, jnp.arange(M * X, dtype=flat_P.dtype) + 0 * flat_P), num_keys=1)[1]
    sizes_E = jnp.zeros((num_experts,), jnp.int32).at[flat_P].add(1)
    out_PD = product(x_MD[order_P // X], sizes_E)
    back_P = jnp.zeros_like(order_P).at[order_P].set(jnp.arange(M * X, dtype=order_P.dtype), unique_indices=True)
    return jnp.sum(out_PD[back_P].reshape(M, X, -1) * weights_MX[..., None].astype(x_MD.dtype), axis=1)
