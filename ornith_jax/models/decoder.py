"""The decoder: embed, scan over repeats of the layer period, final norm. One code path for training and serving.

B batch, T tokens, D model width, V vocabulary, R repeats of the layer period.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import jax
import jax.numpy as jnp
from jax.sharding import Mesh

from ornith_jax.config import AttentionConfig, Mixer, ModelConfig
from ornith_jax.errors import OrnithError
from ornith_jax.models.registry import FAMILIES
from ornith_jax.nn.attention import init_attention_cache
from ornith_jax.nn.context import Context, cached_context, full_context
from ornith_jax.nn.embed import embed, embed_specs, lm_logits
from ornith_jax.nn.gated_delta import init_gated_delta_cache
from ornith_jax.nn.moe import freeze_router
from ornith_jax.nn.norm import rms_norm
from ornith_jax.params import Params, ParamSpec, Table, stack
from ornith_jax.sharding import batch_spec, check_batch, constrain, shardings, use_mesh

REMAT: dict[str, Callable[..., bool] | None] = {
    "full": None,  # keep only the input of each layer
    "dots": jax.checkpoint_policies.dots_with_no_batch_dims_saveable,  # keep the results of projections
}


def slots(cfg: ModelConfig) -> list[tuple[str, Mixer]]:
    """("0_gdn", config), ..., ("3_attn", config): the layers of one period and their parameter names."""
    kinds = ["gdn" if not isinstance(m, AttentionConfig) else "local" if m.window else "attn" for m in cfg.period]
    return [(f"{i}_{kind}", mixer) for i, (kind, mixer) in enumerate(zip(kinds, cfg.period, strict=True))]


def table(cfg: ModelConfig) -> Table:
    """The parameter table of a model: embed, layers/<slot>/..., final_norm, lm_head (unless tied)."""
    family = FAMILIES[cfg.family]
    layers = {name: stack(family.layer_specs(cfg, mixer), cfg.repeats) for name, mixer in slots(cfg)}
    norm = ParamSpec((cfg.embed_dim,), (None,), "zeros" if family.ZERO_CENTERED_NORMS else "ones")
    vocabulary = embed_specs(cfg.vocab_size, cfg.embed_dim, cfg.init_std, tied=cfg.tie_embeddings)
    return {**vocabulary, "layers": layers, "final_norm": norm}


def forward(
    params: Params,
    cfg: ModelConfig,
    token_ids_BT: jax.Array,
    *,
    segment_ids_BT: jax.Array | None = None,
    positions_BT: jax.Array | None = None,
    dtype: Any = None,
    remat: str = "none",
    mesh: Mesh | None = None,
    router: str = "trained",
    routed_experts: jax.Array | None = None,
) -> jax.Array:
    """Hidden states after the final norm, [B, T, D] in `dtype` (default: the model's).

    Args:
        segment_ids_BT: packing; 0 is padding, each sequence has its own id. None: every row is one sequence.
        positions_BT: default counts from 0 in each segment.
        remat: "none", "dots" or "full": what the backward pass recomputes, per layer.
        mesh: over which params (`sharding.shardings`) and batch (`sharding.batch_spec`) are spread.
        router: "trained", "frozen" (nn.moe.ROUTER gets no gradient), or "replayed" (as trained, but at the experts of
            `routed_experts`). A dense model has none.
        routed_experts: [B, T, L, X] int32 for a replayed router, L in the order of the layers; a token with a -1
            chooses its own.

    Raises OrnithError for a batch that the mesh does not divide, and for a replayed router without `routed_experts`.
    """
    hidden_BTD, _ = forward_with_load(
        params,
        cfg,
        token_ids_BT,
        segment_ids_BT=segment_ids_BT,
        positions_BT=positions_BT,
        dtype=dtype,
        remat=remat,
        mesh=mesh,
        router=router,
        routed_experts=routed_experts,
    )
    return hidden_BTD


def forward_with_load(
    params: Params,
    cfg: ModelConfig,
    token_ids_BT: jax.Array,
    *,
    segment_ids_BT: jax.Array | None = None,
    positions_BT: jax.Array | None = None,
    dtype: Any = None,
    remat: str = "none",
    mesh: Mesh | None = None,
    router: str = "trained",
    routed_experts: jax.Array | None = None,
) -> tuple[jax.Array, jax.Array | None]:
    """`forward`, and the tokens that went to each expert of each layer, [L, E] float32, or None for a dense model.

    Summed over the global batch, pads not counted: a row sums to X times the number of tokens.
    """
    if mesh is not None:
        check_batch(mesh, *token_ids_BT.shape)
        params = jax.lax.with_sharding_constraint(params, shardings(table(cfg), mesh))  # and so are the gradients
    if segment_ids_BT is None:
        segment_ids_BT = jnp.ones_like(token_ids_BT)
    if router == "frozen":
        params = freeze_router(params)
    elif router != "replayed":
        routed_experts = None
    elif routed_experts is None:
        raise OrnithError("router 'replayed' needs routed_experts, the experts that the engine used")
    ctx = full_context(segment_ids_BT, positions_BT, mesh)
    with use_mesh(mesh):
        hidden_BTD, _, load_LE = _run(params, cfg, token_ids_BT, ctx, None, dtype, remat, routed_experts)
    return hidden_BTD, load_LE


def logits(params: Params, cfg: ModelConfig, hidden_BTD: jax.Array) -> jax.Array:
    """[B, T, V] float32."""
    return lm_logits(params, hidden_BTD, cfg.final_softcap)


def unstack(tree: Params, cfg: ModelConfig) -> Params:
    """Params or cache with `layers` as a tuple of R periods, which run one after the other instead of in a scan.

    For decoding: a scan copies the weights of each period out of their stack at every token, which on a CPU costs as
    much as the products themselves. `forward` and `extend` take either form; params and cache must have the same.
    """
    layers = tree["layers"]
    return {**tree, "layers": tuple(jax.tree.map(lambda x, r=r: x[r], layers) for r in range(cfg.repeats))}


def init_cache(cfg: ModelConfig, batch: int, max_len: int, dtype: Any = None) -> Params:
    """An empty cache for up to `max_len` tokens per row: {"length": [B], "layers": {slot: ...[R, B, ...]}}."""
    dtype = jnp.dtype(dtype or cfg.dtype)

    def one(mixer: Mixer) -> Params:
        if isinstance(mixer, AttentionConfig):
            return init_attention_cache(mixer, batch, max_len, dtype)
        return init_gated_delta_cache(mixer, batch, dtype)

    layers = {name: one(mixer) for name, mixer in slots(cfg)}
    layers = jax.tree.map(lambda x: jnp.zeros((cfg.repeats, *x.shape), x.dtype), layers)
    return {"length": jnp.zeros((batch,), jnp.int32), "layers": layers}


def extend(
    params: Params,
    cfg: ModelConfig,
    token_ids_BT: jax.Array,
    num_new_B: jax.Array,
    cache: Params,
    *,
    dtype: Any = None,
) -> tuple[jax.Array, Params]:
    """Prefill and decode: the hidden states [B, T, D] of T more token slots, and the grown cache.

    Row b has `num_new_B[b]` real tokens, left-aligned; the rest are pads whose hidden states mean nothing.
    """
    return extend_routed(params, cfg, token_ids_BT, num_new_B, cache, dtype=dtype)[:2]


def extend_routed(
    params: Params,
    cfg: ModelConfig,
    token_ids_BT: jax.Array,
    num_new_B: jax.Array,
    cache: Params,
    *,
    dtype: Any = None,
) -> tuple[jax.Array, Params, jax.Array | None]:
    """`extend`, and the experts that every token went through: [B, T, L, X] int32, or None for a dense model.

    L in the order of the layers: the `routed_experts` of a replayed router.
    """
    ctx = cached_context(num_new_B, cache["length"], token_ids_BT.shape[1])
    hidden_BTD, layers, experts_LBTX = _run(params, cfg, token_ids_BT, ctx, cache["layers"], dtype, "none")
    experts_BTLX = None if experts_LBTX is None else jnp.moveaxis(experts_LBTX, 0, 2).astype(jnp.int32)
    return hidden_BTD, {"length": cache["length"] + num_new_B, "layers": layers}, experts_BTLX


def _run(
    params: Params,
    cfg: ModelConfig,
    token_ids_BT: jax.Array,
    ctx: Context,
    cache: Any,
    dtype: Any,
    remat: str,
    routed_BTLX: jax.Array | None = None,
) -> tuple[jax.Array, Any, jax.Array | None]:
    """(hidden [B, T, D], the new cache, `moe.router_record` of every layer [L, ...])."""
    family = FAMILIES[cfg.family]
    dtype = jnp.dtype(dtype or cfg.dtype)
    x_BTD = embed(params["embed"], token_ids_BT, dtype, cfg.padding_id, ctx.mesh)
    if family.SCALED_EMBEDDING:
        x_BTD = x_BTD * jnp.asarray(cfg.embed_dim**0.5, dtype)  # the factor itself rounds to the dtype

    layer = family.layer
    if remat != "none":  # per layer, not per period: a period's intermediates at once are several times the memory
        layer = jax.checkpoint(layer, policy=REMAT[remat], prevent_cse=False, static_argnums=(3, 4))

    def period(x_BTD: jax.Array, xs: tuple[Params, Any, Any]) -> tuple[jax.Array, tuple[Any, Any]]:
        layer_params, layer_cache, routed_PBTX = xs
        new_cache, loads = {}, []
        for i, (name, mixer) in enumerate(slots(cfg)):
            old = layer_cache[name] if layer_cache is not None else None
            here = ctx if routed_PBTX is None else replace(ctx, routed_BTX=routed_PBTX[i])
            with jax.named_scope(name):
                x_BTD, new_cache[name], load_E = layer(layer_params[name], x_BTD, here, cfg, mixer, old)
            x_BTD = constrain(x_BTD, ctx.mesh, batch_spec())  # what the backward pass keeps of a layer
            loads.append(load_E)
        return x_BTD, (new_cache if layer_cache is not None else None, jnp.stack(loads) if cfg.moe else None)

    routed = None if routed_BTLX is None else _by_period(routed_BTLX, cfg)
    if isinstance(params["layers"], tuple):
        outs = []
        for r, layers in enumerate(params["layers"]):
            each = (layers, None if cache is None else cache[r], None if routed is None else routed[r])
            x_BTD, out = period(x_BTD, each)
            outs.append(out)
        cache = None if cache is None else tuple(new_cache for new_cache, _ in outs)
        load = jnp.concatenate([load_PE for _, load_PE in outs]) if cfg.moe else None
    else:
        x_BTD, (cache, load) = jax.lax.scan(period, x_BTD, (params["layers"], cache, routed))
        load = None if load is None else load.reshape(cfg.num_layers, *load.shape[2:])
    x_BTD = rms_norm(x_BTD, params["final_norm"], cfg.norm_eps, zero_centered=family.ZERO_CENTERED_NORMS)
    return x_BTD, cache, load


def _by_period(routed_BTLX: jax.Array, cfg: ModelConfig) -> jax.Array:
    """[B, T, L, X] -> [R, P, B, T, X], as the scan over periods of P layers reads it."""
    return jnp.moveaxis(routed_BTLX, 2, 0).reshape(cfg.repeats, len(cfg.period), *routed_BTLX.shape[:2], -1)
