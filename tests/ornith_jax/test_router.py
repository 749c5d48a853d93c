"""The three kinds of router, and the load of the experts, in whole tiny models."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from ornith_jax.errors import OrnithError
from ornith_jax.models import decoder
from ornith_jax.nn.moe import ROUTER, expert_load, top_k
from ornith_jax.params import abstract, flatten
from ornith_jax.sharding import batch_shardings
from tests.ornith_jax import meshes

MIXTURES = ["tiny-qwen3.5-moe", "tiny-gemma4-moe"]


def different_experts(cfg) -> np.ndarray:
    """[B, T, L, X]: distinct experts per token and layer, which no trained router would have chosen."""
    rng = np.random.default_rng(3)
    scores = rng.random((meshes.B, meshes.T, cfg.num_layers, cfg.moe.num_experts))
    return np.argsort(scores, axis=-1)[..., : cfg.moe.experts_per_token].astype(np.int32)


@pytest.mark.parametrize("name", MIXTURES)
def test_a_frozen_router_has_gradient_exactly_zero_and_no_other_gradient_changes(name: str):
    cfg = meshes.config(name)
    params, _, _, trained = meshes.on_one_device(name)
    _, grads = meshes.step(cfg, router="frozen")(params, *map(jnp.asarray, meshes.batch(cfg)))
    frozen = {key for key in trained if key.rsplit("/", 1)[-1] in ROUTER}
    assert len(frozen) == len(cfg.period) * (1 if cfg.family == "qwen3_5" else 2)
    for key, grad in flatten(grads).items():
        if key in frozen:
            assert np.abs(trained[key]).max() > 0, key
            np.testing.assert_array_equal(grad, 0.0, err_msg=key)
        else:
            assert np.linalg.norm(grad - trained[key]) <= 1e-6 * np.linalg.norm(trained[key]), key


@pytest.mark.parametrize("name", MIXTURES)
def test_a_replayed_router_uses_the_given_experts_in_the_right_layers_and_its_own_where_none_are_known(name: str):
    cfg = meshes.config(name)
    params, own_loss, own_load, _ = meshes.on_one_device(name)
    token_ids, segment_ids = map(jnp.asarray, meshes.batch(cfg))
    run = jax.jit(
        lambda given: meshes.loss_and_load(params, cfg, token_ids, segment_ids, router="replayed", routed_experts=given)
    )
    given = different_experts(cfg)
    loss, load = run(jnp.full_like(given, -1))
    assert float(loss) == pytest.approx(own_loss, abs=1e-6)
    np.testing.assert_array_equal(load, own_load)
    loss, load = run(jnp.asarray(given))
    assert abs(float(loss) - own_loss) > 1e-3
    real = given[np.asarray(segment_ids) > 0]  # [tokens, L, X]
    for layer in range(cfg.num_layers):
        np.testing.assert_array_equal(load[layer], np.bincount(real[:, layer].ravel(), minlength=8), err_msg=str(layer))


@pytest.mark.parametrize("sizes", [{"expert": 2, "context": 2, "tensor": 2}], ids=meshes.name_of)
def test_a_mesh_replays_the_same_experts_in_bfloat16_and_with_recomputation(sizes):
    """Expert, context and tensor at once. The sums of one device round otherwise, by up to 5% of a gradient here; a
    missing sum over the mesh is 20% and more (float32, to 1e-4: test_meshes_moe)."""
    name = "tiny-qwen3.5-moe"
    cfg, given = meshes.config(name), different_experts(meshes.config(name))
    mesh, params, data = meshes.placed(name, sizes)
    options = {"dtype": "bfloat16", "remat": "full", "router": "replayed"}
    spread = jax.device_put(given, batch_shardings(mesh))
    (loss, load), grads = meshes.step(cfg, mesh=mesh, routed_experts=spread, **options)(params, *data)
    one = meshes.step(cfg, routed_experts=jnp.asarray(given), **options)
    (want_loss, want_load), want = one(meshes.on_one_device(name)[0], *map(jnp.asarray, meshes.batch(cfg)))
    np.testing.assert_array_equal(load, want_load)
    assert float(loss) == pytest.approx(float(want_loss), abs=0.02)
    for key, grad in flatten(grads).items():
        reference = np.asarray(flatten(want)[key])
        assert np.linalg.norm(np.asarray(grad) - reference) <= 0.1 * np.linalg.norm(reference), key


def test_replayed_weights_are_the_present_probabilities_of_the_given_experts():
    logits = jnp.asarray([[1.0, 3.0, 2.0, 0.0], [1.0, 3.0, 2.0, 0.0], [1.0, 3.0, 2.0, 0.0]])
    given = jnp.asarray([[3, 0], [1, 2], [3, -1]])
    weights, experts = top_k(logits, 2, given)
    own_weights, own_experts = top_k(logits, 2)
    np.testing.assert_array_equal(experts, [[3, 0], [1, 2], [1, 2]])
    np.testing.assert_allclose(weights[0], [1 / (1 + np.e), np.e / (1 + np.e)], rtol=1e-6)
    np.testing.assert_array_equal(weights[1:], own_weights[1:])  # its own choice, given or not: the same bits
    np.testing.assert_array_equal(experts[1:], own_experts[1:])
    grad = jax.grad(lambda x: top_k(x, 2, given)[0][0, 0])(logits)
    assert grad[0, 3] > 0 > grad[0, 0]
    assert float(jnp.abs(grad[1:]).max()) == 0.0


def test_the_load_counts_tokens_per_expert_and_no_pads():
    chosen = jnp.asarray([[[0, 2], [2, 1], [2, 1]]])
    np.testing.assert_array_equal(expert_load(chosen, jnp.asarray([[True, True, False]]), 4), [1.0, 1.0, 2.0, 0.0])


def test_a_replayed_router_without_experts_is_refused_and_a_dense_model_has_no_load():
    ids = jnp.ones((2, 8), jnp.int32)
    params, *_ = meshes.on_one_device(MIXTURES[0])
    with pytest.raises(OrnithError, match="needs routed_experts"):
        decoder.forward(params, meshes.config(MIXTURES[0]), ids, router="replayed")
    cfg = meshes.config("tiny-gemma4")
    params = abstract(decoder.table(cfg), "float32")
    shapes = jax.eval_shape(lambda p: decoder.forward_with_load(p, cfg, ids, router="frozen"), params)
    assert shapes[1] is None
