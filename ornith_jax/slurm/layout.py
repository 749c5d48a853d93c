"""How many nodes an experiment needs on a site, and what part of them each process gets."""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass

from ornith_jax.errors import OrnithError
from ornith_jax.experiment import Experiment
from ornith_jax.slurm.site import Site, Tier

GIB = 2**30


@dataclass(frozen=True, slots=True, kw_only=True)
class Part:
    """`nodes` nodes, on each `processes` processes with `devices` devices and `cpus` CPUs."""

    nodes: int
    processes: int
    devices: int
    cpus: int

    @property
    def devices_per_node(self) -> int:
        return self.processes * self.devices


@dataclass(frozen=True, slots=True, kw_only=True)
class Layout:
    """Of one run: the learner has one process on each of its nodes, an engine replica never spans two."""

    learner: Part
    engine: Part | None  # None: the servers of engine.urls are used
    replicas: int
    driver: Part


def plan_layout(experiment: Experiment, site: Site) -> Layout:
    """Raises OrnithError naming the field of the experiment or of the site that does not fit."""
    replicas = 0 if experiment.engine.urls else experiment.engine.replicas
    return Layout(
        learner=_learner(experiment, site.learner),
        engine=_engine(experiment, site) if replicas else None,
        replicas=replicas,
        driver=Part(nodes=1, processes=1, devices=0, cpus=site.driver.cpus_per_node),
    )


def check_fit(experiment: Experiment, site: Site) -> None:
    """Refuse a mesh whose parameters, moments and gradients alone are too much; `ornith plan` says the rest.

    Raises OrnithError with the command that finds what fits.
    """
    if not site.chip:
        return
    from ornith_jax.checks import model_config
    from ornith_jax.models.decoder import table
    from ornith_jax.params import count
    from ornith_jax.plan.search import state_bytes
    from ornith_jax.plan.topology import slices

    room = slices(site.chip)[0].chip.hbm_bytes
    need = state_bytes(count(table(model_config(experiment.model))), experiment)
    if need > room:
        raise OrnithError(
            f"mesh: parameters, moments and gradients of {experiment.model} need {need / GIB:.1f} GiB on each of "
            f"{math.prod(asdict(experiment.mesh).values())} devices, and {site.chip} has {room / GIB:.1f}; "
            f"`ornith plan EXPERIMENT --search {site.chip}` finds what fits"
        )


def _learner(experiment: Experiment, tier: Tier) -> Part:
    devices, per_node = math.prod(asdict(experiment.mesh).values()), tier.devices_per_node
    if devices > per_node and devices % per_node:
        raise OrnithError(f"mesh: {devices} devices are no whole nodes of learner.devices_per_node={per_node}")
    nodes, here = max(1, devices // per_node), min(devices, per_node)
    return Part(nodes=nodes, processes=1, devices=here, cpus=_share(tier, here))


def _engine(experiment: Experiment, site: Site) -> Part:
    tier, width, replicas = site.engine, experiment.engine.tensor_parallel, experiment.engine.replicas
    if width > tier.devices_per_node:
        raise OrnithError(
            f"engine.tensor_parallel: {width} is more than engine.devices_per_node={tier.devices_per_node} of the "
            "site; a replica must fit one node"
        )
    here = min(tier.devices_per_node // width, replicas) if tier.exclusive else 1
    nodes = math.ceil(replicas / here)
    if nodes > site.max_array:
        raise OrnithError(f"engine.replicas: {replicas} make an array of {nodes}, more than max_array={site.max_array}")
    return Part(nodes=nodes, processes=here, devices=width, cpus=_share(tier, width))


def _share(tier: Tier, devices: int) -> int:
    """The CPUs that go with some devices of a node."""
    return max(1, tier.cpus_per_node * devices // tier.devices_per_node)
