"""Tiny models of every family on every mesh of 8 simulated devices, against the same model on one device.

The published tiny configurations have too few heads for `tensor` 4, so theirs are doubled; one layer of each kind of
mixer, scanned twice, keeps a compilation at a few seconds.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from functools import cache
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh

from ornith_jax.config import AttentionConfig, Mixer, ModelConfig
from ornith_jax.models import decoder
from ornith_jax.models.named import NAMED
from ornith_jax.params import Params, flatten, init
from ornith_jax.sharding import batch_shardings, make_mesh, shardings

MESHES: tuple[Mapping[str, int], ...] = (
    {"fsdp": 8},
    {"data": 2, "fsdp": 4},
    {"expert": 8},
    {"fsdp": 2, "expert": 4},
    {"tensor": 4, "data": 2},
    {"expert": 4, "tensor": 2},
    {"context": 2, "fsdp": 4},
)
B, T = 8, 40  # a row for every device; T is no multiple of a chunk


def name_of(sizes: Mapping[str, int]) -> str:
    return " x ".join(f"{axis} {size}" for axis, size in sizes.items())


@cache
def config(name: str) -> ModelConfig:
    cfg = NAMED[name]
    period = tuple(_more_heads(mixer) for mixer in (cfg.period[0], cfg.period[-1]))
    return replace(cfg, period=period, num_layers=4, init_std=0.1)


def _more_heads(mixer: Mixer) -> Mixer:
    if isinstance(mixer, AttentionConfig):
        return replace(mixer, num_heads=8, num_kv_heads=4)
    return replace(mixer, num_key_heads=4, num_value_heads=8, chunk=16)


def batch(cfg: ModelConfig) -> tuple[np.ndarray, np.ndarray]:
    """(token_ids, segment_ids) [B, T]: several sequences a row, pads at the end, in the middle and at the start."""
    rng = np.random.default_rng(0)
    token_ids = rng.integers(1, cfg.vocab_size, (B, T), dtype=np.int32)
    segment_ids = np.cumsum(rng.random((B, T)) < 0.1, axis=1, dtype=np.int32) + 1
    segment_ids[:3, -7:], segment_ids[3, 11:14], segment_ids[4, :5] = 0, 0, 0
    return np.where(segment_ids > 0, token_ids, 0).astype(np.int32), segment_ids


def loss_and_load(
    params: Params, cfg: ModelConfig, token_ids: jax.Array, segment_ids: jax.Array, **options: Any
) -> tuple[jax.Array, jax.Array | None]:
    """Mean negative log-probability of each token given those before it in its segment, and the experts' load."""
    if options.get("mesh"):
        params = jax.lax.with_sharding_constraint(params, shardings(decoder.table(cfg), options["mesh"]))
    hidden, load = decoder.forward_with_load(params, cfg, token_ids, segment_ids_BT=segment_ids, **options)
    logprobs = jax.nn.log_softmax(decoder.logits(params, cfg, hidden)[:, :-1], axis=-1)
    taken = jnp.take_along_axis(logprobs, token_ids[:, 1:, None], axis=-1)[..., 0]
    counted = (segment_ids[:, 1:] == segment_ids[:, :-1]) & (segment_ids[:, 1:] > 0)
    return -jnp.sum(jnp.where(counted, taken, 0.0)) / jnp.sum(counted, dtype=jnp.float32), load


def step(cfg: ModelConfig, **options: Any) -> Callable[..., Any]:
    """(params, token_ids, segment_ids) -> ((loss, load), gradients), jitted."""
    return jax.jit(jax.value_and_grad(lambda p, *data: loss_and_load(p, cfg, *data, **options), has_aux=True))


@cache
def on_one_device(name: str) -> tuple[Params, float, Any, dict[str, np.ndarray]]:
    """(params, loss, load, gradients by name)."""
    cfg = config(name)
    params = jax.jit(lambda: init(decoder.table(cfg), jax.random.key(0), "float32"))()
    (loss, load), grads = step(cfg)(params, *map(jnp.asarray, batch(cfg)))
    return params, float(loss), load, {k: np.asarray(g) for k, g in flatten(grads).items()}


def placed(name: str, sizes: Mapping[str, int]) -> tuple[Mesh, Params, tuple[jax.Array, ...]]:
    """(mesh, params, batch), where the table and `batch_spec` say."""
    cfg, mesh = config(name), make_mesh(sizes)
    params = jax.device_put(on_one_device(name)[0], shardings(decoder.table(cfg), mesh))
    return mesh, params, jax.device_put(tuple(map(jnp.asarray, batch(cfg))), batch_shardings(mesh))


def check(name: str, sizes: Mapping[str, int]) -> None:
    """Loss within 1e-5, load equal, every gradient g within |g - want| / |want| <= 1e-4 (norms of whole tensors: single
    entries that cancel to nearly nothing have no relative accuracy on any device). Shardings as the table says."""
    cfg = config(name)
    mesh, params, data = placed(name, sizes)
    (loss, load), grads = step(cfg, mesh=mesh)(params, *data)
    _, want_loss, want_load, want_grads = on_one_device(name)
    assert abs(float(loss) - want_loss) < 1e-5
    if cfg.moe:
        np.testing.assert_array_equal(load, want_load)
    declared = flatten(shardings(decoder.table(cfg), mesh))
    for key, grad in flatten(grads).items():
        want, param = want_grads[key], flatten(params)[key]
        assert np.linalg.norm(grad - want) <= 1e-4 * np.linalg.norm(want), key
        for array in (grad, param):  # nobody tells `step` where gradients go
            assert array.sharding.is_equivalent_to(declared[key], array.ndim), (key, array.sharding)
        if max(sizes.get("fsdp", 1), sizes.get("expert", 1), sizes.get("tensor", 1)) > 1:
            whole = param.addressable_shards[0].data.size == param.size
            assert not whole or is_small(key, cfg), f"{key} is replicated"


def is_small(key: str, cfg: ModelConfig) -> bool:
    """Norms and other vectors of a layer; and the short convolutions, 0.01% of the published models, whose heads are
    split over `tensor` only: their widths divide few meshes."""
    spec = flatten(decoder.table(cfg))[key]
    inner = [n for n, axis in zip(spec.shape, spec.axes, strict=True) if axis != "layers"]
    return len(inner) == 1 or "/conv_" in key
