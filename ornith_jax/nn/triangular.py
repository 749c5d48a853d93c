"""The inverse of a unit lower triangular matrix, from matrix products only.

Matrix units of TPUs and GPUs idle in a substitution; and on a CPU, XLA's call into LAPACK for it, inside a scanned
and multi-threaded program, was seen to dead-lock (jax 0.10.2, two cores). C chunk, the last two axes are [C, C].
"""

from __future__ import annotations

import jax
import jax.numpy as jnp

BASE = 16  # blocks of this size are inverted by a product of powers


@jax.custom_vjp
def unit_lower_inverse(lower: jax.Array) -> jax.Array:
    """(I + lower)^-1 for a strictly lower triangular `lower` [..., C, C] (C a power of two times BASE, or below it)."""
    C = lower.shape[-1]
    if C <= BASE or C % 2:
        return _by_powers(lower)
    half = C // 2
    blocks = jnp.stack([lower[..., :half, :half], lower[..., half:, half:]])
    first, second = unit_lower_inverse(blocks)
    corner = -second @ (lower[..., half:, :half] @ first)
    top = jnp.concatenate([first, jnp.zeros_like(first)], axis=-1)
    return jnp.concatenate([top, jnp.concatenate([corner, second], axis=-1)], axis=-2)


def _by_powers(lower: jax.Array) -> jax.Array:
    """(I - L)(I + L^2)(I + L^4)...: the sum of (-L)^n, which ends because L^C = 0."""
    C = lower.shape[-1]
    identity = jnp.eye(C, dtype=lower.dtype).reshape((1,) * (lower.ndim - 2) + (C, C))
    inverse, power, reach = identity - lower, lower, 2
    while reach < C:
        power = power @ power
        inverse = inverse + inverse @ power
        reach *= 2
    return inverse


def _forward(lower: jax.Array) -> tuple[jax.Array, jax.Array]:
    inverse = unit_lower_inverse(lower)
    return inverse, inverse


@jax.default_matmul_precision("highest")  # traced outside the forward pass, whose precision it would not have
def _backward(inverse: jax.Array, cotangent: jax.Array) -> tuple[jax.Array]:
    """d(M^-1) = -M^-1 dM M^-1. What falls above the diagonal multiplies a masked input, and is dropped there."""
    transposed = jnp.swapaxes(inverse, -1, -2)
    return (-transposed @ cotangent @ transposed,)


unit_lower_inverse.defvjp(_forward, _backward)
