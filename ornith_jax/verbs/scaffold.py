"""`ornith scaffold show | diff | tree`: what a run's policy wrote for itself, and how it fared."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from ornith_jax.errors import OrnithError


def add_parser(verbs: Any) -> None:
    scaffold = verbs.add_parser("scaffold", help="the scaffolds of a run: documents, lineage, rewards")
    verbs = scaffold.add_subparsers(dest="scaffold", required=True, metavar="VERB")
    for name, count, metavar, says in (
        ("show", 1, "ID|TASK", "one scaffold with its record, or all of a task"),
        ("diff", 2, "ID", "what changed from one scaffold to another"),
        ("tree", "*", "TASK", "who came from whom, in all tasks or in those named"),
    ):
        verb = verbs.add_parser(name, help=says)
        verb.add_argument("folder", type=Path, metavar="RUN", help="a run directory")
        verb.add_argument("names", nargs=count, metavar=metavar)
        verb.set_defaults(run=_run)


def _run(args: argparse.Namespace) -> None:
    from rollout.errors import RolloutError
    from rollout.scaffold import show
    from rollout.scaffold.library import Library

    folder = args.folder / "scaffolds"
    if not folder.is_dir():
        raise OrnithError(f"{folder}: there is no such folder; a run keeps its scaffolds in RUN/scaffolds")
    library = Library(folder)
    try:
        print(getattr(show, args.scaffold)(library, *args.names))
    except RolloutError as error:
        raise OrnithError(str(error)) from None
    for line in library.damaged:
        print(f"left out, damaged: {folder / line}")
