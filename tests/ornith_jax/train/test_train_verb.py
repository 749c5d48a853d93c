"""`ornith train` as people run it: real processes, sandboxes and grading; each is killed once, and once interrupted."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from ornith_jax.train.metrics import read
from rollout.run_dir import plans, read_events, read_json, read_progress
from tests.ornith_jax.train import tiny_run

ROOT = Path(__file__).resolve().parents[3]
DEADLINE_S = 600


@pytest.fixture(scope="module")
def project(tmp_path_factory) -> Path:
    return tiny_run.make(tmp_path_factory.mktemp("verb"), steps=12).parent


def start(project: Path, *overrides: str) -> subprocess.Popen[str]:
    command = ["train", project / "experiment.py", *overrides, "--run", project / "run"]
    settings = {
        "JAX_PLATFORMS": "cpu",
        "XLA_FLAGS": "--xla_backend_optimization_level=0",
        "JAX_COMPILATION_CACHE_DIR": str(project / "cache"),
        "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0.1",
    }
    return subprocess.Popen(
        [sys.executable, "-m", "ornith_jax.cli", *map(str, command)],
        cwd=ROOT,
        env={**os.environ, **settings},
        stderr=subprocess.PIPE,
        text=True,
    )


def pids(run: Path) -> dict[str, int]:
    found = {path.stem: read_json(path) for path in (run / "heartbeats").glob("*.json")}
    return {name: heart["pid"] for name, heart in found.items() if heart}


def wait(process: subprocess.Popen, run: Path, batch: int) -> None:
    until = time.monotonic() + DEADLINE_S
    while (progress := read_progress(run)) is None or progress.batch < batch:
        assert process.poll() is None, process.stderr.read()
        assert time.monotonic() < until, f"no batch {batch} in {DEADLINE_S} s"
        time.sleep(0.05)


def alive(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().split(")")[1].split()[0] != "Z"
    except FileNotFoundError:
        return False


@pytest.mark.slow
def test_every_process_is_killed_once_and_the_run_ends_as_if_none_had_been(project):
    run = project / "run"
    process = start(project)
    try:
        for batch, name in ((2, "engine-0"), (4, "learner"), (6, "driver")):
            wait(process, run, batch)
            os.kill(pids(run)[name], signal.SIGKILL)
        wait(process, run, 8)
        process.send_signal(signal.SIGINT)
        _, errors = process.communicate(timeout=DEADLINE_S)
        assert process.returncode == 130, errors
        assert not any(alive(pid) for pid in pids(run).values())
        assert read_progress(run).batch < 12

        process = start(project)
        wait(process, run, read_progress(run).batch + 1)
        process.kill()  # the supervisor itself: nobody must be left to stand in the way of the next start
        process.communicate(timeout=DEADLINE_S)
        until = time.monotonic() + 10
        while any(alive(pid) for pid in pids(run).values()) and time.monotonic() < until:
            time.sleep(0.05)
        assert not any(alive(pid) for pid in pids(run).values())

        process = start(project)
        _, errors = process.communicate(timeout=DEADLINE_S)
        assert process.returncode == 0, errors
    finally:
        process.kill()
        process.communicate()
    died = [(event["child"], event["code"]) for event in read_events(run) if event["event"] == "died"]
    assert died == [("engine-0", -9), ("learner", -9), ("driver", -9)]
    records = read(run / "metrics.jsonl")
    assert [record["batch"] for record in records] == list(range(1, 13))
    assert [record["step"] for record in records] == list(range(1, 13)), "a version is missing, or came twice"
    assert max(record["staleness/max"] for record in records) <= 1
    named = [id for plan in plans(run) for id in plan.groups]
    assert len(named) == len(set(named)) == 24
    assert json.loads((run / "config.json").read_text())["name"] == "tiny"


@pytest.mark.slow
def test_a_child_that_dies_again_and_again_ends_the_run_with_its_log(project, tmp_path):
    (tmp_path / "experiment.py").write_text((project / "experiment.py").read_text())
    (tmp_path / "run" / "weights").mkdir(parents=True)
    (tmp_path / "run" / "trajectories").write_text("a file where the log should be")
    process = start(tmp_path)
    try:
        _, errors = process.communicate(timeout=DEADLINE_S)
    finally:
        process.kill()
    assert process.returncode == 2
    assert "driver ended with 2, 2 times without a batch between; the end of" in errors
    assert "trajectories" in errors.splitlines()[-1]
