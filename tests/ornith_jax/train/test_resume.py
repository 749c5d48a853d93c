"""Kill -9 anywhere, start again with the same command: the run is the one that was never killed, bit for bit.

A real run of `ornith sft` in its own process: packed rows, two micro-batches, shuffled data, a checkpoint every three
batches. More kills than CI has time for: `python -m tests.ornith_jax.train.kills --kills 20`.
"""

import pytest

from ornith_jax.errors import OrnithError
from ornith_jax.experiment import load
from ornith_jax.train.loop import train_sft
from ornith_jax.train.metrics import read
from ornith_jax.train.rundir import claim
from tests.ornith_jax.train.kills import Project, compare, kill_at


@pytest.fixture(scope="module")
def project(tmp_path_factory) -> Project:
    return Project.make(tmp_path_factory.mktemp("resume"))


@pytest.fixture(scope="module")
def whole(project) -> list[dict]:
    return project.finish("whole")


@pytest.mark.slow
def test_a_run_that_is_killed_twice_is_the_run_that_was_not(project, whole):
    assert [record["batch"] for record in whole] == list(range(1, 31))
    assert whole[-1]["loss"] < whole[0]["loss"] - 0.2
    seen = kill_at(project, "killed", lines=7, delay_s=0.01)
    seen += kill_at(project, "killed", lines=19, delay_s=0.03)
    killed = project.finish("killed")
    compare(whole, killed, seen)


@pytest.mark.slow
def test_a_finished_run_does_nothing_more_and_a_longer_one_goes_on(project, whole):
    assert project.finish("whole") == whole
    longer = project.finish("whole", "train.steps=32")
    assert longer[:30] == whole
    assert [record["batch"] for record in longer[30:]] == [31, 32]
    assert sorted(path.name for path in (project.folder / "whole" / "weights").iterdir()) == ["v0000030", "v0000032"]


def test_a_run_directory_belongs_to_one_experiment_and_one_process(project, tmp_path):
    e = load(str(project.experiment))
    with (
        claim(tmp_path / "run", e),
        pytest.raises(OrnithError, match="another process is training here"),
        claim(tmp_path / "run", e),
    ):
        pass
    for word in ("train.steps=40", "mesh.fsdp=8", "train.keep_checkpoints=9"):
        with claim(tmp_path / "run", load(str(project.experiment), [word])):
            pass
    with (
        pytest.raises(OrnithError, match=r"was started with optim\.learning_rate=0\.01, not 0\.02"),
        claim(tmp_path / "run", load(str(project.experiment), ["optim.learning_rate=0.02"])),
    ):
        pass


def test_bad_settings_and_bad_data_are_refused_before_anything_is_made(project, tmp_path):
    with pytest.raises(OrnithError, match="mesh: fsdp 3 needs 3 devices, but there are 8"):
        train_sft(load(str(project.experiment), ["mesh.fsdp=3"]), project.data, tmp_path / "run")
    assert not (tmp_path / "run").exists()
    with pytest.raises(OrnithError, match=r"loss\.k1=-1"):
        train_sft(load(str(project.experiment), ["loss.k1=-1"]), project.data, tmp_path / "run")
    assert read(tmp_path / "run" / "metrics.jsonl") == []
