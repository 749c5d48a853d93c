"""Experts on other devices equal every expert on every token, in value and every gradient, however uneven the routing.

`lax.ragged_all_to_all` cannot run on a CPU: here its padded stand-in runs, against the slow loop of its definition, and
the collective itself is only lowered.
"""

from __future__ import annotations

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import PartitionSpec

from ornith_jax.config import MoEConfig
from ornith_jax.nn.expert_parallel import _plan, _window, expert_parallel
from ornith_jax.nn.experts import experts_reference, experts_specs
from ornith_jax.nn.ragged import Slices, exchange
from ornith_jax.params import init
from ornith_jax.sharding import batch_shardings, make_mesh, shardings

B, T, D, E, X = 8, 6, 16, 8, 2
CFG = MoEConfig(num_experts=E, experts_per_token=X, expert_dim=8)


def routings() -> dict[str, np.ndarray]:
    """[B, T, X] each. The last one makes as many rounds as there can be."""
    rng = np.random.default_rng(0)
    random = np.argsort(rng.random((B, T, E)), axis=-1)[..., :X]
    rows = np.arange(B)[:, None, None] % E
    return {
        "random": random,
        "two experts serve all": np.broadcast_to([2, 5], (B, T, X)),
        "each row its own expert": np.broadcast_to(rows, (B, T, X)),
        "one expert serves all, twice": np.full((B, T, X), E - 1),
    }


@pytest.mark.parametrize(
    "sizes", [{"expert": 4}, {"expert": 8}, {"fsdp": 2, "expert": 2, "tensor": 2}, {"expert": 4, "context": 2}]
)
def test_no_token_is_dropped_and_every_gradient_is_right_for_even_and_uneven_routing(sizes):
    mesh = make_mesh(sizes, jax.devices()[: int(np.prod(list(sizes.values())))])
    table = experts_specs(CFG, D, 0.3)
    params = init(table, jax.random.key(0), "float32")
    x = jax.random.normal(jax.random.key(1), (B, T, D))
    weights = jax.random.uniform(jax.random.key(2), (B, T, X))

    def spread(params, x, weights, chosen):
        return jnp.sum(jnp.sin(expert_parallel(params, x, weights, chosen, jax.nn.silu, mesh)))

    def reference(params, x, weights, chosen):
        flat = (x.reshape(-1, D), weights.reshape(-1, X), chosen.reshape(-1, X))
        return jnp.sum(jnp.sin(experts_reference(params, *flat, jax.nn.silu)))

    ours, slow = (jax.jit(jax.value_and_grad(f, argnums=(0, 1, 2))) for f in (spread, reference))
    placed = jax.device_put(params, shardings(table, mesh))
    rows = jax.device_put((x, weights), batch_shardings(mesh))
    for name, chosen in routings().items():
        value, grads = ours(placed, *rows, jax.device_put(chosen.astype(np.int32), batch_shardings(mesh)))
        want, want_grads = slow(params, x, weights, jnp.asarray(chosen, jnp.int32))
        np.testing.assert_allclose(value, want, rtol=1e-5, atol=1e-5, err_msg=name)
        for grad, want_grad in zip(jax.tree.leaves(grads), jax.tree.leaves(want_grads), strict=True):
            np.testing.assert_allclose(grad, want_grad, atol=1e-4, err_msg=name)


def test_even_routing_takes_one_round_and_the_worst_as_many_as_its_line_is_windows_long():
    mesh, P = make_mesh({"expert": 8}), 64

    def rounds(sizes_SE):
        return _plan(sizes_SE[0], _window(P, 8)).rounds

    run = jax.jit(jax.shard_map(rounds, mesh=mesh, in_specs=PartitionSpec("expert"), out_specs=PartitionSpec()))
    assert run(jnp.full((8, 16), P // 16, jnp.int32)) == 1
    worst = jnp.zeros((8, 16), jnp.int32).at[:, 3].set(P)
    assert run(worst) == -(-8 * P // _window(P, 8)) == 7


def _slow_exchange(rows_SPD, into_SRD, slices):
    """The definition, one slice after the other."""
    S, out = len(rows_SPD), into_SRD.copy()
    for sender in range(S):
        for i, (start, size, to) in enumerate(zip(*(x[sender] for x in slices[:3]), strict=True)):
            receiver = i // (len(slices[0][sender]) // S)
            out[receiver, to : to + size] = rows_SPD[sender, start : start + size]
    return out


def test_the_padded_exchange_does_what_the_ragged_collective_is_defined_to_do():
    """Two slices for each of 4 devices, some empty, leaving gaps on both sides."""
    S, N, P, R, D = 4, 8, 30, 60, 3
    rng = np.random.default_rng(1)
    sizes = rng.integers(0, 4, (S, N))
    sizes[1], sizes[:, 5] = 0, 0
    starts = np.cumsum(sizes, axis=1) - sizes + rng.integers(0, 2, (S, 1))
    received = sizes.reshape(S, S, 2).transpose(1, 0, 2).reshape(S, N)
    landing = np.cumsum(received + 1, axis=1) - received  # a gap of one before each slice
    to = landing.reshape(S, S, 2).transpose(1, 0, 2).reshape(S, N)
    slices = [np.asarray(x, np.int32) for x in (starts, sizes, to, received)]
    rows, into = rng.normal(size=(S, P, D)).astype(np.float32), rng.normal(size=(S, R, D)).astype(np.float32)
    assert (starts + sizes).max() <= P
    assert (landing + received).max() <= R

    def one(rows, into, *slices):
        return exchange(rows[0], into[0], Slices(*(x[0] for x in slices)))[None]

    mesh = make_mesh({"expert": S}, jax.devices()[:S])
    spec = PartitionSpec("expert")
    run = jax.jit(jax.shard_map(one, mesh=mesh, in_specs=spec, out_specs=spec))
    np.testing.assert_array_equal(run(rows, into, *slices), _slow_exchange(rows, into, slices))


@pytest.mark.parametrize(("platform", "ragged"), [("tpu", True), ("cuda", True), ("cpu", False)])
def test_accelerators_get_the_ragged_collective(platform, ragged):
    mesh = make_mesh({"expert": 8})
    args = [jax.ShapeDtypeStruct(shape, "float32") for shape in ((B, T, D), (B, T, X))]
    params = {
        "gate_up": jax.ShapeDtypeStruct((E, 2, 8, D), "float32"),
        "down": jax.ShapeDtypeStruct((E, D, 8), "float32"),
    }
    run = jax.jit(partial(expert_parallel, act=jax.nn.silu, mesh=mesh))
    text = (
        run.trace(params, *args, jax.ShapeDtypeStruct((B, T, X), "int32"))
        .lower(lowering_platforms=(platform,))
        .as_text()
    )
    assert ("ragged_all_to_all" in text) == ragged
    assert ("stablehlo.all_to_all" in text) != ragged
