"""`ornith config`: what an experiment comes to, with every override applied and every field checked."""

from __future__ import annotations

import argparse
from typing import Any


def add_parser(verbs: Any) -> None:
    verb = verbs.add_parser("config", help="print an experiment as it would run, or why it cannot")
    add_experiment(verb)
    verb.set_defaults(run=_run)


def add_experiment(verb: argparse.ArgumentParser) -> None:
    """The two words that every verb on an experiment begins with: EXPERIMENT [field=value ...]."""
    verb.add_argument(
        "experiment", metavar="EXPERIMENT", help="a name in experiments/, or a .py file with get_config()"
    )
    verb.add_argument("overrides", nargs="*", metavar="field=value", help="such as loss.k1=2 or mesh.fsdp=8")


def _run(args: argparse.Namespace) -> None:
    from ornith_jax.checks import check
    from ornith_jax.experiment import load, to_json

    experiment = load(args.experiment, args.overrides)
    check(experiment)
    print(to_json(experiment), end="")
