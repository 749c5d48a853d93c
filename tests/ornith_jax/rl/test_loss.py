"""The loss against hand-worked numbers and the token-by-token reference, for every objective."""

from __future__ import annotations

from dataclasses import replace

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from ornith_jax.errors import OrnithError
from ornith_jax.experiment import LossSettings
from ornith_jax.rl.loss import policy_loss
from ornith_jax.rl.metrics import merge, metrics
from ornith_jax.rl.objectives import OBJECTIVES
from ornith_jax.rl.staleness import check_staleness, staleness_weight
from ornith_jax.rl.types import Batch
from tests.reference import objective as reference

SETTINGS = LossSettings(k1=1, k2=4, decay=0.5, band_low=0.9, band_high=1.1)
VERSION = 10
loss_and_grad = jax.jit(jax.value_and_grad(policy_loss, has_aux=True), static_argnums=4)


def batch_of(arrays: dict[str, np.ndarray]) -> Batch:
    integers = ("token_ids", "segment_ids", "positions", "token_versions")
    return Batch(**{k: jnp.asarray(v, jnp.int32 if k in integers else jnp.float32) for k, v in arrays.items()})


def one_token(ratio: float, advantage: float, staleness: int, mask: float = 1.0) -> tuple[jax.Array, Batch]:
    """A row of an untrained token and the one in question."""
    fill = {name: [[0, 0]] for name in ("token_ids", "positions")}
    batch = batch_of(
        fill
        | {
            "segment_ids": [[1, 1]],
            "loss_mask": [[0, mask]],
            "behavior_logprobs": [[0, -2.0]],
            "advantages": [[advantage] * 2],
            "token_versions": [[0, VERSION - staleness]],
        }
    )
    return jnp.array([[0.0, -2.0 + np.log(ratio)]], jnp.float32), batch


WEIGHTS = {0: 1.0, 1: 1.0, 2: 0.6065306597, 4: 0.2231301601, 5: 0.0, 9: 0.0}  # e^-0.5, e^-1.5
HAND = [  # ratio, advantage, objective before the weight, derivative by log p, which side is cut
    (1.0, 2.0, 2.0, 2.0, ""),
    (1.2, 2.0, 2.4, 2.4, ""),
    (1.5, 2.0, 2.56, 0.0, "high"),  # stops at 1.28
    (1.5, -2.0, -3.0, -3.0, ""),  # a bad token that became likelier: the gradient stays
    (0.9, -2.0, -1.8, -1.8, ""),
    (0.5, -2.0, -1.6, 0.0, "low"),  # stops at 0.8
    (0.5, 2.0, 1.0, 1.0, ""),
    (1.5, 0.0, 0.0, 0.0, ""),
]


@pytest.mark.parametrize("staleness", WEIGHTS)
@pytest.mark.parametrize(("ratio", "advantage", "value", "slope", "side"), HAND)
def test_grpo_by_hand(ratio, advantage, value, slope, side, staleness):
    logprobs, batch = one_token(ratio, advantage, staleness)
    (loss, sums), gradient = loss_and_grad(logprobs, logprobs * 0, batch, VERSION, SETTINGS, 4.0)
    weight = WEIGHTS[staleness]
    np.testing.assert_allclose(loss, -value * weight / 4, rtol=1e-5, atol=1e-7)
    np.testing.assert_allclose(gradient, [[0, -slope * weight / 4]], rtol=1e-5, atol=1e-7)
    assert float(sums["clip/low"]) == float(side == "low" and weight > 0)
    assert float(sums["clip/high"]) == float(side == "high" and weight > 0)
    assert np.argmax(sums["staleness"]) == min(staleness, SETTINGS.k2 + 1)


@pytest.mark.parametrize("kind", sorted(OBJECTIVES))
@pytest.mark.parametrize("logprob", [-1e4, -np.inf, np.nan])
@pytest.mark.parametrize("dead", ["masked", "beyond k2"])
def test_a_token_that_does_not_count_gives_exactly_nothing(kind: str, logprob: float, dead: str):
    """Whatever the learner thinks of it: no value, no gradient, no NaN."""
    logprobs, batch = one_token(1.0, 1.0, 0 if dead == "masked" else SETTINGS.k2 + 1, mask=float(dead != "masked"))
    logprobs = logprobs.at[0, 1].set(logprob)
    settings = replace(SETTINGS, kind=kind, kl=0.1)
    batch = batch.replace(ref_logprobs=jnp.zeros((1, 2)))
    (loss, sums), gradient = loss_and_grad(logprobs, logprobs * 0, batch, VERSION, settings, 1.0)
    assert float(loss) == 0
    assert (np.asarray(gradient) == 0).all()
    assert all(np.isfinite(value).all() for value in jax.tree.leaves(sums))


def random_batch(seed: int, rows: int = 3, T: int = 24):
    """Rows of three segments of uneven length and padding: every sign of A, ratios on all sides, every age."""
    rng = np.random.default_rng(seed)
    cuts = np.sort(rng.integers(1, T, (rows, 3)), axis=1)
    segment_ids = 1 + (np.arange(T) >= cuts[:, :1]) + (np.arange(T) >= cuts[:, 1:2])
    segment_ids[np.arange(T) >= cuts[:, 2:]] = 0
    logprobs = -rng.exponential(1.5, (rows, T)).astype(np.float32)
    per_segment = rng.normal(0, 0.1, (rows, 4))[np.arange(rows)[:, None], segment_ids]
    arrays = {
        "token_ids": rng.integers(0, 9, (rows, T)),
        "segment_ids": segment_ids,
        "positions": np.zeros((rows, T)),
        "loss_mask": (rng.random((rows, T)) < 0.8) & (segment_ids > 0),
        "behavior_logprobs": logprobs - per_segment - rng.normal(0, 0.3, (rows, T)),
        "advantages": rng.choice([-1.5, -0.25, 0.0, 0.5, 2.0], (rows, T)),
        "token_versions": VERSION - rng.integers(0, 7, (rows, T)),
        "ref_logprobs": logprobs + rng.normal(0, 0.3, (rows, T)),
    }
    return logprobs, rng.random((rows, T)).astype(np.float32), arrays


@pytest.mark.parametrize("kind", sorted(OBJECTIVES))
@pytest.mark.parametrize("terms", [{}, {"kl": 0.3, "entropy": 0.2}], ids=["plain", "terms"])
def test_every_objective_equals_the_reference(kind: str, terms: dict[str, float]):
    settings = replace(SETTINGS, kind=kind, **terms)
    for seed in range(4):
        logprobs, entropy, arrays = random_batch(seed)
        batch = batch_of(arrays)
        (loss, _), gradient = loss_and_grad(jnp.array(logprobs), jnp.array(entropy), batch, VERSION, settings, 17.0)
        lists = {name: np.asarray(getattr(batch, name), np.float64).tolist() for name in arrays}
        wanted, slopes = reference.loss(logprobs.tolist(), entropy.tolist(), lists, VERSION, settings, 17.0)
        np.testing.assert_allclose(loss, wanted, rtol=1e-4, atol=1e-6)
        np.testing.assert_allclose(gradient, slopes, rtol=1e-4, atol=1e-6)
        assert np.abs(slopes).max() > 1e-3


@pytest.mark.parametrize("kind", sorted(OBJECTIVES))
def test_one_batch_of_eight_rows_is_eight_of_one(kind: str):
    settings = replace(SETTINGS, kind=kind)
    logprobs, entropy, arrays = random_batch(7, rows=8)
    arrays.pop("ref_logprobs")
    (loss, sums), gradient = loss_and_grad(
        jnp.array(logprobs), jnp.array(entropy), batch_of(arrays), VERSION, settings, 99.0
    )
    total, merged, gradients = 0.0, None, []
    for b in range(8):
        one = batch_of({name: value[b : b + 1] for name, value in arrays.items()})
        (part, more), rows = loss_and_grad(
            jnp.array(logprobs[b : b + 1]), jnp.array(entropy[b : b + 1]), one, VERSION, settings, 99.0
        )
        total, merged = total + part, more if merged is None else merge(merged, more)
        gradients.append(rows[0])
    np.testing.assert_allclose(total, loss, rtol=1e-5)
    np.testing.assert_allclose(gradients, gradient, rtol=1e-6)
    assert merged.keys() == sums.keys()
    for name, value in sums.items():
        np.testing.assert_allclose(merged[name], value, rtol=1e-5, err_msg=name)


def test_metrics_by_hand():
    """Four trained tokens: ratios 1 (fresh), 2 and 0.5 (d = 2), and one beyond k2; two pads."""
    logprobs = jnp.log(jnp.array([[1.0, 2.0, 0.5, 8.0, 1.0, 1.0]])) - 1.0
    arrays = {name: np.zeros((1, 6)) for name in ("token_ids", "positions")}
    arrays |= {
        "segment_ids": [[1, 1, 1, 1, 0, 0]],
        "loss_mask": [[1, 1, 1, 1, 0, 0]],
        "behavior_logprobs": [[-1.0] * 6],
        "advantages": [[1.0] * 6],
        "token_versions": [[10, 8, 8, 5, 0, 0]],
    }
    entropy = jnp.array([[0.1, 0.2, 0.3, 9.0, 9.0, 9.0]])
    _, sums = policy_loss(logprobs, entropy, batch_of(arrays), VERSION, SETTINGS, 4.0)
    found = metrics(jax.device_get(sums))
    k3 = [0.0, 2 - np.log(2) - 1, 0.5 + np.log(2) - 1]
    wanted = {
        "tokens": 4,
        "ratio/mean": 3.5 / 3,
        "ratio/max": 2.0,
        "ratio/ess": 3.5**2 / (3 * 5.25),
        "clip/low": 0.0,
        "clip/high": 1 / 3,
        "kl/engine": sum(k3) / 3,
        "kl/engine_fresh": 0.0,
        "entropy": 0.2,
        "weight": (1 + 2 * np.exp(-0.5)) / 3,
        "loss": -(1 + (1.28 + 0.5) * np.exp(-0.5)) / 4,
    }
    shares = {"0": 0.25, "1": 0.0, "2": 0.5, "3": 0.0, "4": 0.0, "beyond": 0.25}
    wanted |= {f"staleness/{d}": share for d, share in shares.items()}
    assert found.keys() == wanted.keys()
    for name, value in wanted.items():
        assert found[name] == pytest.approx(value, abs=1e-6), name


def test_a_kl_term_without_a_reference_is_refused():
    logprobs, batch = one_token(1.0, 1.0, 0)
    with pytest.raises(OrnithError, match="the batch has no ref_logprobs"):
        policy_loss(logprobs, logprobs, batch, VERSION, replace(SETTINGS, kl=0.1), 1.0)


def test_the_weight_is_exactly_one_then_falls_then_is_exactly_zero():
    found = staleness_weight(jnp.arange(7), SETTINGS)
    assert found.dtype == jnp.float32
    assert found[:2].tolist() == [1.0, 1.0]
    np.testing.assert_allclose(found[2:5], np.exp(-0.5 * np.array([1, 2, 3])), rtol=1e-6)
    assert found[5:].tolist() == [0.0, 0.0]


def test_versions_that_cannot_be_are_refused():
    mask = np.array([False, True, True])
    assert check_staleness(np.array([99, 3, 5]), mask, 5, "g/0/1").tolist() == [2, 0]
    with pytest.raises(OrnithError, match="g/0/1: a token of policy version 6, but the learner is at 5"):
        check_staleness(np.array([0, 3, 6]), mask, 5, "g/0/1")
    with pytest.raises(OrnithError, match="g/0/1: a trained token has policy version -1"):
        check_staleness(np.array([0, -1, 3]), mask, 5, "g/0/1")
