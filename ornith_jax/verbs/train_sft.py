"""`ornith sft`: supervised training from a file of token ids, resumed by the same command."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from ornith_jax.verbs.config import add_experiment


def add_parser(verbs: Any) -> None:
    verb = verbs.add_parser(
        "sft",
        help="train on given token sequences; the same command goes on after a kill",
        description='The data: a .jsonl file with {"token_ids": [...], "loss_mask": [...]} on each line, '
        "or an .npz file with flat token_ids, loss_mask and the lengths of the sequences.",
    )
    add_experiment(verb)
    verb.add_argument("--data", type=Path, required=True, help="a .jsonl or .npz file of sequences")
    verb.add_argument("--run", dest="run_dir", type=Path, required=True, help="the run directory")
    verb.set_defaults(run=_run)


def _run(args: argparse.Namespace) -> None:
    from ornith_jax.experiment import load
    from ornith_jax.processes import join
    from ornith_jax.train.loop import train_sft

    join()
    train_sft(load(args.experiment, args.overrides), args.data, args.run_dir)
