"""The optimizer: AdamW, or Muon for matrices, with a schedule, a decay mask by name and a global-norm clip.

Which parameters are decayed, moved by Muon, or not moved at all is read from the parameter table, so that a new
parameter has to be thought about once, in its name.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import optax
from optax import contrib

from ornith_jax.experiment import OptimSettings
from ornith_jax.nn.moe import ROUTER
from ornith_jax.params import Params, ParamSpec, Table, flatten, unflatten

# By the last word of the name. Norms (all names that end in "norm"), biases, decay rates and scales have no matrix to
# keep small; a convolution is four taps per channel, a scale in all but name; a row of the embedding is touched by a
# few tokens only, and decay would shrink the rest.
UNDECAYED = (
    *("embed", "conv_q", "conv_k", "conv_v", "a_log", "dt_bias"),
    *("layer_scalar", "expert_scale", "router_scale"),
)
# Decayed, but not orthogonalized: the head and the router choose among rows, which need not be of equal size
# (Muon is Scalable, arXiv 2502.16982, leaves the head to AdamW too); the shared gate is one row.
NOT_MUON = ("lm_head", "router", "shared_gate")
MUON_RMS = 0.2  # scales Muon's updates to the size of AdamW's, so that one learning rate serves both (arXiv 2502.16982)


def is_decayed(name: str) -> bool:
    """Whether weight decay applies to the parameter of that name."""
    last = name.rsplit("/", 1)[-1]
    return not last.endswith("norm") and last not in UNDECAYED


def trainable(specs: Table, router: str) -> dict[str, Any]:
    """The table as booleans: False for checkpoint buffers, and for ROUTER when it is "frozen".

    A gradient of zero is not enough to hold a parameter still: weight decay would shrink it.
    """

    def moves(name: str, spec: ParamSpec) -> bool:
        return spec.trainable and not (router == "frozen" and name.rsplit("/", 1)[-1] in ROUTER)

    return unflatten({name: moves(name, spec) for name, spec in flatten(specs).items()})


def schedule(settings: OptimSettings) -> Callable[[jax.Array], jax.Array]:
    """Number of updates made so far -> learning rate of the next, float32: linear warm-up, then cosine or constant."""

    def rate(count: jax.Array) -> jax.Array:
        done = count.astype(jnp.float32)
        warm = jnp.minimum(1.0, (done + 1.0) / max(settings.warmup_steps, 1))
        if not settings.decay_steps:
            return settings.learning_rate * warm
        progress = jnp.clip((done - settings.warmup_steps) / settings.decay_steps, 0.0, 1.0)
        cosine = 0.5 * (1.0 + jnp.cos(math.pi * progress))
        return settings.learning_rate * warm * (settings.final_fraction + (1.0 - settings.final_fraction) * cosine)

    return rate


def make_optimizer(settings: OptimSettings, specs: Table, router: str) -> optax.GradientTransformation:
    """Clip, precondition, decay, scale. Gradients and parameters are given in float32; frozen ones stay as they are."""
    names, moving = flatten(specs), flatten(trainable(specs, router))
    kinds = {name: "muon" if settings.kind == "muon" and is_muon(name) else "adamw" for name in names}
    labels = unflatten({name: kinds[name] if moving[name] else "frozen" for name in names})
    decayed = unflatten({name: moving[name] and is_decayed(name) for name in names})
    dtype = jnp.dtype(settings.moment_dtype)
    rules = {
        "adamw": keep_moments(optax.scale_by_adam(settings.b1, settings.b2, settings.eps), dtype),
        "frozen": optax.set_to_zero(),
    }
    if settings.kind == "muon":
        rules["muon"] = _muon(specs, labels, dtype)
    return optax.chain(
        optax.clip_by_global_norm(settings.clip_norm),
        optax.partition(rules, labels),
        optax.add_decayed_weights(settings.weight_decay, decayed),
        optax.scale_by_learning_rate(schedule(settings)),
    )


def keep_moments(inner: optax.GradientTransformation, dtype: Any) -> optax.GradientTransformation:
    """`inner`, which computes in float32, with its moments `mu` and `nu` stored in `dtype`.

    A bfloat16 second moment needs steps of 1 - b2 that do not round to nothing; `checks` sees to it.
    """

    def cast(state: Any, dtype: Any) -> Any:
        moments = {name: getattr(state, name) for name in ("mu", "nu") if hasattr(state, name)}
        return state._replace(**jax.tree.map(lambda x: x.astype(dtype), moments))

    def init(params: Params) -> Any:
        return cast(inner.init(params), dtype)

    def update(grads: Params, state: Any, params: Params | None = None) -> tuple[Params, Any]:
        updates, state = inner.update(grads, cast(state, jnp.float32), params)
        return updates, cast(state, dtype)

    return optax.GradientTransformation(init, update)


def is_muon(name: str) -> bool:
    """Whether Muon moves the parameter of that name, when it is chosen."""
    return is_decayed(name) and name.rsplit("/", 1)[-1] not in NOT_MUON


def matrix_axes(spec: ParamSpec) -> contrib.MuonDimensionNumbers:
    """Which dimensions of a weight are its rows and columns: the model width, and what it is projected to or from.

    Layers, experts and unnamed dimensions (gate and up in one array) are separate matrices; heads are not.
    """
    width = spec.axes.index("embed")
    apart = ("layers", "experts", None, "embed")
    other = tuple(i for i, axis in enumerate(spec.axes) if axis not in apart)
    assert other, spec
    last = width == len(spec.axes) - 1  # weights are stored (out, in)
    return contrib.MuonDimensionNumbers((width,), other) if last else contrib.MuonDimensionNumbers(other, (width,))


def _muon(specs: Table, labels: dict[str, Any], dtype: Any) -> optax.GradientTransformation:
    """Orthogonalized momentum (Newton-Schulz), times MUON_RMS sqrt(larger side): no entry depends on the shape."""
    names, kinds = flatten(specs), flatten(labels)

    def of_muon(value: Callable[[ParamSpec], Any]) -> dict[str, Any]:
        return unflatten(
            {name: value(spec) if kinds[name] == "muon" else optax.MaskedNode() for name, spec in names.items()}
        )

    def scale(spec: ParamSpec) -> float:
        axes = matrix_axes(spec)
        return MUON_RMS * max(math.prod(spec.shape[i] for i in side) for side in axes) ** 0.5

    scales = of_muon(scale)
    return optax.chain(
        keep_moments(contrib.scale_by_muon(weight_dimension_numbers=of_muon(matrix_axes)), dtype),
        optax.stateless(lambda updates, _: jax.tree.map(jnp.multiply, updates, scales)),
    )
