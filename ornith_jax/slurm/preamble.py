"""What every script of a run begins with."""

from __future__ import annotations

import shlex
from dataclasses import dataclass
from pathlib import Path

from ornith_jax.slurm.layout import Layout
from ornith_jax.slurm.site import Site


@dataclass(frozen=True, slots=True, kw_only=True)
class Job:
    """What is asked for: the words of `ornith train`, where the run lives, and how it is laid out."""

    words: tuple[str, ...]  # EXPERIMENT field=value ...
    run: Path  # absolute
    name: str  # of the jobs, unique to the run
    layout: Layout
    site: Site


def preamble(job: Job, tier: str) -> list[str]:
    """The variables of a script, and the environment of what it starts."""
    site = job.site
    container: list[str] = [site.python]
    if site.container:
        binds = [word for folder in (site.run_root, site.scratch, *site.binds) for word in ("--bind", folder)]
        nv = ["--nv"] if site.gpus else []
        container = ["apptainer", "exec", *nv, "--no-home", *binds, site.container, site.container_python]
    return [
        "set -uo pipefail",
        *site.setup,
        f"run={shlex.quote(str(job.run))} script={shlex.quote(str(job.run / 'slurm' / tier))}.sbatch",
        f"words=({shlex.join(job.words)})",
        f"host_python={shlex.quote(site.python)}",
        f"container=({shlex.join(container)})",
        f"stuck_s={site.stuck_s} requeue={int(site.requeue)}",
        f"export ORNITH_HOME={shlex.quote(site.scratch)}/ornith-$(id -un) PYTHONUNBUFFERED=1",
        'mkdir -p "$ORNITH_HOME"',
        *([f'ln -sfn {shlex.quote(site.images)} "$ORNITH_HOME/images"'] if site.images else []),
        f"export JAX_COMPILATION_CACHE_DIR={shlex.quote(site.run_root)}/.jax-cache",
        f'export ORNITH_PORTS="{" ".join(map(str, site.ports))}"',
        f"export ORNITH_PROCESSES={job.layout.learner.nodes}",
        "# gRPC, by which the learner's processes meet, would go through a proxy.",
        "unset http_proxy https_proxy HTTP_PROXY HTTPS_PROXY all_proxy ALL_PROXY",
    ]
