"""Where parameters live: logical axis names -> mesh axes, decided once for every model.

Mesh axes: `data` (replicas), `fsdp` (parameters and batch), `expert`, `tensor`, `context`; any may have size 1.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import jax
from jax.sharding import AxisType, Mesh, NamedSharding, PartitionSpec

from ornith_jax.errors import OrnithError
from ornith_jax.params import ParamSpec, Table, is_spec

MESH_AXES = ("data", "fsdp", "expert", "tensor", "context")
BATCH_AXES = ("data", "fsdp", "expert")
"""The axes that split the rows of a batch. For the layers without experts, `expert` is one more of them."""

RULES: Mapping[str, str | None] = {
    "layers": None,  # the scanned axis
    "vocab": "tensor",
    "embed": "fsdp",
    "heads": "tensor",
    "kv_heads": "tensor",
    "ffw": "tensor",
    "experts": "expert",
    "head_dim": None,
}


def make_mesh(sizes: Mapping[str, int], devices: Sequence[Any] | None = None) -> Mesh:
    """A mesh with all five axes; those not named have size 1. Raises OrnithError when sizes do not fit."""
    unknown = sorted(set(sizes) - set(MESH_AXES))
    if unknown:
        raise OrnithError(f"mesh: unknown axis {unknown[0]!r}; the axes are {', '.join(MESH_AXES)}")
    shape = tuple(sizes.get(axis, 1) for axis in MESH_AXES)
    devices = jax.devices() if devices is None else devices
    need = math.prod(shape)
    if need != len(devices):
        raise OrnithError(f"mesh {dict(sizes)} needs {need} devices, but there are {len(devices)}")
    return jax.make_mesh(shape, MESH_AXES, axis_types=(AxisType.Auto,) * len(shape), devices=devices)


def batch_spec() -> PartitionSpec:
    """Of [B, T, ...] arrays, tokens and activations alike: rows over BATCH_AXES, time over `context`."""
    return PartitionSpec(BATCH_AXES, "context")


def batch_shardings(mesh: Mesh) -> NamedSharding:
    """Where every [B, T, ...] array of a batch lives."""
    return NamedSharding(mesh, batch_spec())


def check_batch(mesh: Mesh, rows: int, length: int) -> None:
    """Raises OrnithError when `rows` sequences of `length` tokens do not divide over the mesh."""
    shares = math.prod(mesh.shape[axis] for axis in BATCH_AXES)
    if rows % shares:
        raise OrnithError(f"batch: {rows} rows are not divisible by {' x '.join(BATCH_AXES)} = {shares} of the mesh")
    if length % mesh.shape["context"]:
        raise OrnithError(f"batch: {length} tokens are not divisible by mesh axis 'context' of {mesh.shape['context']}")


def constrain(x: jax.Array, mesh: Mesh | None, spec: PartitionSpec) -> jax.Array:
    """x, laid out as `spec` says; as it is when there is no mesh."""
    return x if mesh is None else jax.lax.with_sharding_constraint(x, NamedSharding(mesh, spec))


def partition_spec(name: str, spec: ParamSpec, rules: Mapping[str, str | None] = RULES) -> PartitionSpec:
    """The PartitionSpec of one parameter. Two dimensions on one mesh axis, or an unknown name, is an error."""
    used: dict[str, str] = {}
    entries: list[str | None] = []
    for logical in spec.axes:
        if logical is not None and logical not in rules:
            raise OrnithError(f"{name}: logical axis {logical!r} has no sharding rule")
        mesh_axis = rules[logical] if logical is not None else None
        if mesh_axis is not None and mesh_axis in used:
            raise OrnithError(f"{name}: axes {used[mesh_axis]!r} and {logical!r} both map to mesh axis {mesh_axis!r}")
        if mesh_axis is not None and logical is not None:
            used[mesh_axis] = logical
        entries.append(mesh_axis)
    return PartitionSpec(*entries)


def shardings(table: Table, mesh: Mesh, rules: Mapping[str, str | None] = RULES) -> dict[str, Any]:
    """The table as NamedShardings. A dimension that its mesh axis does not divide is an error that names it."""

    def place(path: tuple[Any, ...], spec: ParamSpec) -> NamedSharding:
        name = "/".join(str(key.key) for key in path)
        entries = partition_spec(name, spec, rules)
        for size, axis in zip(spec.shape, entries, strict=True):
            if axis is not None and size % mesh.shape[axis]:
                raise OrnithError(
                    f"{name}: dimension of {size} is not divisible by mesh axis {axis!r} of size {mesh.shape[axis]}"
                )
        return NamedSharding(mesh, entries)

    return jax.tree_util.tree_map_with_path(place, table, is_leaf=is_spec)
