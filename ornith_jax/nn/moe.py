"""Mixture of experts: top-k of a softmax router, no capacity and no dropped token, optional shared expert.

B batch, T tokens, D model width, E experts, X experts per token.
"""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
from jax.sharding import Mesh

from ornith_jax.config import MoEConfig
from ornith_jax.nn.context import Context
from ornith_jax.nn.expert_parallel import expert_parallel
from ornith_jax.nn.experts import experts, experts_specs
from ornith_jax.nn.linear import project
from ornith_jax.nn.mlp import Activation, mlp, mlp_specs
from ornith_jax.params import Params, ParamSpec, Table
from ornith_jax.sharding import batch_spec


def moe_specs(cfg: MoEConfig, embed_dim: int, init_std: float) -> Table:
    """Qwen3.5: router [E, D], experts, and a shared expert behind a sigmoid gate [D]."""
    return {
        "router": ParamSpec((cfg.num_experts, embed_dim), ("experts", "embed"), init_std=init_std),
        "experts": experts_specs(cfg, embed_dim, init_std),
        "shared": mlp_specs(embed_dim, cfg.shared_dim, init_std),
        "shared_gate": ParamSpec((embed_dim,), ("embed",), init_std=init_std),
    }


ROUTER = ("router", "router_scale")
"""The parameters from which experts are chosen: what a frozen router freezes. Peers freeze the projection, which is
all there is in Qwen3.5; Gemma 4's scale is part of the same product. `expert_scale` only weighs outputs and learns."""


def freeze_router(params: Params) -> Params:
    """No gradient reaches the parameters named in ROUTER, at any depth of `params`."""

    def freeze(path: tuple[Any, ...], x: jax.Array) -> jax.Array:
        return jax.lax.stop_gradient(x) if getattr(path[-1], "key", None) in ROUTER else x

    return jax.tree_util.tree_map_with_path(freeze, params)


def top_k(logits: jax.Array, experts_per_token: int, given: jax.Array | None = None) -> tuple[jax.Array, jax.Array]:
    """[..., E] -> (weights [..., X] float32 that sum to one, experts [..., X]): softmax, then renormalised top-k.

    A token whose `given` experts [..., X] are all >= 0 uses those, weighted by the present probabilities
    (routing replay, arXiv 2510.11370).
    """
    probs = jax.nn.softmax(logits.astype(jnp.float32), axis=-1)
    weights, experts = jax.lax.top_k(probs, experts_per_token)
    if given is not None:
        experts = jnp.where(jnp.all(given >= 0, axis=-1, keepdims=True), given, experts)
        weights = jnp.take_along_axis(probs, experts, axis=-1)
    return weights / jnp.sum(weights, axis=-1, keepdims=True), experts


def route(logits_BTE: jax.Array, cfg: MoEConfig, ctx: Context) -> tuple[jax.Array, jax.Array]:
    """`top_k` of each token where it is: left to XLA's partitioner, every device gathers the logits of the batch."""

    def choose(logits_BTE: jax.Array, *given_BTX: jax.Array) -> tuple[jax.Array, jax.Array]:
        return top_k(logits_BTE, cfg.experts_per_token, *given_BTX)

    if ctx.mesh is not None:
        choose = jax.shard_map(choose, mesh=ctx.mesh, in_specs=batch_spec(), out_specs=batch_spec())
    return choose(logits_BTE) if ctx.routed_BTX is None else choose(logits_BTE, ctx.routed_BTX)


def expert_load(experts_BTX: jax.Array, valid_BT: jax.Array, num_experts: int) -> jax.Array:
    """[E] float32: how many tokens of the batch went to each expert; pads are not counted."""
    chosen_BTXE = experts_BTX[..., None] == jnp.arange(num_experts, dtype=experts_BTX.dtype)[None, None, None]
    return jnp.sum(chosen_BTXE & valid_BT[..., None, None], axis=(0, 1, 2), dtype=jnp.float32)


def router_record(experts_BTX: jax.Array, ctx: Context, num_experts: int) -> jax.Array:
    """What a layer tells of its router: its load [E]; with a cache, in an engine, the experts per token [B, T, X]."""
    return experts_BTX if ctx.cached_B is not None else expert_load(experts_BTX, ctx.valid_BT, num_experts)


def routed_experts(
    params: Params,
    x_BTD: jax.Array,
    weights_BTX: jax.Array,
    experts_BTX: jax.Array,
    act: Activation,
    mesh: Mesh | None,
) -> jax.Array:
    """[B, T, D]: what the chosen experts make of each token, weighted and summed."""
    if mesh is not None:
        return expert_parallel(params, x_BTD, weights_BTX, experts_BTX, act, mesh)
    x_MD, X = x_BTD.reshape(-1, x_BTD.shape[-1]), weights_BTX.shape[-1]
    out_MD = experts(params, x_MD, weights_BTX.reshape(-1, X), experts_BTX.reshape(-1, X), act)
    return out_MD.reshape(x_BTD.shape)


def moe(params: Params, x_BTD: jax.Array, ctx: Context, cfg: MoEConfig, act: Activation) -> tuple[jax.Array, jax.Array]:
    """Routed experts plus the gated shared expert (HF Qwen3_5MoeSparseMoeBlock), and `router_record`."""
    weights_BTX, experts_BTX = route(project(x_BTD, params["router"]), cfg, ctx)
    routed = routed_experts(params["experts"], x_BTD, weights_BTX, experts_BTX, act, ctx.mesh)
    gate_BT1 = jax.nn.sigmoid(project(x_BTD, params["shared_gate"]))[..., None]
    record = router_record(experts_BTX, ctx, cfg.num_experts)
    return routed + gate_BT1 * mlp(params["shared"], x_BTD, act), record
