"""The site file: one small TOML with what a cluster wants to hear. See docs/hpc.md for two of them."""

from __future__ import annotations

import os
import tomllib
from dataclasses import dataclass
from pathlib import Path

from ornith_jax.errors import OrnithError
from ornith_jax.overrides import build

ROLES = ("learner", "engine", "driver")


@dataclass(frozen=True, slots=True, kw_only=True)
class Tier:
    """The nodes of one role. Empty text: the site's default is right."""

    partition: str = ""
    constraint: str = ""
    qos: str = ""
    time: str = "24:00:00"  # of one job; a run goes on in the next
    notice_s: int = 300  # before the end of time or a preemption: one step, one checkpoint, and half a minute
    cpus_per_node: int = 1
    devices_per_node: int = 0  # accelerators; without accelerators, CPU devices that one process makes of its node
    memory: str = ""  # of a node, such as 400G; 0: all of it
    exclusive: bool = False  # the site gives whole nodes only
    extra: tuple[str, ...] = ()  # further options of sbatch, such as --switches=1


@dataclass(frozen=True, slots=True, kw_only=True)
class Site:
    """One cluster. Paths are absolute, and `run_root` is the same on every node."""

    run_root: str  # on the shared file system: run directories
    scratch: str  # on each node's own disk: sandboxes
    python: str  # an interpreter with ornith-jax, on the shared file system: scripts and driver use it
    images: str = ""  # sandbox images that all nodes share; empty: each node has its own, below scratch
    account: str = ""
    chip: str = ""  # as `ornith plan` names it, such as h200: what cannot fit is refused; empty: nothing is known
    gpus: str = "--gpus-per-node={}"  # or --gres=gpu:h200:{}; empty: a cluster without accelerators
    setup: tuple[str, ...] = ()  # lines of bash before anything else, such as module load apptainer
    container: str = ""  # a .sif image for learner and engines; empty: `python` runs them too
    container_python: str = "/opt/ornith/bin/python"
    binds: tuple[str, ...] = ()  # further folders that the container shall see
    ports: tuple[int, ...] = ()  # (first, last) that the nodes' firewalls leave open; empty: any
    requeue: bool = True  # false where the site forbids it: a copy is submitted instead
    max_array: int = 1000
    stuck_s: int = 1800  # a role that gives no sign of life for so long is dumped, killed and started again
    learner: Tier = Tier()
    engine: Tier = Tier()
    driver: Tier = Tier()


def read_site(path: Path) -> Site:
    """Raises OrnithError that names the file and the field."""
    try:
        values = tomllib.loads(path.read_text())
    except FileNotFoundError:
        raise OrnithError(f"{path}: no such file; docs/hpc.md has two to begin from") from None
    except tomllib.TOMLDecodeError as error:
        raise OrnithError(f"{path}: not TOML ({error})") from None
    try:
        site = build(Site, values)
        check_site(site)
    except OrnithError as error:
        raise OrnithError(f"{path}: {error}") from None
    return site


def check_site(site: Site) -> None:
    """Raises OrnithError naming the field."""
    for name in ("run_root", "scratch", "python", "images", "container"):
        value = getattr(site, name)
        if value and not os.path.isabs(value):
            raise OrnithError(f"{name}: {value!r} is not an absolute path; every node must mean the same by it")
    if site.gpus and site.gpus.count("{}") != 1:
        raise OrnithError(f"gpus: {site.gpus!r} needs one {{}} where the number goes, such as --gres=gpu:{{}}")
    if site.ports and (len(site.ports) != 2 or not 1024 <= site.ports[0] <= site.ports[1] < 65536):
        raise OrnithError(f"ports: {list(site.ports)} is not [first, last] with 1024 <= first <= last < 65536")
    for name in ("max_array", "stuck_s"):
        if getattr(site, name) < 1:
            raise OrnithError(f"{name}: {getattr(site, name)} is less than 1")
    for role in ROLES:
        tier: Tier = getattr(site, role)
        if role != "driver" and tier.devices_per_node < 1:
            raise OrnithError(f"{role}.devices_per_node: {tier.devices_per_node} is less than 1")
        if tier.cpus_per_node < 1:
            raise OrnithError(f"{role}.cpus_per_node: {tier.cpus_per_node} is less than 1")
        if tier.notice_s < 60:
            raise OrnithError(
                f"{role}.notice_s: {tier.notice_s} is less than 60; Slurm looks at the time twice a minute"
            )
        if seconds(tier.time) <= tier.notice_s:
            raise OrnithError(f"{role}.time: {tier.time} is no longer than {role}.notice_s={tier.notice_s} seconds")
        for line in (*tier.extra, tier.partition, tier.constraint, tier.qos, tier.memory):
            if "\n" in line:
                raise OrnithError(f"{role}: {line!r} holds a line break")


def seconds(time: str) -> float:
    """Slurm's ways to write a duration: minutes, M:S, H:M:S, D-H, D-H:M, D-H:M:S, or infinite. Raises OrnithError."""
    if time.lower() in ("infinite", "unlimited"):
        return float("inf")
    days, dash, clock = time.rpartition("-")
    try:
        parts = [int(part) for part in clock.split(":")]
        if dash:
            hours, minutes, rest = [*parts, 0, 0][:3]
        else:
            hours, minutes, rest = {1: (0, *parts, 0), 2: (0, *parts), 3: tuple(parts)}[len(parts)]
        return ((int(days or 0) * 24 + hours) * 60 + minutes) * 60 + rest
    except (ValueError, KeyError):
        raise OrnithError(f"time: {time!r} is none of H:M:S, D-H:M:S, minutes or infinite") from None
