"""Where parameters live: logical axis names -> mesh axes, decided once for every model.

Mesh axes: `data` (replicas), `fsdp` (parameters and batch), `expert`, `tensor`, `context`; any may have size 1.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import jax
from jax.sharding import AxisType, Mesh, NamedSharding, PartitionSpec

from ornith_jax.errors import OrnithError
from ornith_jax.params import ParamSpec, Table, is_spec

MESH_AXES = ("data", "fsdp", "expert", "tensor", "context")
BATCH_AXES = ("data", "fsdp", "expert")
"""The axes that split the rows of a batch. For the layers without experts, `expert` is one more of them."""
HEAD_AXES = ("tensor", "context")
"""The axes that split the heads of a mixer that needs T whole."""

Rules = Mapping[str, str | tuple[str, ...] | None]

RULES: Rules = {
    "layers": None,  # the scanned axis
    "vocab": "tensor",
    # Over all that is left: `expert` is one more batch axis to everything but the experts, and a copy on each of its
    # devices would cost more memory than the experts do; routers have nothing else for `tensor` to split; and without
    # `context`, long sequences would be paid for with copies of the model.
    "embed": ("fsdp", "expert", "tensor", "context"),
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


def use_mesh(mesh: Mesh | None) -> AbstractContextManager[Any]:
    """Tells `merges_rows` of the mesh, for code that sees no `Context`. Changes how things are computed, never what."""
    return nullcontext() if mesh is None else jax.sharding.use_abstract_mesh(mesh.abstract_mesh)


def merges_rows() -> bool:
    """Whether [B, T, ...] may become [B * T, ...]: not when T is split, or XLA would gather all of T first."""
    return jax.sharding.get_abstract_mesh().shape.get("context", 1) == 1


def constrain(x: jax.Array, mesh: Mesh | None, spec: PartitionSpec) -> jax.Array:
    """x, laid out as `spec` says; as it is when there is no mesh."""
    return x if mesh is None else jax.lax.with_sharding_constraint(x, NamedSharding(mesh, spec))


def mesh_axes(entry: str | tuple[str, ...] | None) -> tuple[str, ...]:
    """The mesh axes of one entry of a PartitionSpec."""
    return () if entry is None else (entry,) if isinstance(entry, str) else entry


def partition_spec(name: str, spec: ParamSpec, rules: Rules = RULES) -> PartitionSpec:
    """The PartitionSpec of one parameter. Two dimensions on one mesh axis, or an unknown name, is an error.

    A rule of several mesh axes leaves out those that another dimension has for itself: the weights of an expert have
    "experts" over `expert`, "ffw" over `tensor` and "embed" over what is left, `fsdp` and `context`.
    """
    used: dict[str, str] = {}
    for logical in spec.axes:
        if logical is not None and logical not in rules:
            raise OrnithError(f"{name}: logical axis {logical!r} has no sharding rule")
        axis = rules[logical] if logical is not None else None
        if isinstance(axis, str) and logical is not None:
            if axis in used:
                raise OrnithError(f"{name}: axes {used[axis]!r} and {logical!r} both map to mesh axis {axis!r}")
            used[axis] = logical
    entries = [rules[logical] if logical is not None else None for logical in spec.axes]
    return PartitionSpec(*(tuple(a for a in e if a not in used) if isinstance(e, tuple) else e for e in entries))


def shardings(table: Table, mesh: Mesh, rules: Rules = RULES) -> dict[str, Any]:
    """The table as NamedShardings. A dimension that its mesh axis does not divide is an error that names it."""

    def place(path: tuple[Any, ...], spec: ParamSpec) -> NamedSharding:
        name = "/".join(str(key.key) for key in path)
        entries = partition_spec(name, spec, rules)
        for size, entry in zip(spec.shape, entries, strict=True):
            split = {axis: mesh.shape[axis] for axis in mesh_axes(entry) if mesh.shape[axis] > 1}
            if size % math.prod(split.values()):
                along = " x ".join(f"{axis!r} of size {n}" for axis, n in split.items())
                raise OrnithError(f"{name}: dimension of {size} is not divisible by mesh axis {along}")
        return NamedSharding(mesh, entries)

    return jax.tree_util.tree_map_with_path(place, table, is_leaf=is_spec)
