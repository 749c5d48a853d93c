"""sbatch files: text that a person can read, change and submit by hand.

split    learner, engines (an array) and driver are jobs of their own: losing an engine touches nothing else
single   one job on one allocation, cut into slices: queues once
het      one heterogeneous job: for sites that must start different kinds of nodes together
pod      no Slurm: a script that is started on every host (`slurm.pod`)
"""

from __future__ import annotations

import math
from collections.abc import Sequence

from ornith_jax.errors import OrnithError
from ornith_jax.slurm.layout import Part
from ornith_jax.slurm.library import LIBRARY
from ornith_jax.slurm.pod import render_pod
from ornith_jax.slurm.preamble import Job, preamble
from ornith_jax.slurm.site import Site, Tier

SHARING = "--exact --mem=0"
"""Of steps that run beside each other on a node: each its own CPUs and accelerators, all of them the job's memory."""


def render(job: Job, mode: str) -> dict[str, str]:
    """{file name: script}; the name without .sbatch is the tier."""
    return {"split": _split, "single": _single, "het": _het, "pod": render_pod}[mode](job)


def _split(job: Job) -> dict[str, str]:
    site, layout = job.site, job.layout
    files = {
        "learner.sbatch": script(
            job,
            "learner",
            directives(job, "learner", layout.learner, "learner.out"),
            [keep_learner(site, layout.learner, ""), "settle"],
        ),
        "driver.sbatch": script(
            job,
            "driver",
            directives(job, "driver", layout.driver, "driver.out"),
            [keep_driver(site, layout.driver.cpus, ""), "settle"],
        ),
    }
    if layout.engine:
        per_node, last = layout.engine.processes, layout.replicas - 1
        head = [
            f"--array=0-{layout.engine.nodes - 1}",
            *directives(job, "engine", layout.engine, "engine-%a.out"),
        ]
        first = f"SLURM_ARRAY_TASK_ID * {per_node}" if per_node > 1 else "SLURM_ARRAY_TASK_ID"
        body = [f"first=$(({first})) last=$(({first} + {per_node - 1})); [ $last -gt {last} ] && last={last}"]
        where = f"{SHARING} " if per_node > 1 else ""
        body += keep_engines(site, layout.engine, "$first", "$last", where)
        files["engine.sbatch"] = script(job, "engine", head, [*body, "settle"])
    return files


def _single(job: Job) -> dict[str, str]:
    """Nodes in order: the learner's, then the engines'; on a node that the learner leaves half empty, engines too.

    The driver has a share of the first node's CPUs, which the others leave free on every node.
    """
    site, layout = job.site, job.layout
    tier, per_node, beside = site.learner, 1, 0
    nodes = layout.learner.nodes
    if layout.engine:
        per_node = tier.devices_per_node // layout.engine.devices
        if not per_node:
            raise OrnithError(
                f"engine.tensor_parallel: {layout.engine.devices} is more than learner.devices_per_node="
                f"{tier.devices_per_node}, and --mode single has one kind of node"
            )
        if nodes == 1:
            beside = min((tier.devices_per_node - layout.learner.devices) // layout.engine.devices, layout.replicas)
        nodes += math.ceil((layout.replicas - beside) / per_node)
    driver_cpus = max(1, min(layout.driver.cpus, tier.cpus_per_node // 4))

    def share(devices: int) -> Part:
        cpus = (tier.cpus_per_node - driver_cpus) * devices // tier.devices_per_node
        return Part(nodes=layout.learner.nodes, processes=1, devices=devices, cpus=max(1, cpus))

    whole = Part(nodes=nodes, processes=1, devices=tier.devices_per_node, cpus=tier.cpus_per_node)
    first = f'$(IFS=,; echo "${{nodes[*]:0:{layout.learner.nodes}}}")'
    body = [
        'nodes=($(scontrol show hostnames "$SLURM_JOB_NODELIST"))',
        keep_learner(site, share(layout.learner.devices), f"--nodelist={first} {SHARING} "),
    ]
    if layout.engine:
        node = f"k < {beside} ? 0 : {layout.learner.nodes} + (k - {beside}) / {per_node}"
        at = f"--nodelist=${{nodes[$(({node}))]}} {SHARING} "
        body += keep_engines(site, share(layout.engine.devices), "0", str(layout.replicas - 1), at)
    body += [keep_driver(site, driver_cpus, f"--nodelist=${{nodes[0]}} {SHARING} "), "settle"]
    return {"all.sbatch": script(job, "all", directives(job, "learner", whole, "all.out", tier="all"), body)}


def _het(job: Job) -> dict[str, str]:
    site, layout = job.site, job.layout
    parts = [("learner", layout.learner)] + ([("engine", layout.engine)] if layout.engine else [])
    parts.append(("driver", layout.driver))
    head: list[str] = []
    for role, part in parts:
        head += (["hetjob"] if head else []) + directives(job, role, part, "all.out" if not head else "", tier="all")
    body = [keep_learner(site, layout.learner, "--het-group=0 ")]
    if layout.engine:
        body.append('nodes=($(scontrol show hostnames "$SLURM_JOB_NODELIST_HET_GROUP_1"))')
        at = f"--het-group=1 --nodelist=${{nodes[$((k / {layout.engine.processes}))]}} {SHARING} "
        body += keep_engines(site, layout.engine, "0", str(layout.replicas - 1), at)
    body += [keep_driver(site, layout.driver.cpus, f"--het-group={len(parts) - 1} "), "settle"]
    return {"all.sbatch": script(job, "all", head, body)}


def script(job: Job, tier: str, head: Sequence[str], body: Sequence[str]) -> str:
    """One file: options, this run's variables, the library, what is kept up."""
    options = ["#SBATCH " + line for line in head]
    return "\n".join(["#!/bin/bash", *options, *preamble(job, tier), LIBRARY.rstrip("\n"), "", *body]) + "\n"


def directives(job: Job, role: str, part: Part, output: str, tier: str = "") -> list[str]:
    """Options of sbatch. Without `output`: of a further component of a het job, which has no output of its own."""
    site = job.site
    settings: Tier = getattr(site, role)
    lines = [f"--job-name={job.name}-{tier or role}"]
    lines += [f"--account={site.account}"] if site.account else []
    for option in ("partition", "constraint", "qos"):
        value = getattr(settings, option)
        lines += [f"--{option}={value}"] if value else []
    lines.append(f"--nodes={part.nodes if role != 'engine' or tier else 1} --ntasks-per-node={part.processes}")
    lines.append(f"--cpus-per-task={part.cpus}")
    lines += [site.gpus.format(part.devices_per_node)] if part.devices and site.gpus else []
    lines += [f"--mem={settings.memory}"] if settings.memory else []
    lines += ["--exclusive"] if settings.exclusive else []
    lines.append(f"--time={settings.time}")
    if output:
        lines.append(f"--signal=B:USR1@{settings.notice_s}")
        lines.append("--requeue" if site.requeue else "--no-requeue")
        lines.append(f"--open-mode=append --output={job.run}/logs/{output}")
    return [*lines, *settings.extra]


def keep_learner(site: Site, part: Part, where: str) -> str:
    return f"{_environment(site, part)}keep learner learner {where}{_step(site, part, part.nodes)} & keeps+=($!)"


def keep_driver(site: Site, cpus: int, where: str) -> str:
    part = Part(nodes=1, processes=1, devices=0, cpus=cpus)
    return f"keep driver driver {where}{_step(site, part, 1)} & keeps+=($!)"


def keep_engines(site: Site, part: Part, first: str, last: str, where: str) -> list[str]:
    """Each replica is a step of its own: one that ends takes no other with it."""
    return [
        f"for ((k = {first}; k <= {last}; k++)); do",
        f"  {_environment(site, part)}keep engine-$k engine {where}{_step(site, part, 1)} & keeps+=($!)",
        "done",
    ]


def _step(site: Site, part: Part, nodes: int) -> str:
    """Everything said again: a step inherits the numbers of the job's first component on some versions of Slurm."""
    words = [f"--nodes={nodes} --ntasks={nodes} --ntasks-per-node=1 --cpus-per-task={part.cpus}"]
    words += [site.gpus.format(part.devices)] if part.devices and site.gpus else []
    return " ".join(words)


def _environment(site: Site, part: Part) -> str:
    """Without accelerators, jax is told how many devices to make of a node."""
    return "" if site.gpus else f"JAX_PLATFORMS=cpu JAX_NUM_CPU_DEVICES={part.devices} "
