"""One optimizer update: gradients of all micro-batches, then the step, or nothing at all when they are not finite.

A micro-batches, B rows, T tokens, L layers, E experts.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import optax
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from ornith_jax.config import ModelConfig
from ornith_jax.experiment import Experiment
from ornith_jax.models.decoder import forward_with_load, table
from ornith_jax.params import Params
from ornith_jax.rl.logprobs import token_logprobs
from ornith_jax.rl.loss import policy_loss
from ornith_jax.rl.metrics import Sums, merge
from ornith_jax.rl.types import Batch
from ornith_jax.sharding import batch_spec, shardings
from ornith_jax.train.optim import make_optimizer, schedule, trainable
from ornith_jax.train.state import TrainState, abstract_state, state_shardings

Loss = Callable[..., tuple[jax.Array, Sums]]
"""With the signature of `rl.loss.policy_loss`."""

Metrics = dict[str, Any]
"""Device scalars by name, and under "sums" what the loss adds up over micro-batches."""


def make_step(
    cfg: ModelConfig, experiment: Experiment, mesh: Mesh, loss: Loss = policy_loss
) -> Callable[[TrainState, Batch], tuple[TrainState, Metrics]]:
    """A jitted `step(state, batches) -> (state, metrics)` that gives the buffers of `state` to the new one.

    `batches` is a Batch of [A, B, T] arrays. Its gradient is that of one batch of A x B rows: micro-batches are summed
    in float32 and divided by the number of trained tokens of them all. When the loss or the gradient is not finite,
    parameters and optimizer stay as they are, bit for bit: `skipped` counts it, and `step`, the policy version, stands.

    Weights are cast to train.dtype where they are used, and not once per step: a sharded weight is then cast before it
    is gathered, which moves half the bytes, and no second copy of the model is kept.
    """
    optimizer = make_optimizer(experiment.optim, table(cfg), experiment.loss.router)
    gradients = make_gradients(cfg, experiment, mesh, loss)

    def step(state: TrainState, batches: Batch) -> tuple[TrainState, Metrics]:
        value, sums, load_LE, grads = gradients(state.params, state.step, batches)
        norm = optax.tree.norm(grads)
        finite = jnp.isfinite(value) & jnp.isfinite(norm)
        params32 = jax.tree.map(lambda p: p.astype(jnp.float32), state.params)
        with jax.numpy_dtype_promotion("standard"):  # optax mixes integer counts with floats
            updates, opt_state = optimizer.update(grads, state.opt_state, params32)
        params = jax.tree.map(lambda p, p32, u: (p32 + u).astype(p.dtype), state.params, params32, updates)
        new = state.replace(step=state.step + 1, params=params, opt_state=opt_state)  # type: ignore[attr-defined]
        old = state.replace(skipped=state.skipped + 1)  # type: ignore[attr-defined]
        state_after = jax.tree.map(lambda a, b: jnp.where(finite, a, b), new, old)
        metrics = {
            "sums": sums,
            "step": state_after.step,
            "optim/skipped": state_after.skipped,
            "optim/grad_norm": norm,
            "optim/param_norm": optax.tree.norm(state_after.params),
            "optim/learning_rate": schedule(experiment.optim)(state.step),
        }
        return state_after, metrics | _load_metrics(load_LE)

    places = state_shardings(abstract_state(cfg, experiment, mesh))
    return jax.jit(
        step,
        donate_argnums=0,
        in_shardings=(places, batches_sharding(mesh)),
        out_shardings=(places, NamedSharding(mesh, PartitionSpec())),
    )


def make_gradients(
    cfg: ModelConfig, experiment: Experiment, mesh: Mesh, loss: Loss = policy_loss
) -> Callable[[Params, jax.Array, Batch], tuple[jax.Array, Sums, jax.Array | None, Params]]:
    """`gradients(params, policy_version, batches) -> (loss, sums, load [L, E] or None, gradients)`; not jitted.

    Gradients are float32 and sharded as their parameters; those of parameters that do not move are zero.
    Log-probabilities are those at the temperature that the experiment samples with.
    """
    places = shardings(table(cfg), mesh)
    value = _make_value(cfg, experiment, mesh, loss)

    def of_one(params: Params, policy_version: jax.Array, batch: Batch, denominator: jax.Array) -> Any:
        (total, (sums, load_LE)), grads = jax.value_and_grad(value, has_aux=True)(
            params, policy_version, batch, denominator
        )
        grads = jax.tree.map(lambda g, at: jax.lax.with_sharding_constraint(g.astype(jnp.float32), at), grads, places)
        return total, sums, load_LE, grads

    def of_all(params: Params, policy_version: jax.Array, batches: Batch) -> Any:
        denominator = jnp.maximum(batches.loss_mask.sum(), 1.0)
        first = jax.tree.map(lambda x: x[0], batches)
        if batches.token_ids.shape[0] == 1:
            return of_one(params, policy_version, first, denominator)

        def add(so_far: Any, batch: Batch) -> tuple[Any, None]:
            (total, sums, load, grads), more = so_far, of_one(params, policy_version, batch, denominator)
            load = None if load is None else load + more[2]
            return (total + more[0], merge(sums, more[1]), load, jax.tree.map(jnp.add, grads, more[3])), None

        shapes = jax.eval_shape(of_one, params, policy_version, first, denominator)
        zeros = jax.tree.map(lambda x: jnp.zeros(x.shape, x.dtype), shapes)
        return jax.lax.scan(add, zeros, batches)[0]

    return of_all


def _make_value(cfg: ModelConfig, experiment: Experiment, mesh: Mesh, loss: Loss) -> Callable[..., Any]:
    """`value(params, policy_version, batch, denominator) -> (loss, (sums, load))` of one micro-batch."""
    train, settings = experiment.train, experiment.loss
    moving = trainable(table(cfg), settings.router)

    def value(params: Params, policy_version: jax.Array, batch: Batch, denominator: jax.Array) -> Any:
        params = jax.tree.map(lambda p, moves: p if moves else jax.lax.stop_gradient(p), params, moving)
        hidden_BTD, load_LE = forward_with_load(
            params,
            cfg,
            batch.token_ids,
            segment_ids_BT=batch.segment_ids,
            positions_BT=batch.positions,
            dtype=jnp.dtype(train.dtype),
            remat=train.remat,
            mesh=mesh,
            router=settings.router,
            routed_experts=batch.routed_experts,
        )
        logprobs, entropy = token_logprobs(
            params,
            cfg,
            hidden_BTD,
            batch.token_ids,
            batch.segment_ids,
            chunk_tokens=settings.chunk_tokens,
            float32_head=settings.float32_head,
            temperature=experiment.sampling.temperature,
        )
        total, sums = loss(logprobs, entropy, batch, policy_version, settings, denominator)
        return total, (sums, load_LE)

    return value


def batches_sharding(mesh: Mesh) -> NamedSharding:
    """Where every [A, B, T, ...] array of an update's batches lives."""
    return NamedSharding(mesh, PartitionSpec(None, *batch_spec()))


def put_batches(batches: Batch, mesh: Mesh) -> Batch:
    """The same numpy arrays in every process -> global arrays, of which each process keeps its own shards."""
    place = batches_sharding(mesh)
    return jax.tree.map(lambda x: jax.make_array_from_callback(x.shape, place, lambda index: x[index]), batches)


def _load_metrics(load_LE: jax.Array | None) -> Metrics:
    """How evenly the experts are used, a mean over layers. 1 is even; `moe/max_load` E is all tokens to one expert."""
    if load_LE is None:
        return {}
    share_LE = load_LE / jnp.maximum(load_LE.sum(-1, keepdims=True), 1.0)
    E = load_LE.shape[1]
    entropy_L = -(share_LE * jnp.log(jnp.maximum(share_LE, 1e-9))).sum(-1)
    return {
        "moe/max_load": E * share_LE.max(-1).mean(),
        "moe/min_load": E * share_LE.min(-1).mean(),
        "moe/load_entropy": entropy_L.mean() / math.log(E),
    }
