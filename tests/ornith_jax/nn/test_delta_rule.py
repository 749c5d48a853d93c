"""The chunked delta rule is the recurrent one, and both are the equations."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from ornith_jax.nn.delta_rule import delta_rule_chunked, delta_rule_recurrent
from ornith_jax.nn.triangular import unit_lower_inverse
from tests.reference.delta_rule import delta_rule as reference

B, H, A, U = 2, 3, 8, 12


def inputs(T: int, *, decay: float = 1.0, segments: np.ndarray | None = None, seed: int = 0):
    """q, k, v, g, beta, segments, state: keys of unit length, decays up to `decay` per token."""
    rng = np.random.default_rng(seed)
    q, k = (x / np.linalg.norm(x, axis=-1, keepdims=True) for x in rng.normal(size=(2, B, T, H, A)))
    v, state = rng.normal(size=(B, T, H, U)), rng.normal(size=(B, H, A, U))
    g, beta = -decay * rng.random((B, T, H)), rng.random((B, T, H))
    segments = np.ones((B, T), np.int32) if segments is None else segments
    return [jnp.asarray(x, jnp.float32) for x in (q, k, v, g, beta)] + [jnp.asarray(segments), jnp.asarray(state, "f4")]


def by_reference(q, k, v, g, beta, segments, state):
    out, final = np.zeros(v.shape), np.zeros(state.shape)
    for b in range(B):
        for h in range(H):
            pick = [np.asarray(x)[b, :, h] for x in (q, k, v, g, beta)]
            out[b, :, h], final[b, h] = reference(*pick, np.asarray(segments)[b], np.asarray(state)[b, h])
    return out, final


BORDERS = np.stack([np.repeat([1, 2, 3, 4], [10, 54, 1, 65]), np.repeat([5, 6], [64, 66])]).astype(np.int32)


@pytest.mark.parametrize("T", [1, 3, 63, 64, 65, 130, 200])
@pytest.mark.parametrize("decay", [0.5, 30.0])
def test_chunked_equals_recurrent_equals_reference_at_any_length(T: int, decay: float):
    """Lengths that are no multiple of the chunk; decays so strong that e^-cumsum would overflow."""
    args = inputs(T, decay=decay)
    want, want_state = by_reference(*args)
    for rule in (delta_rule_chunked, delta_rule_recurrent):
        got, state = rule(*args)
        np.testing.assert_allclose(got, want, atol=5e-5)
        np.testing.assert_allclose(state, want_state, atol=5e-5)


def test_the_state_is_carried_from_one_call_to_the_next():
    q, k, v, g, beta, seg, state = inputs(150)
    whole, last = delta_rule_chunked(q, k, v, g, beta, seg, state)
    parts = []
    for cut in (slice(0, 70), slice(70, 71), slice(71, 150)):
        out, state = delta_rule_chunked(*(x[:, cut] for x in (q, k, v, g, beta, seg)), state)
        parts.append(out)
    np.testing.assert_allclose(jnp.concatenate(parts, axis=1), whole, atol=1e-5)
    np.testing.assert_allclose(state, last, atol=1e-5)


def test_nothing_crosses_a_segment_border_inside_or_at_the_edge_of_a_chunk():
    """Values against the reference; and the gradient of one segment with respect to the tokens before it is zero."""
    args = inputs(130, segments=BORDERS)
    want, want_state = by_reference(*args)
    for rule in (delta_rule_chunked, delta_rule_recurrent):
        got, state = rule(*args)
        np.testing.assert_allclose(got, want, atol=5e-5)
        np.testing.assert_allclose(state, want_state, atol=5e-5)

    def last_segment(v: jax.Array) -> jax.Array:
        return jnp.sum(delta_rule_chunked(*args[:2], v, *args[3:])[0][0, 65:])

    gradient = np.abs(jax.grad(last_segment)(args[2]))[0]
    assert gradient[:65].max() == 0
    assert gradient[65:].max() > 0


def test_gradients_of_chunked_equal_those_of_recurrent_and_are_finite_under_strong_decay():
    for decay in (0.5, 30.0):
        args = inputs(100, decay=decay, segments=BORDERS[:, :100])

        def loss(rule, *floats, args=args):
            out, state = rule(*floats[:5], args[5], floats[5])
            return jnp.sum(jnp.sin(out)) + jnp.sum(jnp.cos(state))

        floats = [*args[:5], args[6]]
        for ours, want in zip(
            jax.grad(loss, argnums=range(1, 7))(delta_rule_chunked, *floats),
            jax.grad(loss, argnums=range(1, 7))(delta_rule_recurrent, *floats),
            strict=True,
        ):
            assert np.isfinite(ours).all()
            np.testing.assert_allclose(ours, want, atol=5e-4 * max(1.0, float(jnp.abs(want).max())))


def test_a_pad_token_leaves_the_state_as_it_is():
    q, k, v, g, beta, seg, state = inputs(70)
    off = jnp.arange(70)[None, :, None] < 40
    _, padded = delta_rule_chunked(q, k, v, jnp.where(off, g, 0), jnp.where(off, beta, 0), seg, state)
    _, short = delta_rule_chunked(*(x[:, :40] for x in (q, k, v, g, beta, seg)), state)
    np.testing.assert_allclose(padded, short, atol=1e-6)


def test_decay_in_bfloat16_would_be_noticed():
    """The error of a rounded decay is far above the tolerance of the tests above."""
    args = inputs(200, decay=0.5)
    args[3] = args[3].astype(jnp.bfloat16).astype(jnp.float32)
    exact = inputs(200, decay=0.5)
    assert np.abs(delta_rule_chunked(*args)[0] - by_reference(*exact)[0]).max() > 1e-3


@pytest.mark.parametrize("C", [1, 5, 16, 32, 64, 96])
def test_the_unit_lower_inverse_inverts_and_has_the_right_gradient(C: int):
    L = jnp.tril(jax.random.normal(jax.random.key(C), (3, C, C)) * 0.3, -1)
    identity = jnp.broadcast_to(jnp.eye(C), L.shape)
    np.testing.assert_allclose(unit_lower_inverse(L) @ (identity + L), identity, atol=1e-3)

    def ours(L: jax.Array) -> jax.Array:
        return jnp.sum(jnp.sin(unit_lower_inverse(jnp.tril(L, -1))))

    def numpy_like(L: jax.Array) -> jax.Array:
        return jnp.sum(jnp.sin(jnp.linalg.inv(identity + jnp.tril(L, -1))))

    want = jax.grad(numpy_like)(L)
    np.testing.assert_allclose(jax.grad(ours)(L), want, atol=2e-3 * max(1.0, float(jnp.abs(want).max())))


@pytest.mark.parametrize("rule", [delta_rule_recurrent, delta_rule_chunked], ids=["recurrent", "chunked"])
def test_products_keep_float32_factors_on_matrix_units_too_and_backwards(rule):
    """The precision is in the program: on a CPU, which rounds nothing, the numbers could not tell."""
    x, gates = jnp.ones((1, 70, 2, 4)), jnp.full((1, 70, 2), -0.1)
    arguments = (x, x, x, gates, -gates, jnp.ones((1, 70), jnp.int32), jnp.zeros((1, 2, 4, 4)))
    with jax.default_matmul_precision("default"):
        program = jax.make_jaxpr(jax.grad(lambda q, *rest: rule(q, *rest)[0].sum(), argnums=(0, 1, 2, 3, 4)))(
            *arguments
        )
    products = [eqn for eqn in equations(program.jaxpr) if eqn.primitive.name == "dot_general"]
    assert len(products) > 6
    assert {eqn.params["precision"] for eqn in products} == {(jax.lax.Precision.HIGHEST,) * 2}


def equations(jaxpr):
    """Every equation of a program, inner ones too."""
    for eqn in jaxpr.eqns:
        yield eqn
        for value in eqn.params.values():
            for inner in value if isinstance(value, (tuple, list)) else (value,):
                inner = getattr(inner, "jaxpr", inner)
                if hasattr(inner, "eqns"):
                    yield from equations(inner)
