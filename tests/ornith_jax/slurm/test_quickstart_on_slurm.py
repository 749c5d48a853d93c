"""`ornith slurm quickstart` on a real Slurm: two learner processes of two devices each, two engines, real
sandboxes. What happens to a run that is disturbed everywhere, and what it then is.
"""

import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np
import pytest

from envs.sandbox.images import store
from ornith_jax.train.metrics import read
from rollout.ports import free_port
from rollout.run_dir import plans, read_json
from rollout.store.index import Index
from tests.envs.conftest import base_image  # noqa: F401
from tests.slurm_local import tiny_run
from tests.slurm_local.runs import ROOT, Run, write_site

pytestmark = pytest.mark.slow
STEPS = 7  # a role that is killed near its end may find nothing left to do
DEADLINE_S = 600  # on a busy machine
AGAIN_S = 5 + 90  # docs/hpc.md: 5 s, and the start of a role, on a busy machine
FLAGS = "--xla_backend_optimization_level=0"


@pytest.fixture(scope="module")
def project(tmp_path_factory, base_image):  # noqa: F811
    """Overrides and site; scratch where the account of the sandboxes may enter."""
    folder, scratch = tmp_path_factory.mktemp("project"), Path(tempfile.mkdtemp(prefix="ornith-scratch-"))
    scratch.chmod(0o755)
    overrides = tiny_run.make(folder)
    lines = {
        f'scratch = "{folder}/scratch"': f'scratch = "{scratch}"\nimages = "{store()}"',
        "setup = [": f'setup = ["export XLA_FLAGS={FLAGS}", ',
    }

    def change(text: str) -> str:
        for was, becomes in lines.items():
            assert was in text
            text = text.replace(was, becomes)
        return text

    yield overrides, write_site(folder, stuck_s=300, change=change)
    shutil.rmtree(scratch)


def words(project, steps: int) -> list[str]:
    return ["quickstart", *project[0], f"train.steps={steps}"]


def start(project, cluster, name: str, mode: str, steps: int) -> Run:
    _, site = project
    return Run.of_roles(cluster, site.parent / "shared" / name, words(project, steps), site, mode)


def pid(run: Run, name: str) -> int:
    return read_json(run.folder / "heartbeats" / f"{name}.json")["pid"]


def kill(run: Run, *names: str) -> None:
    """kill -9 of the roles themselves; whoever watches over them is left, and starts them again."""
    before = {name: pid(run, name) for name in names}
    for name in names:
        os.kill(before[name], signal.SIGKILL)
    for name in names:
        run.until(lambda name=name: pid(run, name) != before[name], f"{name} runs again", AGAIN_S)


def test_a_run_that_is_disturbed_everywhere_is_the_run_that_was_not(project, cluster):
    """Preempted, requeued, every role killed; an undisturbed learner comes by the same numbers on the same plans."""
    run = start(project, cluster, "split", "split", STEPS)
    try:
        run.until(lambda: run.batch >= 1, "the first batch", DEADLINE_S)
        kill(run, "engine-0", "driver")
        cluster.run("scancel", "--batch", "--signal=USR1", run.jobs["learner"])
        run.restart(run.jobs["learner"])
        preempted_at = run.batch
        cluster.run("scontrol", "requeue", run.jobs["driver"])
        run.restart(run.jobs["driver"])
        run.until(lambda: run.batch > preempted_at, "a batch after the preemption", DEADLINE_S)
        kill(run, "learner")
        run.finish(DEADLINE_S)
    finally:
        cluster.run("scancel", *run.jobs.values(), check=False)
    assert "stopping after this batch, with a checkpoint" in run.log("learner")
    for name in ("engine-0", "driver", "learner"):
        assert f"{name}: the step ended with" in run.log(name), f"{name} was started again"
    assert any(mark.startswith(f"driver.{run.jobs['driver']}.1.") for mark in run.marks()), "it went through the queue"
    records = read(run.folder / "metrics.jsonl")
    assert [record["batch"] for record in records] == list(range(1, STEPS + 1)), "each batch once"
    assert [record["step"] for record in records] == list(range(1, STEPS + 1)), "every batch made a version"
    planned = [group for plan in plans(run.folder) for group in plan.groups]
    assert len(planned) == len(set(planned)) >= 2 * STEPS, "no group in two batches"
    index = Index(run.folder / "trajectories")
    index.refresh()
    assert all(("closed", group) in index.entries for group in planned), "nothing that was planned is lost"

    names = ("loss", "samples/solution", "optim/grad_norm", "optim/param_norm")
    two, one = (learn(run.folder, words(project, STEPS), processes) for processes in (2, 1))
    for name in names:
        assert [r[name] for r in two] == [r[name] for r in records], f"{name}: not the run that was not disturbed"
        np.testing.assert_allclose([r[name] for r in one], [r[name] for r in records], rtol=1e-4, atol=1e-6)


def learn(run: Path, words: list[str], processes: int) -> list[dict]:
    """The records of an undisturbed learner of so many processes, on the plans and the log of a run."""
    copy = run.with_name(f"{run.name}-{processes}")
    copy.mkdir()
    shutil.copy(run / "config.json", copy)
    for name in ("batches", "trajectories"):
        shutil.copytree(run / name, copy / name)
    command = [sys.executable, "-m", "ornith_jax.cli", "train", *words, "--role", "learner", "--run", str(copy)]
    settings = {"JAX_PLATFORMS": "cpu", "JAX_NUM_CPU_DEVICES": str(4 // processes), "XLA_FLAGS": FLAGS}
    if processes > 1:
        settings |= {"ORNITH_COORDINATOR": f"localhost:{free_port(())}", "ORNITH_PROCESSES": str(processes)}
    running = [
        subprocess.Popen(
            command, cwd=ROOT, env={**os.environ, **settings, "ORNITH_PROCESS": str(rank)}, stderr=subprocess.PIPE
        )
        for rank in range(processes)
    ]
    try:
        for process in running:
            _, errors = process.communicate(timeout=DEADLINE_S)
            assert process.returncode == 0, errors.decode()
    finally:
        for process in running:
            process.kill()
    return read(copy / "metrics.jsonl")


def test_het_mode_carries_a_run_to_its_end(project, cluster):
    run = start(project, cluster, "het", "het", 2)
    try:
        run.finish(DEADLINE_S)
    finally:
        cluster.run("scancel", *run.jobs.values(), check=False)
    assert [record["batch"] for record in read(run.folder / "metrics.jsonl")] == [1, 2]
    engines = {event["engine"] for event in _events(run.folder, "engine_synced")}
    assert engines == {"engine-0", "engine-1"}


def _events(run: Path, kind: str) -> list[dict]:
    lines = [line for path in (run / "events").glob("*.jsonl") for line in path.read_text().splitlines()]
    return [event for event in map(json.loads, lines) if event["event"] == kind]
