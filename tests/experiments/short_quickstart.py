"""The quickstart in its short form: the whole loop, in processes of its own, with real sandboxes, and it learns.

Not in CI yet: it takes 8 to 9 minutes of two idle cores, and with it CI would come too near to its 40. It passed with
an earlier warm start and was not run with this one (docs/quickstart.md). By name:
`pytest -n 0 tests/experiments/short_quickstart.py`.
"""

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from ornith_jax.train.metrics import read
from rollout.judging.card import read_card
from rollout.run_dir import read_json
from tests.envs.conftest import base_image  # noqa: F401

pytestmark = pytest.mark.slow
STEPS = 16
DEADLINE_S = 1500  # eight minutes on two idle cores; the other worker of the tests has one of them here


def test_the_short_form_learns_and_the_same_command_finds_nothing_left_to_do(tmp_path: Path, base_image):  # noqa: F811
    """One seed: the reward of the last batches is above that of the first ones."""
    run = tmp_path / "run"
    quickstart(run)
    rewards = [record["reward/mean"] for record in read(run / "metrics.jsonl")]
    assert len(rewards) == STEPS
    assert np.mean(rewards[-5:]) > np.mean(rewards[:5])
    before, after = (read_json(run / "evals" / f"{name}.json") for name in ("before", "after"))
    assert before["policy_version"] == 0 < after["policy_version"] <= STEPS
    assert before["per_task"].keys() == after["per_task"].keys()
    assert "held-out" in (run / "report.html").read_text()
    card = read_card(run / "judge" / "model")  # floors: it has a quarter of the training of docs/filter.md
    assert card.precision.value > 0.8
    assert card.recall.value > 0.1

    stamps = {path: path.stat().st_mtime_ns for path in (run / "weights").rglob("*")}
    quickstart(run)
    assert {path: path.stat().st_mtime_ns for path in (run / "weights").rglob("*")} == stamps


def quickstart(run: Path) -> str:
    """What it prints. Without the flags of the tests: they make compiling fast, and running slow."""
    environ = {name: value for name, value in os.environ.items() if name not in ("XLA_FLAGS", "OMP_NUM_THREADS")}
    words = ["--short", "--run", str(run), "--steps", str(STEPS), "--tasks", "16", "--sandbox", "bubblewrap"]
    done = subprocess.run(
        [sys.executable, "-m", "experiments.quickstart", *words],
        env=environ,
        capture_output=True,
        text=True,
        timeout=DEADLINE_S,
    )
    assert done.returncode == 0, (done.stdout + done.stderr)[-6000:]
    return done.stdout
