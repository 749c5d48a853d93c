"""The optimizer: who is decayed, who is orthogonalized, who stands still, and by how much all others move."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from ornith_jax.experiment import OptimSettings
from ornith_jax.models.decoder import table
from ornith_jax.models.named import NAMED, TINY_GEMMA_MOE
from ornith_jax.params import ParamSpec, flatten
from ornith_jax.train.optim import is_decayed, is_muon, make_optimizer, matrix_axes, schedule, trainable
from tests.reference.optim import adamw, newton_schulz

# A table with every kind of parameter.
SPECS = {
    "embed": ParamSpec((6, 4), ("vocab", "embed")),
    "layers": {
        "0_x": {
            "mixer": {
                "o": ParamSpec((2, 4, 2, 3), ("layers", "embed", "heads", "head_dim")),
                "norm": ParamSpec((2, 4), ("layers", None), "ones"),
            },
            "moe": {
                "router": ParamSpec((2, 3, 4), ("layers", "experts", "embed")),
                "experts": {"gate_up": ParamSpec((2, 3, 2, 5, 4), ("layers", "experts", None, "ffw", "embed"))},
            },
            "layer_scalar": ParamSpec((2, 1), ("layers", None), "ones", trainable=False),
        }
    },
}


def random_tree(seed: int) -> dict:
    rng = np.random.default_rng(seed)
    is_spec = lambda x: isinstance(x, ParamSpec)  # noqa: E731
    return jax.tree.map(lambda s: jnp.asarray(rng.normal(size=s.shape), jnp.float32), SPECS, is_leaf=is_spec)


def updated(settings: OptimSettings, router: str, num: int = 3) -> tuple[dict, list[dict], dict]:
    """(parameters before, gradients, parameters after) of `num` updates, by flat name."""
    optimizer = make_optimizer(settings, SPECS, router)
    params = before = random_tree(0)
    grads = [random_tree(1 + i) for i in range(num)]
    with jax.numpy_dtype_promotion("standard"):
        state = optimizer.init(params)
        update = jax.jit(optimizer.update)
        for g in grads:
            updates, state = update(g, state, params)
            params = jax.tree.map(jnp.add, params, updates)
    return flatten(before), [flatten(g) for g in grads], flatten(params)


def test_what_is_decayed_is_what_was_drawn_as_a_matrix_but_for_the_named_exceptions():
    exceptions = {"embed", "conv_q", "conv_k", "conv_v"}
    for cfg in NAMED.values():
        for name, spec in flatten(table(cfg)).items():
            last = name.rsplit("/", 1)[-1]
            assert is_decayed(name) == (spec.init == "normal" and last not in exceptions), name


def test_muon_takes_the_inner_matrices_of_every_model_and_finds_their_two_sides():
    for cfg in NAMED.values():
        for name, spec in flatten(table(cfg)).items():
            if not is_muon(name):
                continue
            sides = [int(np.prod([spec.shape[i] for i in side])) for side in matrix_axes(spec)]
            assert min(sides) > 1, name
            assert cfg.embed_dim in sides, name
            assert int(np.prod(sides)) * _copies(spec) == spec.size, name
    assert not is_muon("lm_head")
    assert not is_muon("layers/0_gdn/moe/router")


def _copies(spec: ParamSpec) -> int:
    return int(
        np.prod([n for n, axis in zip(spec.shape, spec.axes, strict=True) if axis in ("layers", "experts", None)])
    )


@pytest.mark.parametrize("moment_dtype", ["float32", "bfloat16"])
def test_adamw_is_the_reference_for_every_parameter(moment_dtype):
    settings = OptimSettings(
        learning_rate=0.1, warmup_steps=2, weight_decay=0.3, clip_norm=1e9, eps=1e-3, moment_dtype=moment_dtype
    )
    before, grads, after = updated(settings, "trained")
    tolerance = 1e-6 if moment_dtype == "float32" else 0.02
    for name, p in before.items():
        if name.endswith("layer_scalar"):
            continue
        decay = 0.3 if is_decayed(name) else 0.0
        want = adamw(np.float64(p), [np.float64(g[name]) for g in grads], [0.05, 0.1, 0.1], 0.9, 0.98, 1e-3, decay)
        np.testing.assert_allclose(after[name], want, atol=tolerance, rtol=tolerance, err_msg=name)


def test_moments_are_kept_in_their_dtype_and_nothing_else_is():
    for kind in ("adamw", "muon"):
        optimizer = make_optimizer(OptimSettings(kind=kind, moment_dtype="bfloat16"), SPECS, "trained")
        with jax.numpy_dtype_promotion("standard"):
            state = optimizer.init(random_tree(0))
            _, state = optimizer.update(random_tree(1), state, random_tree(0))
        kinds = {
            path[-1].key if hasattr(path[-1], "key") else path[-1].name: leaf.dtype
            for path, leaf in jax.tree_util.tree_leaves_with_path(state)
        }
        assert {name: str(dtype) for name, dtype in kinds.items()} == {
            **dict.fromkeys(("embed", "o", "norm", "router", "gate_up"), "bfloat16"),
            "count": "int32",
            **({"ns_coeffs": "float32"} if kind == "muon" else {}),
        }


def test_buffers_and_a_frozen_router_stay_bit_for_bit():
    settings = OptimSettings(learning_rate=0.1, weight_decay=0.5)
    for router, still in (("trained", {"layer_scalar"}), ("frozen", {"layer_scalar", "router"})):
        before, _, after = updated(settings, router)
        for name, p in before.items():
            assert np.array_equal(p, after[name]) == (name.rsplit("/", 1)[-1] in still), name


def test_a_frozen_router_of_gemma_is_its_projection_and_its_scale():
    moving = flatten(trainable(table(TINY_GEMMA_MOE), "frozen"))
    still = {name.rsplit("/", 1)[-1] for name, moves in moving.items() if not moves}
    assert still == {"router", "router_scale", "layer_scalar"}


def test_muon_orthogonalizes_every_layer_and_expert_by_itself():
    settings = OptimSettings(kind="muon", learning_rate=0.1, weight_decay=0.0, clip_norm=1e9)
    before, grads, after = updated(settings, "trained", num=1)
    moved = {name: np.float64(before[name] - after[name]) / 0.1 for name in before}
    o, gate_up = "layers/0_x/mixer/o", "layers/0_x/moe/experts/gate_up"
    for r in range(2):
        g = np.float64(grads[0][o][r]).reshape(4, 6)  # [embed, heads x head_dim]
        np.testing.assert_allclose(moved[o][r].reshape(4, 6), 0.2 * 6**0.5 * newton_schulz(g), atol=1e-4)
        for e in range(3):
            for c in range(2):  # gate and up are two matrices
                g = np.float64(grads[0][gate_up][r, e, c])
                np.testing.assert_allclose(moved[gate_up][r, e, c], 0.2 * 5**0.5 * newton_schulz(g), atol=1e-4)
    router = "layers/0_x/moe/router"  # left to Adam: the first step is the sign
    np.testing.assert_allclose(moved[router], np.sign(grads[0][router]), atol=1e-3)


def test_the_clip_scales_all_gradients_by_one_number():
    moments = {}
    for clip in (1e9, 0.5):
        optimizer = make_optimizer(OptimSettings(clip_norm=clip), SPECS, "trained")
        with jax.numpy_dtype_promotion("standard"):
            _, state = optimizer.update(random_tree(1), optimizer.init(random_tree(0)), random_tree(0))
        moments[clip] = jax.tree.leaves(state)
    norm = float(jnp.sqrt(sum(jnp.sum(g**2) for g in jax.tree.leaves(random_tree(1)))))
    mu = [(a, b) for a, b in zip(moments[1e9], moments[0.5], strict=True) if a.ndim and float(jnp.abs(a).max()) > 0.01]
    assert len(mu) >= 5
    for whole, clipped in mu:
        power = 1 if float(whole.min()) < 0 else 2  # mu, or nu
        np.testing.assert_allclose(clipped, whole * (0.5 / norm) ** power, rtol=1e-4, atol=1e-9)


@pytest.mark.parametrize(
    ("settings", "counts", "rates"),
    [
        ({}, [0, 1, 1000], [2.0, 2.0, 2.0]),
        ({"warmup_steps": 4}, [0, 1, 3, 4, 99], [0.5, 1.0, 2.0, 2.0, 2.0]),
        ({"warmup_steps": 2, "decay_steps": 8, "final_fraction": 0.1}, [0, 1, 2, 6, 10, 50], [1, 2, 2, 1.1, 0.2, 0.2]),
    ],
)
def test_the_schedule_warms_up_and_falls_as_worked_out_by_hand(settings, counts, rates):
    rate = schedule(OptimSettings(learning_rate=2.0, **settings))
    np.testing.assert_allclose([rate(jnp.int32(n)) for n in counts], rates, rtol=1e-6)
