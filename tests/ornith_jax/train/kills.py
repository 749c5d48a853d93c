"""Runs of `ornith sft` in their own processes, and the killing of them.

    python -m tests.ornith_jax.train.kills --kills 20 [--seed 0]

kills one run of 30 batches again and again at random moments, until it ends, and compares it with one left alone.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import signal
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from ornith_jax.train.metrics import read

ROOT = Path(__file__).resolve().parents[3]
DEADLINE_S = 300
EXPERIMENT = """
from ornith_jax.experiment import Experiment, OptimSettings, TrainSettings

def get_config():
    return Experiment(
        name="kills",
        model={model!r},
        optim=OptimSettings(learning_rate=1e-2),
        train=TrainSettings(
            steps=30, seq_len=32, rows=4, accumulation=2, dtype="float32", checkpoint_every=3, keep_checkpoints=2
        ),
    )
"""


@dataclass(frozen=True)
class Project:
    """A tiny model, data and an experiment in a folder of their own."""

    folder: Path

    @staticmethod
    def make(folder: Path) -> Project:
        import jax

        from ornith_jax.convert.save_hf import save_hf
        from ornith_jax.models.decoder import table
        from ornith_jax.params import init
        from tests.ornith_jax.train.tiny import DENSE

        save_hf(init(table(DENSE), jax.random.key(0), "float32"), DENSE, folder / "model")
        (folder / "experiment.py").write_text(EXPERIMENT.format(model=str(folder / "model")))
        rng = np.random.default_rng(0)
        lines = []
        for _ in range(90):  # less than two epochs
            ids = (rng.integers(1, 8, int(rng.integers(3, 30))) * 7 + 1).tolist()
            lines.append(
                json.dumps({"token_ids": ids, "loss_mask": [0] * (len(ids) // 3) + [1] * (len(ids) - len(ids) // 3)})
            )
        (folder / "data.jsonl").write_text("\n".join(lines) + "\n")
        return Project(folder)

    @property
    def experiment(self) -> Path:
        return self.folder / "experiment.py"

    @property
    def data(self) -> Path:
        return self.folder / "data.jsonl"

    def metrics(self, run: str) -> Path:
        return self.folder / run / "metrics.jsonl"

    def start(self, run: str, *overrides: str) -> subprocess.Popen[str]:
        command = [
            "-m",
            "ornith_jax.cli",
            "sft",
            self.experiment,
            *overrides,
            "--data",
            self.data,
            "--run",
            self.folder / run,
        ]
        settings = {
            "JAX_PLATFORMS": "cpu",
            "XLA_FLAGS": "--xla_backend_optimization_level=0",
            "JAX_COMPILATION_CACHE_DIR": str(self.folder / "cache"),
            "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0.1",
        }
        return subprocess.Popen(
            [sys.executable, *map(str, command)],
            cwd=ROOT,
            env={**os.environ, **settings},
            stderr=subprocess.PIPE,
            text=True,
        )

    def finish(self, run: str, *overrides: str) -> list[dict]:
        """Let a run go to its end; its records."""
        process = self.start(run, *overrides)
        try:
            _, errors = process.communicate(timeout=DEADLINE_S)
        finally:
            process.kill()
        assert process.returncode == 0, errors
        return read(self.metrics(run))


def kill_at(project: Project, run: str, lines: int, delay_s: float) -> list[dict]:
    """Start a run, kill -9 it `delay_s` after it wrote line `lines`, and return the records that it left."""
    process, deadline = project.start(run), time.monotonic() + DEADLINE_S
    path = project.metrics(run)
    try:
        while len(read(path)) < lines:
            assert process.poll() is None, f"the run ended before its line {lines}: {process.stderr.read()}"
            assert time.monotonic() < deadline, "the run does not get on"
            time.sleep(0.002)
        time.sleep(delay_s)
    finally:
        process.kill()
    process.communicate(timeout=DEADLINE_S)
    assert process.returncode == -signal.SIGKILL, "the run ended before it was killed"
    return read(path)


def compare(whole: list[dict], killed: list[dict], seen: list[dict]) -> None:
    """Every number but the times must be the same; also those that a killed process wrote and that were made again."""
    assert [record["batch"] for record in killed] == [record["batch"] for record in whole]
    expected = {record["batch"]: numbers(record) for record in whole}
    for record in [*killed, *seen]:
        assert numbers(record) == expected[record["batch"]]


def numbers(record: dict) -> dict:
    return {name: value for name, value in record.items() if not name.startswith("time/")}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--kills", type=int, default=20)
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args()
    rng = random.Random(args.seed)
    with tempfile.TemporaryDirectory() as folder:
        project = Project.make(Path(folder))
        whole, seen, runs = project.finish("whole"), [], 0
        for kill in range(args.kills):
            run = f"killed-{runs}"
            at = len(read(project.metrics(run)))
            line = rng.randint(max(at - 3, 1), min(at + 8, 29))
            seen += kill_at(project, run, line, rng.uniform(0, 0.3) if line < 25 else 0.0)
            print(f"kill {kill + 1}: {run} after line {line}, {len(read(project.metrics(run)))} were there", flush=True)
            if line > 20:
                compare(whole, project.finish(run), seen)
                seen, runs = [], runs + 1
        compare(whole, project.finish(f"killed-{runs}"), seen)
    print(f"{args.kills} kills of {runs + 1} runs: all 30 losses of each are those of the run left alone")


if __name__ == "__main__":
    main()
