"""The smallest slice, and a mesh on it, that hold an experiment: a rough estimate first, then the compiler decides.

Meshes tried: rows over `fsdp` and, with experts, `expert`; `context` as small as it can be; `tensor` as the experiment
has it. One row of the batch per group of `context` x `tensor` devices, times the experiment's accumulation.
"""

from __future__ import annotations

import math
import sys
from collections.abc import Iterator
from dataclasses import asdict, replace

import jax.numpy as jnp

from ornith_jax.checks import check_training
from ornith_jax.config import ModelConfig
from ornith_jax.errors import OrnithError
from ornith_jax.experiment import Experiment, MeshSettings
from ornith_jax.models.decoder import table
from ornith_jax.params import count
from ornith_jax.plan.compile import compile_for
from ornith_jax.plan.flops import cache_bytes
from ornith_jax.plan.report import Plan, layer_inputs, make_plan, mesh_text
from ornith_jax.plan.topology import GIB, Topology, slices

MAX_CONTEXT = 16
MAX_EXPERT = 32  # devices that exchange rows; beyond, the exchange grows and the weights hardly shrink
HOPEFUL = 1.25  # candidates are compiled when the estimate is below this many times the memory
# The working set of one layer's backward pass in float32 arrays of [tokens, D], as compiled programs had it:
LAYER_WIDTHS = 48
EXPERT_WIDTHS = 10  # more, for each expert that a token uses


def search(cfg: ModelConfig, experiment: Experiment, chip_name: str, *, decode: bool, deadline_s: float) -> Plan:
    """Slices from the smallest up, on each the meshes from the least context up. Raises OrnithError when none fits."""
    tried = 0
    for topology in slices(chip_name):
        for candidate in candidates(cfg, experiment, topology, decode=decode):
            expected = expected_bytes(cfg, candidate, topology, decode=decode)
            text = f"{topology.name}, {mesh_text(candidate)}: about {expected / GIB:.0f} GiB expected"
            if expected > HOPEFUL * topology.chip.hbm_bytes:
                _say(f"{text}, not compiled")
                continue
            _say(f"{text}, compiling")
            compiled = compile_for(candidate, topology, decode=decode, deadline_s=deadline_s)
            plan, tried = make_plan(cfg, candidate, topology, compiled, decode=decode), tried + 1
            _say(f"{topology.name}, {mesh_text(candidate)}: needs {compiled.needed / GIB:.1f} GiB, fits: {plan.fits}")
            if plan.fits:
                return plan
    raise OrnithError(f"--search {chip_name}: no slice in plan/topology.py is large enough ({tried} compiled)")


def candidates(cfg: ModelConfig, experiment: Experiment, topology: Topology, *, decode: bool) -> Iterator[Experiment]:
    """Meshes of the slice that divide the model, with as many rows as they have groups of devices."""
    tensor, context = experiment.mesh.tensor, 1
    while context <= (1 if decode else MAX_CONTEXT) and topology.num_devices % (context * tensor) == 0:
        groups = topology.num_devices // (context * tensor)
        expert = 1
        while cfg.moe and expert * 2 <= min(MAX_EXPERT, cfg.moe.num_experts) and groups % (expert * 2) == 0:
            expert *= 2
        mesh = MeshSettings(fsdp=groups // expert, expert=expert, tensor=tensor, context=context)
        train = replace(experiment.train, rows=groups)
        candidate = replace(experiment, mesh=mesh, train=train)
        context *= 2
        try:
            check_training(candidate, topology.num_devices)
        except OrnithError:
            continue
        yield candidate


def expected_bytes(cfg: ModelConfig, experiment: Experiment, topology: Topology, *, decode: bool) -> float:
    """A guess per device, good to half: it only decides what is compiled."""
    params, devices = count(table(cfg)), topology.num_devices
    if decode:
        engine = experiment.engine
        item = jnp.dtype(engine.dtype).itemsize
        return (params * item + engine.slots * cache_bytes(cfg, engine.max_len, item)) / devices
    tokens = experiment.train.seq_len // experiment.mesh.context
    widths = LAYER_WIDTHS + (EXPERT_WIDTHS * cfg.moe.experts_per_token if cfg.moe else 0)
    working = widths * 4 * tokens * cfg.embed_dim
    return state_bytes(params, experiment) + layer_inputs(cfg, experiment) + working


def state_bytes(params: int, experiment: Experiment) -> float:
    """Per device: weights, moments, gradients and the bfloat16 copy of the weights; nothing smaller can train."""
    sizes = asdict(experiment.mesh)
    per_param = jnp.dtype(experiment.train.param_dtype).itemsize + 2 * jnp.dtype(experiment.optim.moment_dtype).itemsize
    gradients = 4 if experiment.train.accumulation == 1 else 8
    return params * (per_param + gradients + 2) * sizes["data"] / math.prod(sizes.values())


def _say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)
