"""Log-probabilities in blocks of the vocabulary: the numbers and gradients of the definition, without its memory."""

from __future__ import annotations

from dataclasses import replace

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import NamedSharding, PartitionSpec

from ornith_jax.models.named import TINY_GEMMA, TINY_QWEN
from ornith_jax.rl.logprobs import Head, next_token, token_logprobs
from ornith_jax.sharding import make_mesh
from tests.reference import logprobs as reference

B, T, D = 2, 12, 16


def draw(V: int, scale: float = 1.0, dtype: str = "float32"):
    keys = jax.random.split(jax.random.key(V), 4)
    hidden = jax.random.normal(keys[0], (B, T, D), dtype) * jnp.asarray(scale, dtype)
    head = jax.random.normal(keys[1], (V, D), dtype)
    return hidden, head, jax.random.randint(keys[2], (B, T), 0, V), jax.random.normal(keys[3], (2, B, T))


def value_and_grads(function, hidden, head, next_ids, cotangents):
    def total(hidden, head):
        found = function(hidden, head, next_ids)
        return sum((c * x).sum() for c, x in zip(cotangents, found, strict=True)), found

    (_, found), grads = jax.jit(jax.value_and_grad(total, argnums=(0, 1), has_aux=True))(hidden, head)
    return (*found, *grads)


@pytest.mark.parametrize(("V", "blocks"), [(64, 1), (64, 8), (61, 8), (5, 5)])
@pytest.mark.parametrize(("softcap", "temperature"), [(None, 1.0), (3.0, 1.0), (None, 0.6), (3.0, 1.7)])
def test_blocks_equal_the_definition_in_value_and_gradient(
    V: int, blocks: int, softcap: float | None, temperature: float
):
    """Also where the blocks do not divide the vocabulary, and for the gradients of entropy."""
    inputs, head = draw(V), Head(softcap, True, blocks, temperature)
    found = value_and_grads(lambda h, w, i: next_token(h, w, i, head), *inputs)
    wanted = value_and_grads(lambda h, w, i: reference.next_token(h, w, i, softcap, temperature), *inputs)
    for a, b in zip(found, wanted, strict=True):
        np.testing.assert_allclose(a, b, rtol=2e-5, atol=2e-5)


def test_logits_in_the_thousands_stay_finite():
    """Nearly all the probability on one entry: log p far below 0, entropy 0, gradients finite."""
    inputs = draw(64, scale=300.0)
    found = value_and_grads(lambda h, w, i: next_token(h, w, i, Head(None, True, 8)), *inputs)
    wanted = value_and_grads(lambda h, w, i: reference.next_token(h, w, i, None), *inputs)
    assert float(found[0].min()) < -1000
    for a, b in zip(found, wanted, strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-3)


def test_a_float32_head_keeps_what_bfloat16_logits_round_away():
    hidden, head, next_ids, _ = draw(64, scale=4.0, dtype="bfloat16")
    exact, _ = reference.next_token(hidden.astype("float32"), head.astype("float32"), next_ids, None)
    whole, _ = next_token(hidden, head, next_ids, Head(None, True, 4))
    rounded, _ = next_token(hidden, head, next_ids, Head(None, False, 4))
    assert float(jnp.abs(whole - exact).max()) < 1e-4
    assert 1e-3 < float(jnp.abs(rounded - exact).max()) < 1.0


@pytest.mark.parametrize("cfg", [TINY_QWEN, TINY_GEMMA], ids=lambda cfg: cfg.family)
def test_index_t_is_about_token_t_of_its_own_segment(cfg):
    """The head of the family (its own, or the embedding with a cap), the shift, and zeros where nothing predicts."""
    V = cfg.vocab_size
    hidden, head, token_ids, _ = draw(V)
    segment_ids = jnp.array([[1] * 5 + [2] * 4 + [0] * 3, [1] * 12])
    params = {"embed": head} if cfg.tie_embeddings else {"embed": head * 0, "lm_head": head}
    logprobs, entropy = token_logprobs(params, cfg, hidden, token_ids, segment_ids, chunk_tokens=3)
    next_ids = jnp.roll(token_ids, -1, axis=1)
    wanted, wanted_entropy = reference.next_token(hidden, head, next_ids, cfg.final_softcap)
    first = np.array([[1, 0, 0, 0, 0, 1, 0, 0, 0, 1, 1, 1], [1] + [0] * 11], bool)
    for found, expected in ((logprobs, wanted), (entropy, wanted_entropy)):
        assert (np.asarray(found)[first] == 0).all()
        np.testing.assert_allclose(
            np.asarray(found)[~first], np.roll(expected, 1, axis=1)[~first], rtol=1e-5, atol=1e-5
        )


def test_a_tied_head_has_the_gradient_of_both_its_uses():
    cfg = replace(TINY_GEMMA, final_softcap=None)
    _, table, token_ids, _ = draw(cfg.vocab_size)
    segment_ids = jnp.ones_like(token_ids)

    def total(table, blockwise: bool):
        hidden = jnp.tanh(table[token_ids])
        if blockwise:
            return token_logprobs({"embed": table}, cfg, hidden, token_ids, segment_ids, chunk_tokens=2)[0].sum()
        return reference.next_token(hidden[:, :-1], table, token_ids[:, 1:], None)[0].sum()

    found, wanted = (jax.grad(total)(table, blockwise) for blockwise in (True, False))
    np.testing.assert_allclose(found, wanted, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("sizes", [{"fsdp": 8}, {"fsdp": 2, "tensor": 2, "context": 2}], ids=str)
def test_a_mesh_changes_no_number_and_gathers_no_hidden_states(sizes):
    """Rows over data and fsdp, positions over context, the vocabulary over tensor, the head's width over fsdp."""
    V, rows = 64, 8
    keys = jax.random.split(jax.random.key(1), 3)
    hidden, head = jax.random.normal(keys[0], (rows, T, D)), jax.random.normal(keys[1], (V, D))
    next_ids = jax.random.randint(keys[2], (rows, T), 0, V)

    def total(hidden, head, next_ids):
        logprobs, entropy = next_token(hidden, head, next_ids, Head(None, True, 4))
        return logprobs.sum() + 0.1 * entropy.sum()

    wanted = jax.value_and_grad(total, argnums=(0, 1))(hidden, head, next_ids)
    mesh = make_mesh(sizes)
    at_BT = NamedSharding(mesh, PartitionSpec(("data", "fsdp", "expert"), "context"))
    at_VD = NamedSharding(mesh, PartitionSpec("tensor", "fsdp"))
    step = jax.jit(
        jax.value_and_grad(total, argnums=(0, 1)),
        in_shardings=(at_BT, at_VD, at_BT),
        out_shardings=(None, (at_BT, at_VD)),
    )
    placed = jax.device_put((hidden, head, next_ids), (at_BT, at_VD, at_BT))
    found = step(*placed)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=2e-5, atol=2e-5), found, wanted)
    gathers = [line for line in step.lower(*placed).compile().as_text().splitlines() if "all-gather(" in line]
    assert gathers
    for line in gathers:  # [entries of a block, D], never [rows, T, ...]
        shape = line.split("[")[1].split("]")[0]
        assert shape in ("16,16", "8,16"), line


WIDTH, TOKENS, VOCAB = 1024, 4096, 248_320


def temporary_bytes(function, dtype: str, *, gradient: bool) -> int:
    def total(hidden, head, next_ids):
        return sum(x.sum() for x in function(hidden, head, next_ids))

    shapes = ((1, TOKENS, WIDTH), dtype), ((VOCAB, WIDTH), dtype), ((1, TOKENS), "int32")
    compiled = (
        jax.jit(jax.grad(total, argnums=(0, 1)) if gradient else function)
        .lower(*(jax.ShapeDtypeStruct(*shape) for shape in shapes))
        .compile()
    )
    return compiled.memory_analysis().temp_size_in_bytes


@pytest.mark.parametrize("gradient", [False, True], ids=["value", "gradient"])
@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_peak_memory_is_below_a_tenth_at_the_published_vocabulary(dtype: str, gradient: bool):
    """64 positions' worth of logits at once. XLA's CPU backend slices no bfloat16 inside a loop: it keeps a float32
    copy of the whole head beside it (a TPU compile has none), which is taken off where it hides what is measured."""
    chunked = temporary_bytes(lambda h, w, i: next_token(h, w, i, Head(None, True, 64)), dtype, gradient=gradient)
    naive = temporary_bytes(lambda h, w, i: reference.next_token(h, w, i, None), dtype, gradient=gradient)
    copy = 4 * VOCAB * WIDTH if dtype == "bfloat16" and not gradient else 0
    assert naive >= 4 * TOKENS * VOCAB
    assert 0 < chunked - copy < naive / 10
