"""The gated delta rule: the recurrent form (slow, obviously right, one token at a time) and the chunked form.

    S <- exp(g_t) S ;  d = beta_t (v_t - S^T k_t) ;  S <- S + k_t d^T ;  o_t = S^T q_t        (arXiv 2412.06464)

Everything is float32, and so are the factors of products on matrix units, which would round them by default.
B batch, T tokens, H value heads, A key width, U value width, C chunk, J chunks.
The state is forgotten where the segment changes; a token with g = 0 and beta = 0 leaves it as it is.
"""

from __future__ import annotations

import jax
import jax.numpy as jnp

from ornith_jax.nn.triangular import unit_lower_inverse


@jax.default_matmul_precision("highest")
def delta_rule_recurrent(
    q_BTHA: jax.Array,
    k_BTHA: jax.Array,
    v_BTHU: jax.Array,
    g_BTH: jax.Array,
    beta_BTH: jax.Array,
    segments_BT: jax.Array,
    state_BHAU: jax.Array,
) -> tuple[jax.Array, jax.Array]:
    """(o_BTHU, state after the last token). The state given belongs to the segment of the first token."""

    def step(carry: tuple[jax.Array, jax.Array], token: tuple[jax.Array, ...]):  # type: ignore[no-untyped-def]
        state, segment_B = carry
        q, k, v, g, beta, seg = token
        decay_BH = jnp.where((seg == segment_B)[:, None], jnp.exp(g), 0.0)
        state = state * decay_BH[..., None, None]
        d_BHU = beta[..., None] * (v - jnp.einsum("bhau,bha->bhu", state, k))
        state = state + jnp.einsum("bha,bhu->bhau", k, d_BHU)
        return (state, seg), jnp.einsum("bhau,bha->bhu", state, q)

    tokens = [jnp.moveaxis(x, 1, 0) for x in (q_BTHA, k_BTHA, v_BTHU, g_BTH, beta_BTH, segments_BT)]
    (state, _), out = jax.lax.scan(step, (state_BHAU, segments_BT[:, 0]), tuple(tokens))
    return jnp.moveaxis(out, 0, 1), state


@jax.default_matmul_precision("highest")
def delta_rule_chunked(
    q_BTHA: jax.Array,
    k_BTHA: jax.Array,
    v_BTHU: jax.Array,
    g_BTH: jax.Array,
    beta_BTH: jax.Array,
    segments_BT: jax.Array,
    state_BHAU: jax.Array,
    chunk: int = 64,
) -> tuple[jax.Array, jax.Array]:
    """The same function in chunks of `chunk` tokens: matrix products inside, a scan over chunks outside.

    With G the running sum of g in a chunk and D_ij = exp(G_i - G_j) for i >= j in one segment, else 0:
    L = strict_tril(beta_i k_i.k_j D_ij), U = (I+L)^-1 (beta v), W = (I+L)^-1 (beta k e^G),
    V' = U - W S, O = (q e^G) S + (q k^T D) V', S <- e^{G_C} S + (k e^{G_C - G})^T V'.
    """
    T = q_BTHA.shape[1]
    q, k, v, g, beta = (_chunks(x, chunk) for x in (q_BTHA, k_BTHA, v_BTHU, g_BTH, beta_BTH))
    seg_JBC = _chunks(segments_BT[..., None], chunk, edge=True)[:, :, 0]
    before_JB = jnp.concatenate([segments_BT[:, 0][None], seg_JBC[:-1, :, -1]])  # segment of the incoming state
    enters_JBC = seg_JBC == before_JB[..., None]
    leaves_JBC = seg_JBC == seg_JBC[..., -1:]

    cum_JBHC = jnp.cumsum(g, axis=-1)
    causal = jnp.tril(jnp.ones((chunk, chunk), bool))
    same_JBCC = (seg_JBC[..., :, None] == seg_JBC[..., None, :]) & causal[None, None]
    # Mask before exp: above the diagonal the exponent can overflow, and where(mask, exp(x), 0) has NaN gradients.
    decay_JBHCC = jnp.exp(jnp.where(same_JBCC[:, :, None], cum_JBHC[..., :, None] - cum_JBHC[..., None, :], -jnp.inf))
    grown_JBHC = jnp.where(enters_JBC[:, :, None], jnp.exp(cum_JBHC), 0.0)
    rest_JBHC = jnp.where(leaves_JBC[:, :, None], jnp.exp(cum_JBHC[..., -1:] - cum_JBHC), 0.0)
    keep_JBH = jnp.where(enters_JBC[:, :, None, -1], jnp.exp(cum_JBHC[..., -1]), 0.0)

    k_beta = k * beta[..., None]
    strict = jnp.tril(jnp.ones((chunk, chunk), bool), -1)
    lower = jnp.where(strict[None, None, None], jnp.einsum("jbhca,jbhda->jbhcd", k_beta, k) * decay_JBHCC, 0.0)
    rhs = jnp.concatenate([v * beta[..., None], k_beta * grown_JBHC[..., None]], axis=-1)
    solved = unit_lower_inverse(lower) @ rhs
    u, w = solved[..., : v.shape[-1]], solved[..., v.shape[-1] :]
    within = jnp.einsum("jbhca,jbhda->jbhcd", q, k) * decay_JBHCC
    q_grown, k_rest = q * grown_JBHC[..., None], k * rest_JBHC[..., None]

    def step(state: jax.Array, c: tuple[jax.Array, ...]):  # type: ignore[no-untyped-def]
        u, w, within, q_grown, k_rest, keep = c
        v_new = u - w @ state
        out = q_grown @ state + within @ v_new
        return keep[..., None, None] * state + jnp.swapaxes(k_rest, -1, -2) @ v_new, out

    state, out_JBHCU = jax.lax.scan(step, state_BHAU, (u, w, within, q_grown, k_rest, keep_JBH))
    out = jnp.moveaxis(out_JBHCU, (0, 3), (1, 2))  # [B, J, C, H, U]
    return out.reshape(out.shape[0], -1, *out.shape[3:])[:, :T], state


def _chunks(x: jax.Array, chunk: int, *, edge: bool = False) -> jax.Array:
    """[B, T, H, ...] -> [J, B, H, C, ...]; pads are zeros (no-op tokens), or repeat the last value."""
    pad = -x.shape[1] % chunk
    widths = [(0, 0), (0, pad)] + [(0, 0)] * (x.ndim - 2)
    x = jnp.pad(x, widths, mode="edge") if edge else jnp.pad(x, widths)
    x = x.reshape(x.shape[0], -1, chunk, *x.shape[2:])
    return jnp.moveaxis(x, (1, 3), (0, 2))
