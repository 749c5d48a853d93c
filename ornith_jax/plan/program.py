"""The programs that are compiled: the real train step, and a decoding step. Arguments are shapes with shardings.

A micro-batches, B rows, T tokens, L layers, X experts per token.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from ornith_jax.config import ModelConfig
from ornith_jax.errors import OrnithError
from ornith_jax.experiment import Experiment
from ornith_jax.models import decoder
from ornith_jax.params import Params, abstract
from ornith_jax.rl.types import Batch
from ornith_jax.sharding import BATCH_AXES, shardings
from ornith_jax.train.state import abstract_state
from ornith_jax.train.step import batches_sharding, make_step


@dataclass(frozen=True, slots=True)
class Program:
    """A lowered program, and the bytes of its arguments on one device by kind."""

    lowered: Any
    arguments: dict[str, int]


def bytes_per_device(tree: Any) -> int:
    """Of arrays, or of their shapes with shardings: the shard of one device, summed over leaves."""
    return sum(math.prod(leaf.sharding.shard_shape(leaf.shape)) * leaf.dtype.itemsize for leaf in jax.tree.leaves(tree))


def train_program(cfg: ModelConfig, experiment: Experiment, mesh: Mesh) -> Program:
    """One optimizer update as `train.step` compiles it."""
    state, batches = abstract_state(cfg, experiment, mesh), abstract_batches(cfg, experiment, mesh)
    lowered = make_step(cfg, experiment, mesh).lower(state, batches)  # type: ignore[attr-defined]
    kinds = {
        "parameters": bytes_per_device(state.params),
        "optimizer": bytes_per_device(state.opt_state),
        "batch": bytes_per_device(batches),
    }
    return Program(lowered, kinds)


def abstract_batches(cfg: ModelConfig, experiment: Experiment, mesh: Mesh) -> Batch:
    """[A, B, T] of every field that the experiment's loss reads."""
    train, loss, place = experiment.train, experiment.loss, batches_sharding(mesh)

    def array(dtype: Any, *more: int) -> jax.ShapeDtypeStruct:
        shape = (train.accumulation, train.rows, train.seq_len, *more)
        return jax.ShapeDtypeStruct(shape, dtype, sharding=place)

    integers, floats = array(jnp.int32), array(jnp.float32)
    replayed = loss.router == "replayed" and cfg.moe is not None
    experts_per_token = cfg.moe.experts_per_token if cfg.moe is not None else 0
    return Batch(  # type: ignore[call-arg]
        token_ids=integers,
        segment_ids=integers,
        positions=integers,
        loss_mask=floats,
        behavior_logprobs=floats,
        advantages=floats,
        token_versions=integers,
        routed_experts=array(jnp.int32, cfg.num_layers, experts_per_token) if replayed else None,
        ref_logprobs=floats if loss.kl else None,
    )


def decode_program(cfg: ModelConfig, experiment: Experiment, mesh: Mesh) -> Program:
    """One token for each of `engine.slots` sequences with room for `engine.max_len` tokens, the likeliest one."""
    engine = experiment.engine
    dtype, groups = jnp.dtype(engine.dtype), math.prod(mesh.shape[axis] for axis in BATCH_AXES)
    if engine.slots % groups:
        raise OrnithError(f"engine.slots={engine.slots}: is not a multiple of {' x '.join(BATCH_AXES)} = {groups}")
    specs = decoder.table(cfg)
    params = jax.tree.map(
        lambda leaf, place: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=place),
        abstract(specs, dtype),
        shardings(specs, mesh),
    )
    cache = abstract_cache(cfg, engine.slots, engine.max_len, dtype, mesh)
    rows = NamedSharding(mesh, PartitionSpec(BATCH_AXES))
    token_ids = jax.ShapeDtypeStruct((engine.slots,), jnp.int32, sharding=rows)

    def decode(params: Params, cache: Params, token_ids_B: jax.Array) -> tuple[Params, jax.Array]:
        ones_B = jnp.ones_like(token_ids_B)
        hidden, cache = decoder.extend(params, cfg, token_ids_B[:, None], ones_B, cache, dtype=dtype)
        return cache, jnp.argmax(decoder.logits(params, cfg, hidden)[:, 0], axis=-1).astype(jnp.int32)

    places = jax.tree.map(lambda leaf: leaf.sharding, cache)
    lowered = jax.jit(decode, donate_argnums=1, out_shardings=(places, rows)).lower(params, cache, token_ids)
    return Program(lowered, {"parameters": bytes_per_device(params), "cache": bytes_per_device(cache)})


def abstract_cache(cfg: ModelConfig, slots: int, max_len: int, dtype: Any, mesh: Mesh) -> Params:
    """`decoder.init_cache` as shapes: rows over the batch axes, key/value and state heads over `tensor`."""
    shapes = jax.eval_shape(lambda: decoder.init_cache(cfg, slots, max_len, dtype))
    heads_at = {"k": 3, "v": 3, "state": 2}  # [R, B, S, K, H] and [R, B, H, A, U]; convolution tails are small

    def place(path: tuple[Any, ...], leaf: jax.ShapeDtypeStruct) -> jax.ShapeDtypeStruct:
        rows = 0 if leaf.ndim == 1 else 1  # the length of each row, or [R, B, ...]
        spec: list[Any] = [None] * leaf.ndim
        spec[rows] = BATCH_AXES
        if leaf.ndim == 5:
            spec[heads_at[str(path[-1].key)]] = "tensor"
        return jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=NamedSharding(mesh, PartitionSpec(*spec)))

    return jax.tree_util.tree_map_with_path(place, shapes)
