"""Sorted, grouped experts equal every expert on every token, in value and gradient; no token is dropped."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from ornith_jax.config import MoEConfig
from ornith_jax.nn.context import full_context
from ornith_jax.nn.experts import experts, experts_reference, experts_specs
from ornith_jax.nn.grouped import _ragged_dot, grouped_dot, grouped_dot_reference
from ornith_jax.nn.moe import moe, moe_specs, top_k
from ornith_jax.params import flatten, init

D = 12
SIZES = [[5, 0, 7, 1], [0, 0, 13, 0], [1, 1, 1, 10], [70, 0, 3, 130]]


@pytest.mark.parametrize("sizes", SIZES)
@pytest.mark.parametrize("product", [grouped_dot, _ragged_dot])
def test_a_grouped_product_is_one_product_per_row_in_value_and_gradient(sizes, product):
    """The CPU's blocked form and the accelerators' ragged form, with empty and lopsided groups."""
    key = jax.random.key(0)
    x, w = jax.random.normal(key, (sum(sizes), 6)), jax.random.normal(key, (4, 5, 6))
    groups = jnp.asarray(sizes, jnp.int32)
    np.testing.assert_allclose(product(x, w, groups), grouped_dot_reference(x, w, groups), atol=1e-5)

    def loss(f, x, w):
        return jnp.sum(jnp.sin(f(x, w, groups)))

    for ours, want in zip(
        jax.grad(loss, argnums=(1, 2))(product, x, w),
        jax.grad(loss, argnums=(1, 2))(grouped_dot_reference, x, w),
        strict=True,
    ):
        np.testing.assert_allclose(ours, want, atol=1e-4)


@pytest.mark.parametrize(("num_experts", "per_token"), [(8, 2), (8, 8), (40, 3), (2, 1)])
def test_sorted_experts_equal_the_dense_reference_in_value_and_every_gradient(num_experts: int, per_token: int):
    cfg = MoEConfig(num_experts=num_experts, experts_per_token=per_token, expert_dim=10)
    params = init(experts_specs(cfg, D, 0.3), jax.random.key(0), "float32")
    x = jax.random.normal(jax.random.key(1), (37, D))
    router = jax.random.normal(jax.random.key(2), (num_experts, D))

    def loss(form, params, router, x):
        weights, chosen = top_k(x @ router.T, per_token)
        return jnp.sum(jnp.sin(form(params, x, weights, chosen, jax.nn.silu)))

    value, grads = jax.value_and_grad(loss, argnums=(1, 2, 3))(experts, params, router, x)
    want, want_grads = jax.value_and_grad(loss, argnums=(1, 2, 3))(experts_reference, params, router, x)
    np.testing.assert_allclose(value, want, rtol=1e-5)
    for ours, reference in zip(jax.tree.leaves(grads), jax.tree.leaves(want_grads), strict=True):
        np.testing.assert_allclose(ours, reference, atol=1e-4)


def test_every_token_is_served_even_when_all_choose_the_same_expert():
    cfg = MoEConfig(num_experts=16, experts_per_token=1, expert_dim=10)
    params = init(experts_specs(cfg, D, 0.3), jax.random.key(0), "float32")
    x = jax.random.normal(jax.random.key(1), (200, D))
    ones, same = jnp.ones((200, 1)), jnp.full((200, 1), 11)
    out = experts(params, x, ones, same, jax.nn.silu)
    np.testing.assert_allclose(out, experts_reference(params, x, ones, same, jax.nn.silu), atol=1e-5)
    assert (np.abs(out).max(axis=1) > 0).all()


def test_the_weights_of_the_chosen_experts_sum_to_one_in_order_of_probability():
    weights, chosen = top_k(jnp.asarray([[0.0, 2.0, 1.0, -1.0]]), 2)
    np.testing.assert_array_equal(chosen, [[1, 2]])
    np.testing.assert_allclose(weights, [[1 / (1 + np.e**-1), 1 / (1 + np.e)]], rtol=1e-6)


def test_expert_parallel_sharding_changes_no_value_and_no_gradient():
    """Parameters spread over 4 and 8 devices by the table's own rules, compiled by GSPMD."""
    from ornith_jax.sharding import make_mesh, shardings

    cfg = MoEConfig(num_experts=8, experts_per_token=2, expert_dim=8, shared_dim=8)
    table = moe_specs(cfg, 16, 0.3)
    params = init(table, jax.random.key(0), "float32")
    x = jax.random.normal(jax.random.key(1), (2, 24, 16))

    def loss(params, x):
        return jnp.sum(jnp.sin(moe(params, x, full_context(jnp.ones(x.shape[:2], jnp.int32)), cfg, jax.nn.silu)[0]))

    want, want_grads = jax.value_and_grad(loss, argnums=(0, 1))(params, x)
    for sizes in ({"expert": 4, "fsdp": 2}, {"expert": 8}):
        placed = jax.device_put(params, shardings(table, make_mesh(sizes)))
        assert placed["experts"]["down"].sharding.spec[0] == "expert"
        value, grads = jax.jit(jax.value_and_grad(loss, argnums=(0, 1)))(placed, x)
        np.testing.assert_allclose(value, want, rtol=1e-5)
        for name, reference in flatten(want_grads[0]).items():
            np.testing.assert_allclose(flatten(grads[0])[name], reference, atol=1e-4, err_msg=name)
        np.testing.assert_allclose(grads[1], want_grads[1], atol=1e-4)
