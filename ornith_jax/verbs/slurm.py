"""`ornith slurm | preflight`: a run as Slurm jobs, and whether the nodes can carry it."""

from __future__ import annotations

import argparse
import hashlib
import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ornith_jax.errors import OrnithError
from ornith_jax.verbs.config import add_experiment

if TYPE_CHECKING:
    from ornith_jax.slurm.render import Job


def add_parser(verbs: Any) -> None:
    verb = verbs.add_parser("slurm", help="submit a run to Slurm; the same command again recovers what has ended")
    add_experiment(verb)
    verb.add_argument("--site", type=Path, help="the cluster, a TOML file (default: $ORNITH_SITE); see docs/hpc.md")
    verb.add_argument("--run", dest="run_dir", type=Path, metavar="DIR", help="the run directory (default: below the site's run_root)")
    verb.add_argument("--mode", choices=("split", "single", "het", "tpu"), default="split", help="see docs/hpc.md")
    verb.add_argument("--dry-run", action="store_true", help="print the scripts; write and submit nothing")
    verb.add_argument("--preflight", action="store_true", help="check nodes of every tier instead; submits no run")
    verb.set_defaults(run=_slurm)


def _slurm(args: argparse.Namespace) -> int:
    from ornith_jax.slurm.render import render
    from ornith_jax.slurm.submit import submit, write_scripts

    job = make_job(args)
    files = render(job, args.mode)
    if args.dry_run:
        print("\n".join(f"# ---- {job.run}/slurm/{name}\n{text}" for name, text in files.items()), end="")
        return 0
    scripts = write_scripts(job.run, files)
    jobs = submit(job.run, job.name, scripts)
    for tier, number in jobs.items():
        print(f"{tier}: job {number}, log {job.run}/logs/")
    print(f"{job.run}: submitted; `squeue --me`, or `ornith report {job.run} --live`")
    return 0


def make_job(args: argparse.Namespace) -> Job:
    """What the command line asks for. Raises OrnithError for whatever of it cannot be."""
    from ornith_jax.experiment import load
    from ornith_jax.slurm.layout import check_fit, plan_layout
    from ornith_jax.slurm.render import Job
    from ornith_jax.slurm.site import read_site

    path = args.site or Path(os.environ.get("ORNITH_SITE", ""))
    if not path.name:
        raise OrnithError("--site: name the cluster's file, or set ORNITH_SITE; docs/hpc.md has two to begin from")
    site, experiment = read_site(path), load(args.experiment, args.overrides)
    check_fit(experiment, site)
    run = (args.run_dir or Path(site.run_root) / experiment.name).absolute()
    if not run.is_relative_to(site.run_root):
        raise OrnithError(f"--run: {run} is not below the site's run_root={site.run_root}, which all nodes share")
    word = str(Path(args.experiment).absolute()) if args.experiment.endswith(".py") else args.experiment
    return Job(
        words=(word, *args.overrides),
        run=run,
        name=f"ornith-{experiment.name}-{hashlib.sha256(str(run).encode()).hexdigest()[:6]}",
        layout=plan_layout(experiment, site),
        site=site,
    )
