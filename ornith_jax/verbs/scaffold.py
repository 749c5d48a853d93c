"""`ornith scaffold show | diff | tree`: what a run's policy wrote for itself, and how it fared."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from ornith_jax.errors import OrnithError


def add_parser(verbs: Any) -> None:
    scaffold = verbs.add_parser("scaffold", help="the scaffolds of a run: documents, lineage, rewards")
    verbs = scaffold.add_subparsers(dest="scaffold", required=True, metavar="VERB")
    show = verbs.add_parser("show", help="one scaffold with its record, or all of a task")
    show.add_argument("names", nargs=1, metavar="ID|TASK")
    diff = verbs.add_parser("diff", help="what changed from one scaffold to another")
    diff.add_argument("names", nargs=2, metavar="ID")
    tree = verbs.add_parser("tree", help="who came from whom")
    tree.add_argument("names", nargs="?", metavar="TASK", default=None)
    for verb in (show, diff, tree):
        verb.add_argument("--run", dest="folder", type=Path, required=True, metavar="RUN", help="a run directory")
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
        names = [args.names] if args.scaffold == "tree" else args.names
        print(getattr(show, args.scaffold)(library, *names))
    except RolloutError as error:
        raise OrnithError(str(error)) from None
    for line in library.damaged:
        print(f"left out, damaged: {folder / line}")
