"""What training changes: parameters, optimizer state and two counters, each sharded by the parameter table."""

from __future__ import annotations

from dataclasses import asdict
from itertools import takewhile
from pathlib import Path
from typing import Any

import flax.struct
import jax
import jax.numpy as jnp
from jax.sharding import Mesh, NamedSharding, PartitionSpec
from jax.tree_util import DictKey

from ornith_jax.config import ModelConfig
from ornith_jax.convert.load import load
from ornith_jax.experiment import Experiment
from ornith_jax.models.decoder import table
from ornith_jax.params import Params, abstract, flatten, init
from ornith_jax.sharding import make_mesh, shardings
from ornith_jax.train.optim import make_optimizer


@flax.struct.dataclass
class TrainState:
    """`step` is the policy version: the number of committed updates. A skipped step commits nothing."""

    step: jax.Array  # int32
    params: Params  # master weights, in train.param_dtype
    opt_state: Any
    skipped: jax.Array  # int32: batches whose loss or gradient was not finite


def mesh_of(experiment: Experiment, devices: Any = None) -> Mesh:
    """The learner's mesh. Raises OrnithError when its sizes do not fit the devices."""
    return make_mesh(asdict(experiment.mesh), devices)


def abstract_state(cfg: ModelConfig, experiment: Experiment, mesh: Mesh) -> TrainState:
    """The state as `jax.ShapeDtypeStruct`s with shardings: to compile for, and to restore into."""
    specs = table(cfg)
    places = flatten(shardings(specs, mesh))
    params = abstract(specs, experiment.train.param_dtype)
    shapes = jax.eval_shape(lambda params: _fresh(cfg, experiment, params), params)

    def place(path: tuple[Any, ...], leaf: jax.ShapeDtypeStruct) -> jax.ShapeDtypeStruct:
        sharding = places.get(_param_name(path), NamedSharding(mesh, PartitionSpec()))
        return jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=sharding)

    return jax.tree_util.tree_map_with_path(place, shapes)


def init_state(cfg: ModelConfig, experiment: Experiment, mesh: Mesh) -> TrainState:
    """A state with random parameters from the experiment's seed, made where it lives. Every mesh gives the same."""
    dtype = experiment.train.param_dtype
    start = jax.jit(
        lambda key: _fresh(cfg, experiment, init(table(cfg), key, dtype)),
        out_shardings=state_shardings(abstract_state(cfg, experiment, mesh)),
    )
    return start(jax.random.key(experiment.seed))


def first_state(cfg: ModelConfig, experiment: Experiment, mesh: Mesh) -> TrainState:
    """Where a run begins: the weights of the folder `experiment.model`, or random ones of a published shape."""
    path = Path(experiment.model)
    if not path.exists():
        return init_state(cfg, experiment, mesh)
    _, params = load(path, dtype=experiment.train.param_dtype, mesh=mesh)
    places = state_shardings(abstract_state(cfg, experiment, mesh))
    start = jax.jit(lambda params: _fresh(cfg, experiment, params), out_shardings=places, donate_argnums=0)
    return start(params)


def state_shardings(state: TrainState) -> TrainState:
    """The same tree of shardings."""
    return jax.tree.map(lambda leaf: leaf.sharding, state)


def _fresh(cfg: ModelConfig, experiment: Experiment, params: Params) -> TrainState:
    optimizer = make_optimizer(experiment.optim, table(cfg), experiment.loss.router)
    return TrainState(  # type: ignore[call-arg]
        step=jnp.zeros((), jnp.int32),
        params=params,
        opt_state=optimizer.init(params),
        skipped=jnp.zeros((), jnp.int32),
    )


def _param_name(path: tuple[Any, ...]) -> str:
    """The parameter that a leaf of the state belongs to: optimizers keep moments in dicts like the parameters' own."""
    keys = takewhile(lambda key: isinstance(key, DictKey), reversed(path))
    return "/".join(reversed([str(key.key) for key in keys]))
