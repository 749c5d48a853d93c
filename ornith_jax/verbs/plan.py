"""`ornith plan`: does an experiment fit a slice of accelerators that is not there, and how fast can it be?"""

from __future__ import annotations

import argparse
from typing import Any


def add_parser(verbs: Any) -> None:
    verb = verbs.add_parser(
        "plan", help="compile the train step, or decoding, for accelerators that are not there: bytes, time, MFU"
    )
    verb.add_argument("experiment", help="a name in experiments/, or a .py file")
    verb.add_argument("overrides", nargs="*", metavar="field=value", help="for example mesh.fsdp=8 train.rows=8")
    where = verb.add_mutually_exclusive_group(required=True)
    where.add_argument("--topology", help="such as v5p:4x4x8, v6e:16x16, h200:8")
    where.add_argument("--search", metavar="CHIP", help="the smallest slice and mesh that fit, such as v5p")
    verb.add_argument("--decode", action="store_true", help="a decoding step of the engine instead of the train step")
    verb.add_argument("--json", action="store_true", help="one JSON object on stdout")
    verb.add_argument("--deadline", type=float, default=7200.0, metavar="SECONDS", help="of one compilation")
    verb.set_defaults(run=_plan)


def _plan(args: argparse.Namespace) -> int:
    """Exit code 0 when it fits, 1 when it does not."""
    from ornith_jax.checks import model_config
    from ornith_jax.experiment import load
    from ornith_jax.plan import report
    from ornith_jax.plan.compile import compile_for
    from ornith_jax.plan.search import search
    from ornith_jax.plan.topology import parse

    experiment = load(args.experiment, args.overrides)
    cfg = model_config(experiment.model)
    if args.search:
        plan = search(cfg, experiment, args.search, decode=args.decode, deadline_s=args.deadline)
    else:
        topology = parse(args.topology)
        compiled = compile_for(experiment, topology, decode=args.decode, deadline_s=args.deadline)
        plan = report.make_plan(cfg, experiment, topology, compiled, decode=args.decode)
    print(report.to_json(plan) if args.json else report.render(plan, cfg))
    return 0 if plan.fits else 1
