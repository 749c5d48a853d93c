"""Packing: nothing mixes, nothing is lost, and a real model's loss does not notice."""

from __future__ import annotations

import random
from dataclasses import replace

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from ornith_jax.errors import OrnithError
from ornith_jax.experiment import LossSettings
from ornith_jax.models.decoder import forward, table
from ornith_jax.models.named import TINY_GEMMA, TINY_QWEN
from ornith_jax.params import flatten, init
from ornith_jax.rl.logprobs import token_logprobs
from ornith_jax.rl.loss import policy_loss
from ornith_jax.rl.metrics import merge, metrics
from ornith_jax.rl.pack import pack
from ornith_jax.rl.types import Batch, Sample


def sample(rng: np.random.Generator, length: int, experts: bool = False, vocab_size: int = 200) -> Sample:
    loss_mask = rng.random(length) < 0.6
    loss_mask[0] = False
    return Sample(
        token_ids=rng.integers(3, vocab_size, length).astype(np.int32),
        loss_mask=loss_mask,
        behavior_logprobs=-rng.random(length).astype(np.float32),
        token_versions=rng.integers(0, 6, length).astype(np.int32),
        advantage=float(rng.normal()),
        routed_experts=rng.integers(0, 8, (length, 2, 3)).astype(np.int32) if experts else None,
    )


def segments(batch: Batch):
    """Every segment of [A, B, T] arrays as a dict of its own pieces."""
    names = [name for name in batch.__dataclass_fields__ if getattr(batch, name) is not None]
    for a, b in np.ndindex(batch.segment_ids.shape[:2]):
        row = batch.segment_ids[a, b]
        for segment in range(1, row.max() + 1):
            (where,) = np.nonzero(row == segment)
            assert (np.diff(where) == 1).all()
            yield {name: getattr(batch, name)[a, b, where] for name in names}


def test_random_packings_mix_and_lose_nothing():
    """200 draws: every sample comes back whole, once, and the rest is padding."""
    rng = random.Random(0)
    for seed in range(200):
        draw = np.random.default_rng(seed)
        seq_len, rows, accumulation = rng.randint(8, 40), rng.randint(1, 4), rng.randint(1, 3)
        lengths = [rng.randint(1, seq_len) for _ in range(rng.randint(1, 20))]
        samples = [sample(draw, n, seed % 2 == 0, vocab_size=2**30) for n in lengths]  # so that ids tell them apart
        packed = pack(samples, rows=rows, seq_len=seq_len, accumulation=accumulation)
        batch = packed.batch
        A, B, T = batch.token_ids.shape
        assert (A % accumulation, B, T) == (0, rows, seq_len)
        assert packed.trained_tokens == sum(int(s.loss_mask.sum()) for s in samples) == batch.loss_mask.sum()
        assert packed.fill == pytest.approx(sum(len(s.token_ids) for s in samples) / (A * B * T))
        waiting = {s.token_ids.tobytes(): s for s in samples}
        for piece in segments(batch):
            own = waiting.pop(piece["token_ids"].tobytes())
            assert piece["positions"].tolist() == list(range(len(own.token_ids)))
            np.testing.assert_array_equal(piece["loss_mask"], own.loss_mask)
            np.testing.assert_array_equal(piece["behavior_logprobs"], own.behavior_logprobs * own.loss_mask)
            np.testing.assert_array_equal(piece["token_versions"], own.token_versions * own.loss_mask)
            np.testing.assert_array_equal(piece["advantages"], np.float32(own.advantage))
            if own.routed_experts is not None:
                np.testing.assert_array_equal(piece["routed_experts"], own.routed_experts)
        assert not waiting
        padding = batch.segment_ids == 0
        assert not any(getattr(batch, name)[padding].any() for name in ("token_ids", "loss_mask", "advantages"))


def test_rows_are_well_filled_and_the_same_every_time():
    """Lengths as of episodes (log-normal): best fit leaves less than 5 % of the rows it opens empty."""
    draw = np.random.default_rng(0)
    lengths = np.clip(draw.lognormal(5.5, 0.8, 300), 8, 2048).astype(int)
    samples = [sample(draw, int(n)) for n in lengths]
    packed = pack(samples, rows=1, seq_len=2048)
    opened = (packed.batch.segment_ids > 0)[(packed.batch.segment_ids > 0).any(-1)]
    assert opened.mean() > 0.95
    again = pack(samples, rows=1, seq_len=2048)
    jax.tree.map(np.testing.assert_array_equal, packed.batch, again.batch)


def test_micro_batches_share_the_rows_evenly():
    draw = np.random.default_rng(0)
    packed = pack([sample(draw, 10) for _ in range(5)], rows=4, seq_len=10, accumulation=2)
    assert packed.batch.token_ids.shape == (2, 4, 10)
    assert (packed.batch.segment_ids > 0).any(axis=2).sum(axis=1).tolist() == [3, 2]


def test_the_number_of_micro_batches_takes_few_values_and_is_never_much_too_large():
    draw = np.random.default_rng(0)
    counts = [len(pack([sample(draw, 10)] * n, rows=1, seq_len=10).batch.token_ids) for n in range(1, 65)]
    assert all(n <= count <= 1.25 * n for n, count in enumerate(counts, 1))
    assert len(set(counts)) == 8 + 3 * 4


def test_bad_samples_are_refused():
    good = sample(np.random.default_rng(0), 6)
    with pytest.raises(OrnithError, match=r"sample 1 has 6 tokens, a row holds 1 to 5; raise train.seq_len"):
        pack([replace(good, token_ids=good.token_ids[:5]), good], rows=1, seq_len=5)
    with pytest.raises(OrnithError, match="sample 0: loss_mask is set on its first token"):
        pack([replace(good, loss_mask=np.ones(6, bool))], rows=1, seq_len=8)
    with pytest.raises(OrnithError, match="no samples to pack"):
        pack([], rows=1, seq_len=8)
    experts = np.zeros((6, 2, 3), np.int32)
    with pytest.raises(OrnithError, match="disagree on the shape of routed_experts"):
        pack([replace(good, routed_experts=e) for e in (experts, experts[:, :1])], rows=1, seq_len=12)


VERSION = 5
SETTINGS = LossSettings(k1=1, k2=4, entropy=0.1, chunk_tokens=16)


def make_loss(cfg):
    def loss(params, batch, denominator):
        hidden = forward(params, cfg, batch.token_ids, segment_ids_BT=batch.segment_ids, positions_BT=batch.positions)
        logprobs, entropy = token_logprobs(
            params, cfg, hidden, batch.token_ids, batch.segment_ids, chunk_tokens=SETTINGS.chunk_tokens
        )
        total, sums = policy_loss(logprobs, entropy, batch, VERSION, SETTINGS, denominator)
        return total, (sums, logprobs)

    return jax.jit(jax.value_and_grad(loss, has_aux=True))


@pytest.mark.parametrize(
    "cfg", [replace(TINY_QWEN, num_layers=4), replace(TINY_GEMMA, num_layers=6)], ids=lambda cfg: cfg.family
)
def test_packing_changes_no_number_of_a_real_model(cfg):
    """One sample per row, in micro-batches, against two packed rows: loss, gradients and metrics."""
    draw = np.random.default_rng(3)
    samples = [sample(draw, n) for n in (11, 30, 7, 18, 25)]
    params = init(table(cfg), jax.random.key(0), "float32")
    packed = pack(samples, rows=3, seq_len=32)
    assert packed.batch.segment_ids.max() == 2
    loss = make_loss(cfg)
    first = jax.tree.map(lambda x: jnp.asarray(x[0]), packed.batch)
    (value, (sums, logprobs)), grads = loss(params, first, float(packed.trained_tokens))

    alone, merged, summed = 0.0, None, None
    for one in samples:
        batch = jax.tree.map(lambda x: jnp.asarray(x[0]), pack([one], rows=3, seq_len=32).batch)
        (part, (more, _)), gradient = loss(params, batch, float(packed.trained_tokens))
        alone += float(part)
        merged = more if merged is None else merge(merged, more)
        summed = gradient if summed is None else jax.tree.map(jnp.add, summed, gradient)
    np.testing.assert_allclose(alone, value, rtol=1e-5)
    for name, wanted in flatten(grads).items():
        scale = float(jnp.abs(wanted).max())
        np.testing.assert_allclose(flatten(summed)[name], wanted, atol=1e-4 * scale + 1e-9, err_msg=name)
    for name, wanted in metrics(jax.device_get(sums)).items():
        assert metrics(jax.device_get(merged))[name] == pytest.approx(wanted, rel=1e-4), name

    own = first.replace(behavior_logprobs=logprobs, token_versions=first.token_versions * 0 + VERSION)
    _, (sums, _) = loss(params, own, 1.0)[0]
    at_lag_0 = metrics(jax.device_get(sums))
    assert at_lag_0["ratio/mean"] == pytest.approx(1.0, abs=1e-6)
    assert at_lag_0["ratio/max"] == pytest.approx(1.0, abs=1e-6)
    assert at_lag_0["kl/engine_fresh"] == pytest.approx(0.0, abs=1e-9)
    assert at_lag_0["clip/low"] == at_lag_0["clip/high"] == 0
