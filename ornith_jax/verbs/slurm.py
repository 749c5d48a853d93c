"""`ornith slurm | preflight`: a run as Slurm jobs, and whether the nodes can carry it."""

from __future__ import annotations

import argparse
import hashlib
import os
import re
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ornith_jax.errors import OrnithError
from ornith_jax.verbs.config import add_experiment

if TYPE_CHECKING:
    from ornith_jax.slurm.preamble import Job


def add_parser(verbs: Any) -> None:
    verb = verbs.add_parser("slurm", help="submit a run to Slurm; the same command again recovers what has ended")
    add_experiment(verb)
    verb.add_argument("--site", type=Path, help="the cluster, a TOML file (default: $ORNITH_SITE); see docs/hpc.md")
    verb.add_argument(
        "--run", dest="run_dir", type=Path, metavar="DIR", help="the run directory (default: below the site's run_root)"
    )
    verb.add_argument("--mode", choices=("split", "single", "het", "pod"), default="split", help="see docs/hpc.md")
    verb.add_argument("--dry-run", action="store_true", help="print the scripts; write and submit nothing")
    verb.add_argument("--preflight", action="store_true", help="check nodes of every tier instead; submits no run")
    verb.set_defaults(run=_slurm)

    verb = verbs.add_parser("preflight", help="the checks of `ornith slurm --preflight`, on this node")
    verb.add_argument("--out", type=Path, required=True, help="a new folder that all nodes of the tier see")
    verb.add_argument("--tier", choices=("learner", "engine", "driver"), required=True)
    verb.add_argument("--nodes", type=int, default=1, help="that run this command now")
    verb.add_argument("--platform", choices=("gpu", "cpu"), default="cpu")
    verb.add_argument("--devices", type=int, default=0, help="at least so many")
    verb.add_argument("--run-root", required=True, help="the shared folder of runs")
    verb.add_argument("--scratch", required=True, help="a folder on this node's disk")
    verb.add_argument("--ports", default="", help='"FIRST LAST"; empty: any')
    verb.add_argument("--sandbox", default="auto", help="rollout.sandbox of the experiment")
    verb.add_argument("--container", default="", help="the image of the tier")
    verb.add_argument("inside", nargs="*", default=[sys.executable], help="the Python that runs the role")
    verb.set_defaults(run=_preflight)


def _slurm(args: argparse.Namespace) -> int:
    from ornith_jax.slurm.render import render
    from ornith_jax.slurm.submit import submit, write_scripts

    job = make_job(args)
    if args.preflight:
        return _preflight_all(args, job)
    files = render(job, args.mode)
    if args.dry_run:
        print("\n".join(f"# ---- {job.run}/slurm/{name}\n{text}" for name, text in files.items()), end="")
        return 0
    scripts = write_scripts(job.run, files)
    if args.mode == "pod":
        print(f"{scripts[0]}: written; start it on every host, as its first lines say")
        return 0
    jobs = submit(job.run, job.name, scripts)
    for tier, number in jobs.items():
        print(f"{tier}: job {number}, log {job.run}/logs/")
    print(f"{job.run}: submitted; `squeue --me`, or `ornith report {job.run} --live`")
    return 0


def _preflight_all(args: argparse.Namespace, job: Job) -> int:
    from ornith_jax.experiment import load
    from ornith_jax.slurm.preflight import preflight

    text, well = preflight(job, load(args.experiment, args.overrides).rollout.sandbox)
    print(text)
    return 0 if well else 1


def _preflight(args: argparse.Namespace) -> int:
    from ornith_jax.slurm.preflight import on_node, read_reports, table

    on_node(
        args.out,
        tier=args.tier,
        nodes=args.nodes,
        inside=args.inside,
        platform=args.platform,
        devices=args.devices,
        job={name: getattr(args, name) for name in ("run_root", "scratch", "ports", "sandbox", "container")},
    )
    text, well = table({args.tier: read_reports(args.out)}, {}, args.out)
    print(text)
    return 0 if well else 1


def make_job(args: argparse.Namespace) -> Job:
    """What the command line asks for. Raises OrnithError for whatever of it cannot be."""
    from ornith_jax.experiment import load
    from ornith_jax.slurm.layout import check_fit, plan_layout
    from ornith_jax.slurm.preamble import Job
    from ornith_jax.slurm.site import read_site

    path = args.site or Path(os.environ.get("ORNITH_SITE", ""))
    if not path.name:
        raise OrnithError("--site: name the cluster's file, or set ORNITH_SITE; docs/hpc.md has two to begin from")
    site, experiment = read_site(path), load(args.experiment, args.overrides)
    check_fit(experiment, site)
    run = (args.run_dir or Path(site.run_root) / experiment.name).absolute()
    if not run.is_relative_to(site.run_root):
        raise OrnithError(f"--run: {run} is not below the site's run_root={site.run_root}, which all nodes share")
    plain, digest = re.sub("[^A-Za-z0-9]+", "-", experiment.name), hashlib.sha256(str(run).encode()).hexdigest()
    word = str(Path(args.experiment).absolute()) if args.experiment.endswith(".py") else args.experiment
    return Job(
        words=(word, *args.overrides),
        run=run,
        name=f"ornith-{plain}-{digest[:6]}",
        layout=plan_layout(experiment, site),
        site=site,
    )
