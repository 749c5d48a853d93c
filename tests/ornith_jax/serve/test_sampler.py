"""The sampler draws from, and scores under, exactly the truncated distribution of the slow reference."""

from dataclasses import replace

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from ornith_jax.serve.sampler import Knobs, draw, sample, truncate, uniform
from rollout.types import Sampling
from tests.reference.sampling import behavior_logprobs, is_borderline

ALL = Sampling(max_new_tokens=1)
CUTS = [
    {},
    {"top_p": 0.6},
    {"top_k": 7},
    {"top_k": 1},
    {"min_p": 0.05},
    {"top_p": 0.9, "top_k": 40, "min_p": 0.01, "temperature": 0.6},
    {"temperature": 1.7, "top_p": 0.95},
]


def knobs(samplings: list[Sampling], seeds: np.ndarray) -> Knobs:
    def field(name: str, dtype: type) -> jax.Array:
        return jnp.array([getattr(s, name) for s in samplings], dtype)

    floats = (field(name, np.float32) for name in ("temperature", "top_p"))
    return Knobs(*floats, field("top_k", np.int32), field("min_p", np.float32), jnp.asarray(seeds, jnp.uint32))


def seeds(rows: int) -> np.ndarray:
    return np.random.default_rng(1).integers(0, 2**32, (rows, 2))


@pytest.mark.parametrize("vocab", [1, 63, 1000])
def test_the_logprob_is_that_of_the_distribution_that_was_sampled_from(vocab: int):
    """Rows with different cuts in one batch; those without are not touched by those with."""
    samplings = [replace(ALL, **{"top_k": 0, **cut}) for cut in CUTS for _ in range(8)]
    logits = np.random.default_rng(0).normal(0, 3, (len(samplings), vocab)).astype(np.float32)
    token, logprob = jax.jit(sample)(logits, knobs(samplings, seeds(len(samplings))), jnp.arange(len(samplings)))
    checked = 0
    for row, sampling in enumerate(samplings):
        if vocab > 1 and is_borderline(logits[row : row + 1].astype(np.float64), sampling, 1e-6)[0]:
            continue
        expected = behavior_logprobs(logits[row : row + 1].astype(np.float64), sampling)[0]
        np.testing.assert_allclose(logprob[row], expected[token[row]], atol=1e-5)
        checked += 1
    assert checked > 0.8 * len(samplings)


def test_what_is_cut_is_what_the_reference_cuts():
    samplings = [replace(ALL, **{**cut, "temperature": 1.0}) for cut in CUTS[1:]]
    logits = np.random.default_rng(2).normal(0, 2, (len(samplings), 500)).astype(np.float32)
    got = np.asarray(truncate(jax.nn.log_softmax(logits), knobs(samplings, seeds(len(samplings)))))
    for row, sampling in enumerate(samplings):
        np.testing.assert_allclose(got[row], behavior_logprobs(logits[row : row + 1], sampling)[0], atol=1e-5)


def test_equal_tokens_share_a_fate():
    logits = jnp.log(jnp.array([[0.4, 0.2, 0.2, 0.1, 0.1]]))
    kept = np.isfinite(truncate(logits, knobs([replace(ALL, top_k=2)], seeds(1))))
    assert kept.tolist() == [[True, True, True, False, False]]


def test_tokens_come_as_often_as_they_should_and_impossible_ones_never():
    probs = np.random.default_rng(3).dirichlet(np.full(150, 0.3)).astype(np.float32)
    probs[::7] = 0
    probs /= probs.sum()
    N = 50_000
    seed = jnp.broadcast_to(jnp.array([3, 4], jnp.uint32), (N, 2))
    tokens = jax.jit(draw)(jnp.broadcast_to(probs, (N, 150)), uniform(seed, jnp.arange(N)))
    counts = np.bincount(np.asarray(tokens), minlength=150)
    assert (counts[probs == 0] == 0).all()
    sigma = np.sqrt(N * probs * (1 - probs)) + 1
    assert (np.abs(counts - N * probs) < 4.5 * sigma).all()
    chi2 = ((counts - N * probs) ** 2 / np.maximum(N * probs, 1e-9))[N * probs > 5]
    assert chi2.sum() < len(chi2) + 5 * np.sqrt(2 * len(chi2))


def test_a_row_draws_from_its_own_seed_and_position_alone():
    logits = np.random.default_rng(4).normal(0, 1, (6, 300)).astype(np.float32)
    logits[:] = logits[0]
    own = seeds(6)
    own[1] = own[0]
    position = jnp.array([5, 5, 5, 6, 7, 8])
    token, logprob = sample(jnp.asarray(logits), knobs([ALL] * 6, own), position)
    assert token[0] == token[1]
    assert len(set(np.asarray(token[1:]).tolist())) > 2
    order = np.array([5, 4, 3, 2, 1, 0])
    again, scored = sample(jnp.asarray(logits[order]), knobs([ALL] * 6, own[order]), position[order])
    np.testing.assert_array_equal(again, token[order])
    np.testing.assert_array_equal(scored, logprob[order])


def test_temperature_zero_takes_the_best_and_scores_it_untruncated():
    logits = np.random.default_rng(5).normal(0, 2, (3, 100)).astype(np.float32)
    greedy = replace(ALL, temperature=0.0, top_k=3, top_p=0.5)
    token, logprob = sample(jnp.asarray(logits), knobs([greedy, ALL, greedy], seeds(3)), jnp.arange(3))
    for row in (0, 2):
        assert token[row] == logits[row].argmax()
        np.testing.assert_allclose(logprob[row], jax.nn.log_softmax(logits[row]).max(), atol=1e-6)
