"""Asynchronous training beside synchronous training and the ideal, by real runs of `ornith train`.

    python -m benchmarks.pipeline [--experiment FILE] [--batches 20] [--lags 0 1 2]

The synchronous run (lag 0) alternates: its learner waits while episodes run, and the other way round. What a batch
takes there is the sum of the two parts; no pipeline is faster than the larger of them, which is the ideal. Where
learner and engine share the cores, even the ideal cannot be reached: the parts slow each other down.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import tempfile
from pathlib import Path
from statistics import mean

from ornith_jax.train.metrics import read

WARM = 3  # batches that may compile, left out
DEADLINE_S = 3600


def run(experiment: Path, folder: Path, lag: int, batches: int) -> list[dict[str, float | None]]:
    """The records of a whole run at that lag."""
    words = [str(experiment), f"rollout.max_staleness={lag}", f"train.steps={batches + WARM}", "--run", str(folder)]
    command = [sys.executable, "-m", "ornith_jax.cli", "train", *words]
    done = subprocess.run(command, stderr=subprocess.PIPE, text=True, timeout=DEADLINE_S, env={**os.environ})
    if done.returncode:
        sys.exit(f"the run at lag {lag} ended with {done.returncode}: {done.stderr[-2000:]}")
    return read(folder / "metrics.jsonl")[WARM:]


def mean_of(records: list[dict[str, float | None]], *names: str) -> float:
    """Seconds of a batch that these parts took together."""
    return mean(sum(record[name] or 0.0 for name in names) for record in records)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--experiment", type=Path, help="default: a tiny random model")
    parser.add_argument("--batches", type=int, default=20)
    parser.add_argument("--lags", type=int, nargs="+", default=[0, 1, 2])
    args = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="pipeline_") as name:
        folder = Path(name)
        experiment = args.experiment
        if experiment is None:
            from tests.ornith_jax.train.tiny_run import make

            experiment = make(folder, steps=1)
        runs = {lag: run(experiment, folder / f"lag{lag}", lag, args.batches) for lag in dict.fromkeys([0, *args.lags])}
    generating, training = mean_of(runs[0], "time/wait_s"), mean_of(runs[0], "time/step_s", "time/publish_s")
    ideal, synchronous = max(generating, training), generating + training
    print(f"a batch takes {generating:.2f} s of episodes and {training:.2f} s of training: ideal {ideal:.2f} s")
    print("lag  s/batch  of synchronous  of ideal  staleness  engine-learner KL")
    for lag, records in runs.items():
        seconds = mean_of(records, "time/wait_s", "time/step_s", "time/publish_s")
        age, kl = mean_of(records, "staleness/mean"), mean(record.get("kl/engine") or 0.0 for record in records)
        print(f"{lag:3}  {seconds:7.2f}  {synchronous / seconds:12.2f} x  {ideal / seconds:8.2f}  {age:9.2f}  {kl:.2e}")


if __name__ == "__main__":
    main()
