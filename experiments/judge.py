"""The quickstart's judge, made and measured: `python -m experiments.judge [--seeds 0 1 2] [--out DIR]`.

What it runs: for each seed a labelled set, a 0.6M-parameter model trained on it, thresholds, and a card of rates on
cases that it was not trained on, by family, with intervals. Then its speed as a server answers.
On what, for how long: two CPU cores, two minutes a seed when they are idle; no network, no sandbox.
What was seen: docs/filter.md, "The quickstart's judge".
"""

from __future__ import annotations

import argparse
import time
from pathlib import Path

from envs.guard.exhibit import exhibit
from ornith_jax.judge.reader import load_reader
from ornith_jax.judge.train import train_judge
from rollout.judging.card import render
from rollout.judging.labelled import Sizes, labelled


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--out", type=Path, default=Path("runs/judge"))
    args = parser.parse_args()
    for seed in args.seeds:
        began = time.monotonic()
        card = train_judge(args.out / f"seed{seed}", seed)
        print(f"\nseed {seed}, {time.monotonic() - began:.0f} s\n{render(card)}", flush=True)
        print(f"  a verdict takes      {1000 * seconds_each(card.model):5.0f} ms, the second vote nothing", flush=True)


def seconds_each(model: Path) -> float:
    """Of one verdict on a record that was not seen before, compiled."""
    reader = load_reader(model)
    parts = labelled(99, Sizes(train=0, validation=0, heldout=21, unseen=0))
    records = [exhibit(case.episode).text().split("\n") for case in parts.heldout]
    reader.verdict(records[0])
    began = time.monotonic()
    for record in records[1:]:
        reader.verdict(record)
    return (time.monotonic() - began) / len(records[1:])


if __name__ == "__main__":
    main()
