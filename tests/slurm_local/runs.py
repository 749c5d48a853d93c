"""A run on the private Slurm, seen from outside: submit it, follow it, disturb it."""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from ornith_jax.cli import main
from ornith_jax.slurm.preamble import Job
from ornith_jax.slurm.render import render
from ornith_jax.slurm.submit import submit, write_scripts
from ornith_jax.verbs.slurm import make_job
from rollout.run_dir import read_json, read_progress
from tests.slurm_local.cluster import Cluster

ROOT = Path(__file__).resolve().parents[2]
SITE = """
run_root = "{folder}/shared"
scratch = "{folder}/scratch"
python = "{python}"
gpus = ""
setup = ["export PYTHONPATH={root}", "export JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS=0.1"]
stuck_s = {stuck_s}

[learner]
partition = "batch"
devices_per_node = 2
cpus_per_node = 4
time = "0:30:00"
notice_s = 60

[engine]
partition = "spot"
devices_per_node = 1
cpus_per_node = 1
time = "0:30:00"
notice_s = 60

[driver]
partition = "cpu"
cpus_per_node = 2
time = "0:30:00"
notice_s = 60
"""
TINY = """
from ornith_jax.experiment import EngineSettings, Experiment, MeshSettings

def get_config():
    return Experiment(name="tiny", model="tiny-qwen3.5", mesh=MeshSettings(fsdp=4), engine=EngineSettings(replicas=2))
"""


def write_site(folder: Path, *, stuck_s: int = 4, change: Callable[[str], str] = str) -> Path:
    text = SITE.format(folder=folder, python=sys.executable, root=ROOT, stuck_s=stuck_s)
    (folder / "site.toml").write_text(change(text))
    (folder / "shared").mkdir(exist_ok=True)
    return folder / "site.toml"


@dataclass
class Run:
    """A submitted run. `jobs` is {tier: number}."""

    cluster: Cluster
    job: Job
    scripts: list[Path]
    jobs: dict[str, str]

    @property
    def folder(self) -> Path:
        return self.job.run

    @staticmethod
    def of_stubs(cluster: Cluster, folder: Path, mode: str, how: dict, edits: Mapping[str, str]) -> Run:
        """Roles are stubs (`tests.slurm_local.stub`) that go as `how` says; `edits` are made in the scripts."""
        (folder / "tiny.py").write_text(TINY)
        job = make_job(args_of(str(folder / "tiny.py"), write_site(folder)))
        edits = {"ornith_jax.cli": "tests.slurm_local.stub", **edits}
        files = render(job, mode)
        for was, becomes in edits.items():
            files = {name: text.replace(was, becomes) for name, text in files.items()}
        scripts = write_scripts(job.run, files)
        (job.run / "stub.json").write_text(json.dumps(how))
        return Run(cluster, job, scripts, submit(job.run, job.name, scripts))

    @staticmethod
    def of_roles(cluster: Cluster, folder: Path, words: Sequence[str], site: Path, mode: str) -> Run:
        """The real ones, as people start them: `ornith slurm WORDS`."""
        asked = ["slurm", *words, "--site", str(site), "--run", str(folder), "--mode", mode]
        assert main(asked) == 0
        job = make_job(args_of(words[0], site, *words[1:], run=folder))
        return Run(cluster, job, sorted((folder / "slurm").glob("*.sbatch")), read_json(folder / "slurm" / "jobs.json"))

    def again(self) -> dict[str, str]:
        return submit(self.job.run, self.job.name, self.scripts)

    @property
    def batch(self) -> int:
        progress = read_progress(self.folder)
        return progress.batch if progress else -1

    def until(self, ready: Callable[[], object], what: str, deadline_s: float = 60) -> None:
        until = time.monotonic() + deadline_s
        while not ready():
            assert time.monotonic() < until, f"not after {deadline_s:.0f} s: {what}\n{self.report()}"
            time.sleep(0.2)

    def states(self) -> dict[str, list[str]]:
        """{tier: the state of its job, or of each element of it}"""
        return {
            tier: self.cluster.run("squeue", "-h", "-a", "-r", "-t", "all", "-j", number, "-o", "%T").split()
            for tier, number in self.jobs.items()
        }

    def finish(self, deadline_s: float = 60) -> None:
        """Until all jobs have ended well."""
        self.until(
            lambda: all(set(states) <= {"COMPLETED"} for states in self.states().values()), "all jobs end", deadline_s
        )
        progress = read_progress(self.folder)
        assert progress is not None, self.report()
        assert progress.is_finished, self.report()

    def restart(self, number: str) -> None:
        """Slurm holds a job for two minutes after a requeue; but a restart in its first seconds is refused."""
        self.until(lambda: "PENDING" in self._state(number), f"job {number} is queued again")
        time.sleep(3)
        deadline = time.monotonic() + 30
        while "PENDING" in self._state(number) and time.monotonic() < deadline:
            self.cluster.run("scontrol", "update", f"JobId={number}", "StartTime=now", check=False)
            time.sleep(0.5)

    def _state(self, number: str) -> str:
        return self.cluster.run("squeue", "-h", "-a", "-r", "-j", number, "-o", "%T", check=False)

    def log(self, name: str) -> str:
        path = self.folder / "logs" / f"{name}.out"
        return path.read_text(errors="replace") if path.exists() else ""

    def copies(self) -> list[str]:
        """Jobs that submitted themselves again."""
        return [path.read_text().strip() for path in (self.folder / "slurm" / "chained").iterdir()]

    def marks(self) -> list[str]:
        """Such as learner.12.0.0.finished: role, job, restart of the job, step in it."""
        return sorted(path.name for path in (self.folder / "slurm" / "marks").iterdir())

    def report(self) -> str:
        logs = {path.stem: path.read_text(errors="replace")[-3000:] for path in (self.folder / "logs").glob("*.out")}
        return "\n".join(
            [str(self.states()), str(self.marks()), *(f"--- {name}\n{text}" for name, text in logs.items())]
        )


def args_of(experiment: str, site: Path, *overrides: str, run: Path | None = None) -> argparse.Namespace:
    """What the command line would hold."""
    return argparse.Namespace(experiment=experiment, overrides=list(overrides), site=site, run_dir=run)
