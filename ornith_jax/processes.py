"""One learner over several hosts: how its processes find each other, and how they agree.

The launcher names the meeting point in the environment; without it a process is alone. Nothing is guessed: what jax
would detect by itself is wrong on several clusters (the coordinator's port collides without an error when two learners
share a node, a task sees one GPU only, a node name does not resolve).

    ORNITH_COORDINATOR   HOST:PORT of process 0; or `auto` where jax knows the place itself (TPU pods)
    ORNITH_PROCESSES     how many there are
    ORNITH_PROCESS       which one this is; under srun SLURM_PROCID says it
"""

from __future__ import annotations

import functools
import os
from collections.abc import Callable, Mapping
from typing import Any

import jax
import numpy as np
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from ornith_jax.errors import OrnithError

JOIN_S = 300  # for all processes to meet
PIECE = 1 << 30  # bytes that are on every device at once while a leaf is gathered
LOST_S = 100  # without a sign of life from one, and all the others end


def join(environ: Mapping[str, str] = os.environ) -> None:
    """Meet the other processes, before anything else touches a device. Does nothing where there is one process.

    Raises OrnithError when the environment is incomplete, or when they have not met after JOIN_S seconds.
    """
    coordinator = environ.get("ORNITH_COORDINATOR", "")
    if not coordinator:
        return
    jax.config.update("jax_enable_preemption_service", False)  # it would take SIGTERM, which asks for a checkpoint
    jax.config.update("jax_cpu_enable_async_dispatch", False)  # on CPUs, overlapping programs can hang
    meet = functools.partial(
        jax.distributed.initialize, initialization_timeout=JOIN_S, heartbeat_timeout_seconds=LOST_S
    )
    if coordinator == "auto":
        meet()
        return
    count = _integer(environ, "ORNITH_PROCESSES")
    index = _integer(environ, "ORNITH_PROCESS" if "ORNITH_PROCESS" in environ else "SLURM_PROCID")
    if not 0 <= index < count:
        raise OrnithError(f"ORNITH_PROCESS: {index} is not one of ORNITH_PROCESSES={count}, which count from 0")
    try:
        meet(coordinator, count, index, cluster_detection_method="deactivate")
    except (RuntimeError, ValueError) as error:
        raise OrnithError(
            f"process {index} of {count} did not meet the others at {coordinator} ({str(error).splitlines()[0]}): "
            "does the name resolve on every node, is the port open between them, and do all processes run?"
        ) from None


def any_of(flag: bool) -> bool:
    """Whether `flag` holds in any process. Every process must ask, at the same place; it waits for the slowest."""
    return flag if jax.process_count() == 1 else bool(_gather(flag).any())


def from_first(value: int) -> int:
    """The value that process 0 has. Every process must ask, at the same place."""
    return value if jax.process_count() == 1 else int(_gather(value).ravel()[0])


def to_first(params: Any) -> Any:
    """The same tree as numpy arrays in process 0, and None in all others. Every process must ask, at the same place.

    A leaf passes through the devices in pieces of about PIECE bytes along its first axis: layers, of parameters.
    """

    def gather(leaf: jax.Array) -> np.ndarray | None:
        whole = np.empty(leaf.shape, leaf.dtype) if jax.process_index() == 0 else None
        length = max(1, int(leaf.shape[0] * PIECE // max(leaf.nbytes, PIECE)))
        piece = _piece_everywhere(leaf.sharding.mesh, length)  # type: ignore[attr-defined]
        for at in range(0, leaf.shape[0], length):
            start = min(at, leaf.shape[0] - length)
            found = piece(leaf, start).block_until_ready()  # in step: collectives that overtake each other hang
            if whole is not None:
                whole[start : start + length] = np.asarray(found.addressable_data(0))
        return whole

    return jax.tree.map(gather, params)


@functools.cache
def _piece_everywhere(mesh: Mesh, length: int) -> Callable[[jax.Array, int], jax.Array]:
    """Jitted: (x, i) -> x[i : i + length] on every device of the mesh."""
    piece = functools.partial(jax.lax.dynamic_slice_in_dim, slice_size=length, axis=0)
    return jax.jit(piece, out_shardings=NamedSharding(mesh, PartitionSpec()))


def _gather(value: int) -> np.ndarray:
    from jax.experimental import multihost_utils

    return np.asarray(multihost_utils.process_allgather(np.int32(value)))


def _integer(environ: Mapping[str, str], name: str) -> int:
    try:
        return int(environ[name])
    except KeyError:
        raise OrnithError(f"{name}: not set, but ORNITH_COORDINATOR is; the launcher must set both") from None
    except ValueError:
        raise OrnithError(f"{name}: {environ[name]!r} is not a whole number") from None
