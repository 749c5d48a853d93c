"""A learner of two processes: the same losses and weights as of one process with the same mesh."""

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from ornith_jax import processes
from ornith_jax.convert.load import load
from ornith_jax.errors import OrnithError
from ornith_jax.params import flatten
from ornith_jax.train.metrics import read
from rollout.ports import free_port
from tests.ornith_jax.train.kills import ROOT, Project

DEADLINE_S = 300
CODE = """
import sys
from ornith_jax import processes
from ornith_jax.cli import main
processes.PIECE = 4000  # bytes: large leaves are gathered in many pieces, the last of which overlaps
sys.exit(main(sys.argv[1:]))
"""
OVERRIDES = ("mesh.fsdp=2", "mesh.tensor=2", "train.steps=6", "train.accumulation=1")


def start(project: Project, run: str, devices: int, **environment: str) -> subprocess.Popen[str]:
    words = ["sft", project.experiment, *OVERRIDES, "--data", project.data, "--run", project.folder / run]
    settings = {
        "JAX_PLATFORMS": "cpu",
        "JAX_NUM_CPU_DEVICES": str(devices),
        "XLA_FLAGS": "--xla_backend_optimization_level=0",
        **environment,
    }
    command = [sys.executable, "-c", CODE, *map(str, words)]
    return subprocess.Popen(command, cwd=ROOT, env={**os.environ, **settings}, stderr=subprocess.PIPE, text=True)


def finish(*running: subprocess.Popen[str]) -> None:
    try:
        for process in running:
            _, errors = process.communicate(timeout=DEADLINE_S)
            assert process.returncode == 0, errors
    finally:
        for process in running:
            process.kill()


@pytest.mark.slow
def test_two_processes_are_one_process_with_the_same_mesh(tmp_path: Path):
    project = Project.make(tmp_path)
    finish(start(project, "one", 4))
    meeting = {"ORNITH_COORDINATOR": f"localhost:{free_port(())}", "ORNITH_PROCESSES": "2"}
    finish(*(start(project, "two", 2, **meeting, SLURM_PROCID=str(rank)) for rank in range(2)))
    one, two = read(project.metrics("one")), read(project.metrics("two"))
    assert [record["batch"] for record in two] == list(range(1, 7))
    for name in ("loss", "optim/grad_norm", "optim/param_norm"):
        np.testing.assert_allclose([r[name] for r in two], [r[name] for r in one], rtol=1e-4, err_msg=name)
    _, ours = load(tmp_path / "two/weights/v0000006")
    _, theirs = load(tmp_path / "one/weights/v0000006")
    for name, value in flatten(ours).items():
        np.testing.assert_allclose(value, flatten(theirs)[name], rtol=1e-3, atol=1e-4, err_msg=name)


@pytest.mark.parametrize(
    ("environment", "says"),
    [
        ({}, "ORNITH_PROCESSES: not set, but ORNITH_COORDINATOR is"),
        ({"ORNITH_PROCESSES": "two"}, "ORNITH_PROCESSES: 'two' is not a whole number"),
        ({"ORNITH_PROCESSES": "2"}, "SLURM_PROCID: not set"),
        ({"ORNITH_PROCESSES": "2", "ORNITH_PROCESS": "2"}, "2 is not one of ORNITH_PROCESSES=2"),
    ],
)
def test_an_incomplete_environment_is_refused(environment: dict[str, str], says: str):
    with pytest.raises(OrnithError, match=says):
        processes.join({"ORNITH_COORDINATOR": "localhost:1", **environment})


def test_alone_there_is_nobody_to_ask():
    processes.join({})
    assert processes.any_of(True)
    assert not processes.any_of(False)
    assert processes.from_first(3) == 3
