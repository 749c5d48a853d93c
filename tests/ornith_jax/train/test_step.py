"""The train step: micro-batches, the denominator, what is skipped, what stands still, one mesh against one device."""

from dataclasses import replace
from functools import cache, partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import Mesh

from ornith_jax.config import ModelConfig
from ornith_jax.experiment import Experiment
from ornith_jax.models import decoder
from ornith_jax.params import flatten
from ornith_jax.rl.metrics import metrics as policy_metrics
from ornith_jax.sharding import shardings
from ornith_jax.train.likelihood import likelihood_loss, likelihood_metrics
from ornith_jax.train.state import TrainState, abstract_state, init_state, mesh_of
from ornith_jax.train.step import make_gradients, make_step, put_batches
from tests.ornith_jax.train.tiny import DENSE, FIELDS, LENGTH, MOE, ROWS, batches, experiment


def one_device(e: Experiment) -> Mesh:
    return mesh_of(e, jax.devices()[:1])


def copy(tree):
    return jax.tree.map(lambda x: np.array(x, copy=True), tree)


def distance(a, b) -> float:
    """Of two arrays, relative to the norm of the second."""
    a, b = np.asarray(a, np.float64), np.asarray(b, np.float64)
    return float(np.linalg.norm(a - b) / max(np.linalg.norm(b), 1e-12))


@cache
def frozen_step():
    """An update of the small mixture of experts in two micro-batches, with a frozen router and a strong decay."""
    e = experiment(accumulation=2, rows=4)
    e = replace(e, loss=replace(e.loss, router="frozen"), optim=replace(e.optim, weight_decay=0.5, eps=1e-3))
    e = replace(e, sampling=replace(e.sampling, temperature=0.7))
    return e, make_step(MOE, e, one_device(e))


def fresh(e: Experiment, cfg: ModelConfig = MOE) -> TrainState:
    return init_state(cfg, e, one_device(e))


def test_one_batch_of_eight_rows_is_eight_of_one_row():
    """Loss and every gradient to float32 rounding, counts exactly; the micro-batches have unequal numbers of tokens."""
    results = {}
    for accumulation in (1, 8):
        e = experiment(accumulation=accumulation)
        gradients = jax.jit(make_gradients(MOE, e, one_device(e)))
        data = batches(MOE, accumulation)
        results[accumulation] = gradients(fresh(e).params, jnp.int32(2), data)
    counts = batches(MOE, 8).loss_mask.sum((1, 2))
    assert len(set(counts.tolist())) > 3
    (loss, sums, load, grads), (loss1, sums1, load1, grads1) = results[1], results[8]
    assert float(loss) == pytest.approx(float(loss1), abs=1e-6)
    for name in ("tokens", "tokens/live", "tokens/fresh", "clip/low", "clip/high", "staleness"):
        np.testing.assert_array_equal(sums[name], sums1[name], err_msg=name)
    assert float(sums["clip/high"]) > 0
    for name in ("loss", "ratio/sum", "ratio/max", "kl/engine", "entropy"):
        np.testing.assert_allclose(sums[name], sums1[name], rtol=1e-5, atol=1e-5, err_msg=name)
    np.testing.assert_array_equal(load, load1)
    for name, g in flatten(grads).items():
        assert distance(flatten(grads1)[name], g) < 2e-5, name
        assert float(jnp.abs(g).max()) > 0, name


def test_the_likelihood_loss_is_the_mean_over_all_trained_tokens():
    e = experiment(accumulation=2, rows=4)
    data = batches(DENSE, 2)
    params = fresh(e, DENSE).params
    loss, sums, _, _ = jax.jit(make_gradients(DENSE, e, one_device(e), likelihood_loss))(params, jnp.int32(9), data)
    rows = data.replace(**{name: getattr(data, name).reshape(ROWS, LENGTH) for name in FIELDS})
    hidden = decoder.forward(params, DENSE, jnp.asarray(rows.token_ids), segment_ids_BT=jnp.asarray(rows.segment_ids))
    logprobs = np.asarray(jax.nn.log_softmax(decoder.logits(params, DENSE, hidden)))
    total, count = 0.0, 0
    for b, t in zip(*np.nonzero(rows.loss_mask), strict=True):
        assert rows.segment_ids[b, t] == rows.segment_ids[b, t - 1]
        total, count = total - float(logprobs[b, t - 1, rows.token_ids[b, t]]), count + 1
    assert float(loss) == pytest.approx(total / count, rel=1e-5)
    found = likelihood_metrics(jax.device_get(sums))
    assert found["tokens"] == count
    assert found["loss"] == pytest.approx(float(loss), rel=1e-6)
    assert 0 < found["entropy"] <= np.log(DENSE.vocab_size)


def test_a_batch_that_is_not_finite_changes_nothing_and_is_counted():
    e, step = frozen_step()
    state, data = fresh(e), put_batches(batches(MOE, 2), one_device(e))
    state, _ = step(state, data)
    before = copy(state)
    for poison in (np.nan, np.inf):
        bad = np.array(batches(MOE, 2).advantages)
        bad[1, 0, np.flatnonzero(batches(MOE, 2).loss_mask[1, 0])[0]] = poison
        state, found = step(state, put_batches(batches(MOE, 2).replace(advantages=bad), one_device(e)))
        assert not np.isfinite(found["optim/grad_norm"])
    after = copy(state)
    assert (int(after.step), int(after.skipped), int(before.skipped)) == (1, 2, 0)
    for a, b in zip(jax.tree.leaves(after.replace(skipped=0)), jax.tree.leaves(before.replace(skipped=0)), strict=True):
        np.testing.assert_array_equal(a, b)
    state, found = step(state, data)
    assert (int(found["step"]), int(found["optim/skipped"])) == (2, 2)
    assert distance(state.params["lm_head"], before.params["lm_head"]) > 1e-4


def test_a_frozen_router_gets_neither_gradient_nor_decay_and_all_else_moves():
    e, step = frozen_step()
    given = fresh(e)
    before = copy(given.params)
    state, found = step(given, put_batches(batches(MOE, 2), one_device(e)))
    assert all(leaf.is_deleted() for leaf in jax.tree.leaves(given.params)), "the state is donated"
    for name, p in flatten(state.params).items():
        assert np.array_equal(p, flatten(before)[name]) == name.endswith("/router"), name
    assert 1 <= float(found["moe/max_load"]) <= 8
    assert 0 <= float(found["moe/min_load"]) <= 1
    assert 0 < float(found["moe/load_entropy"]) <= 1
    assert float(found["optim/learning_rate"]) == pytest.approx(1e-2)
    norm = np.sqrt(sum(float(np.square(np.float64(p)).sum()) for p in jax.tree.leaves(state.params)))
    assert float(found["optim/param_norm"]) == pytest.approx(norm, rel=1e-5)
    readable = policy_metrics(jax.device_get(found["sums"]))
    assert readable["tokens"] == batches(MOE, 2).loss_mask.sum()
    assert readable["staleness/0"] == 1


def test_an_unchanged_policy_has_the_ratio_one_at_the_temperature_it_was_sampled_with():
    e, step = frozen_step()
    state, data = fresh(e), batches(MOE, 2)
    rows = {name: jnp.asarray(getattr(data, name).reshape(ROWS, LENGTH)) for name in ("token_ids", "segment_ids")}
    hidden = jax.jit(partial(decoder.forward, cfg=MOE))(
        state.params, token_ids_BT=rows["token_ids"], segment_ids_BT=rows["segment_ids"]
    )
    logprobs = jax.nn.log_softmax(decoder.logits(state.params, MOE, hidden) / 0.7)
    behavior = np.zeros((ROWS, LENGTH), np.float32)
    behavior[:, 1:] = jnp.take_along_axis(logprobs[:, :-1], rows["token_ids"][:, 1:, None], axis=-1)[..., 0]
    data = data.replace(behavior_logprobs=behavior.reshape(data.token_ids.shape))
    _, found = step(state, put_batches(data, one_device(e)))
    readable = policy_metrics(jax.device_get(found["sums"]))
    assert readable["ratio/mean"] == pytest.approx(1, abs=1e-6)
    assert readable["ratio/max"] == pytest.approx(1, abs=1e-5)
    assert readable["kl/engine_fresh"] < 1e-10


def test_a_mesh_of_eight_devices_makes_the_step_of_one_and_keeps_every_shard():
    """fsdp 4 x data 2, two updates. eps makes AdamW smooth, so that parameters are compared and not their signs."""
    ends = {}
    for sizes in ({}, {"fsdp": 4, "data": 2}):
        e = experiment(mesh=sizes, accumulation=1)
        e = replace(e, optim=replace(e.optim, eps=1e-2, clip_norm=0.1))
        mesh = mesh_of(e, jax.devices()[: 8 if sizes else 1])
        state, step = init_state(DENSE, e, mesh), make_step(DENSE, e, mesh)
        data = put_batches(batches(DENSE), mesh)
        losses = []
        for _ in range(2):
            state, found = step(state, data)
            losses.append(policy_metrics(jax.device_get(found["sums"]))["loss"])
        ends[len(sizes)] = copy(state), losses, float(found["optim/grad_norm"])
    (one, losses, norm), (many, losses8, norm8) = ends[0], ends[2]
    np.testing.assert_allclose(losses, losses8, rtol=1e-5)
    assert norm8 == pytest.approx(norm, rel=1e-4)
    for (path, a), b in zip(jax.tree_util.tree_leaves_with_path(one), jax.tree.leaves(many), strict=True):
        assert distance(b, a) < 1e-4, path
    wanted = shardings(decoder.table(DENSE), mesh)
    assert "fsdp" in str(wanted["lm_head"].spec)
    for like in (state.params, state.opt_state[1].inner_states["adamw"].inner_state.mu):
        jax.tree.map(lambda x, at: _assert_sharded(x, at), like, wanted)


def _assert_sharded(x, place) -> None:
    assert x.sharding.is_equivalent_to(place, x.ndim)
    if "fsdp" in str(place.spec):
        assert x.addressable_shards[0].data.size == x.size // 4


def test_abstract_state_is_the_state():
    e = experiment(mesh={"fsdp": 2, "data": 2})
    e = replace(e, optim=replace(e.optim, kind="muon"))  # which has AdamW's moments beside its own
    mesh = mesh_of(e, jax.devices()[:4])
    like, real = abstract_state(MOE, e, mesh), init_state(MOE, e, mesh)
    jax.tree.map(_assert_alike, like, real)
    moments = [x for x in jax.tree.leaves(like.opt_state) if x.ndim > 2 and x.size > 1000]
    assert len(moments) > 10
    assert all("fsdp" in str(x.sharding.spec) for x in moments)


def _assert_alike(a, b) -> None:
    assert (a.shape, a.dtype) == (b.shape, b.dtype)
    assert b.sharding.is_equivalent_to(a.sharding, b.ndim)
