"""What is written into the scripts: golden files, memory, bash, and settings that cannot be."""

import subprocess
import sys
from pathlib import Path

import pytest

from ornith_jax.cli import main
from ornith_jax.errors import OrnithError
from ornith_jax.plan.topology import parse
from ornith_jax.slurm.site import read_site, seconds
from tests.ornith_jax.slurm import golden
from tests.slurm_local.runs import write_site


@pytest.mark.parametrize("case", golden.CASES)
def test_the_scripts_are_the_golden_ones(case: str, tmp_path: Path):
    found = golden.rendered(case, tmp_path)
    assert {p.name for p in (golden.GOLDEN / case).iterdir()} == set(found)
    for name, text in found.items():
        assert text == (golden.GOLDEN / case / name).read_text(), (
            "write them again: python -m tests.ornith_jax.slurm.golden"
        )
        subprocess.run(["bash", "-n"], input=text, text=True, check=True)


@pytest.mark.parametrize("case", golden.CASES)
def test_what_is_asked_for_is_what_ornith_plan_compiled(case: str, tmp_path: Path):
    """The row of docs/scale.md with the same overrides fits, on as many devices as the learner's nodes have."""
    _, nodes, experiment, overrides, topology = golden.CASES[case]
    job = golden.job_of(case, tmp_path)
    settings = [word for word in overrides if not word.startswith("engine.")]
    command = " ".join(["`ornith plan", experiment, *settings, "--topology", f"{topology}`"])
    rows = [line for line in (golden.ROOT / "docs/scale.md").read_text().splitlines() if f"| {command} |" in line]
    assert len(rows) == 1, f"docs/scale.md has no row {command}"
    needed, available = map(float, rows[0].split("|")[6].split(" of "))
    assert needed <= available
    part = job.layout.learner
    assert part.nodes * part.devices == parse(topology).num_devices
    if case.endswith("node"):
        assert part.devices + job.layout.replicas == 8, "all of the node's accelerators are used"
    elif job.layout.engine and not case.endswith("pod"):
        engines = job.layout.engine
        per_node = 8 // engines.devices
        assert part.nodes + job.layout.replicas // per_node == nodes
    else:
        assert part.nodes == nodes


def test_what_cannot_fit_is_refused_with_the_command_that_finds_what_does(tmp_path, capsys):
    (tmp_path / "site.toml").write_text(golden.sites()["gpu"])
    words = ["slurm", "ornith_397b_a17b", "mesh.context=1", "--site", f"{tmp_path}/site.toml", "--dry-run"]
    assert main(words) == 2
    said = capsys.readouterr().err
    gib = 396.35e9 * (4 + 2 * 4 + 4 + 2) / 32 / 2**30  # docs/scale.md: parameters; weights, moments, gradients, copies
    assert f"need {gib:.1f} GiB on each of 32 devices, and h200 has 133.4" in said
    assert "`ornith plan EXPERIMENT --search h200`" in said


def test_a_dry_run_prints_every_script_and_writes_nothing(tmp_path, capsys):
    site = write_site(tmp_path)
    (tmp_path / "tiny.py").write_text(TINY)
    assert main(["slurm", str(tmp_path / "tiny.py"), "--site", str(site), "--dry-run"]) == 0
    out = capsys.readouterr().out
    assert [line.rsplit("/", 1)[1] for line in out.splitlines() if line.startswith("# ---- ")] == [
        "learner.sbatch",
        "driver.sbatch",
        "engine.sbatch",
    ]
    assert list((tmp_path / "shared").iterdir()) == []


TINY = """
from ornith_jax.experiment import EngineSettings, Experiment, MeshSettings

def get_config():
    return Experiment(name="tiny", model="tiny-qwen3.5", mesh=MeshSettings(fsdp=4), engine=EngineSettings(replicas=2))
"""


@pytest.mark.parametrize(
    ("was", "becomes", "says"),
    [
        (
            'partition = "batch"',
            'partitoin = "batch"',
            "learner.partitoin: no such field; did you mean learner.partition",
        ),
        ("stuck_s = 4", 'stuck_s = "4"', "stuck_s: is '4'; it must be a whole number"),
        ("devices_per_node = 2", "devices_per_node = 0", "learner.devices_per_node: 0 is less than 1"),
        ('time = "0:30:00"', 'time = "0:00:30"', "learner.time: 0:00:30 is no longer than learner.notice_s=60"),
        ('time = "0:30:00"', 'time = "soon"', "time: 'soon' is none of"),
        ('gpus = ""', 'gpus = "--gres=gpu:8"', "gpus: '--gres=gpu:8' needs one {}"),
        ('gpus = ""', 'gpus = ""\nports = [70000, 1]', "ports: [70000, 1] is not [first, last]"),
        ('gpus = ""', 'gpus = ""\ncontainer = "ornith.sif"', "container: 'ornith.sif' is not an absolute path"),
        ("[learner]", "[learner", "not TOML"),
    ],
)
def test_a_wrong_site_file_is_refused_by_file_and_field(tmp_path, was: str, becomes: str, says: str):
    path = write_site(tmp_path, change=lambda text: text.replace(was, becomes, 1))
    with pytest.raises(OrnithError) as error:
        read_site(path)
    assert f"{path}: " in str(error.value)
    assert says in str(error.value)


def test_slurm_times():
    assert [seconds(t) for t in ("30", "1:30", "2:00:00", "1-0", "1-2:30", "1-00:00:01")] == [
        *(1800, 90, 7200, 86400, 95400, 86401)
    ]
    assert seconds("INFINITE") == float("inf")


@pytest.mark.parametrize(
    ("override", "says"),
    [
        ("mesh.fsdp=3", "mesh: 3 devices are no whole nodes of learner.devices_per_node=2"),
        ("engine.tensor_parallel=2", "engine.tensor_parallel: 2 is more than engine.devices_per_node=1"),
        ("engine.replicas=1001", "engine.replicas: 1001 make an array of 1001, more than max_array=1000"),
    ],
)
def test_an_experiment_that_does_not_fit_the_site_is_refused_by_field(tmp_path, capsys, override: str, says: str):
    (tmp_path / "tiny.py").write_text(TINY)
    args = ["slurm", str(tmp_path / "tiny.py"), override, "--site", str(write_site(tmp_path)), "--dry-run"]
    assert main(args) == 2
    assert says in capsys.readouterr().err


def test_a_run_outside_the_shared_folder_is_refused(tmp_path, capsys):
    (tmp_path / "tiny.py").write_text(TINY)
    site = write_site(tmp_path)
    assert main(["slurm", str(tmp_path / "tiny.py"), "--site", str(site), "--run", "/elsewhere", "--dry-run"]) == 2
    assert "--run: /elsewhere is not below the site's run_root" in capsys.readouterr().err


def test_driver_and_scripts_start_no_jax():
    """Login nodes and CPU nodes may have none."""
    code = (
        "import sys, ornith_jax.verbs.train, ornith_jax.verbs.slurm\n"
        "from ornith_jax.slurm import facts, preflight, render, submit, watch\n"
        "print('jax' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=golden.ROOT, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "False"
