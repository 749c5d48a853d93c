"""Submitting what was rendered: once for each tier of a run, however often it is asked for."""

from __future__ import annotations

import os
import subprocess
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

from ornith_jax.errors import OrnithError
from ornith_jax.slurm.watch import failed_file
from rollout.run_dir import read_json, read_progress, write_json

COMMAND_S = 60
CHECKS = "preflight-"  # tiers of the preflight carry no run
OVER = {
    *("COMPLETED", "FAILED", "CANCELLED", "TIMEOUT", "NODE_FAIL", "OUT_OF_MEMORY", "BOOT_FAIL", "DEADLINE", "REVOKED"),
}
"""States after which a job will not run again. PREEMPTED may come back, and a state we do not know too."""


def write_scripts(run: Path, files: Mapping[str, str]) -> list[Path]:
    """RUN/slurm/NAME.sbatch, each whole; and checked by bash. Raises OrnithError for one that bash cannot read."""
    folder = run / "slurm"
    for name in ("", "marks", "chained", "../logs"):
        (folder / name).mkdir(parents=True, exist_ok=True)
    paths = []
    for name, text in files.items():
        partial, path = folder / f".{name}.partial", folder / name
        partial.write_text(text)
        done = subprocess.run(["bash", "-n", str(partial)], capture_output=True, text=True, timeout=COMMAND_S)
        if done.returncode:
            raise OrnithError(f"{path}: bash refuses it, probably a line of the site's `setup`: {done.stderr.strip()}")
        os.replace(partial, path)
        paths.append(path)
    return paths


def submit(run: Path, name: str, scripts: list[Path]) -> dict[str, str]:
    """{tier: job id} of the jobs that carry the run now; what is alive already is not submitted again.

    Args:
        name: that the jobs of this run, and of no other, begin with.
    Raises:
        OrnithError: sbatch refuses a script (its words), the run is finished, it has failed and its jobs have not ended
            yet, or another `ornith slurm` is at it.
    """
    progress = read_progress(run)
    if progress is not None and progress.is_finished:
        raise OrnithError(f"{run}: is finished, after batch {progress.batch}; give another --run for a new one")
    with _alone(run):
        alive = living(name)
        _forget_failure(run, alive)
        jobs: dict[str, str] = dict(read_json(run / "slurm" / "jobs.json") or {})
        _check_mode(run, alive, {path.stem for path in scripts})
        for path in scripts:
            if path.stem in alive:
                jobs[path.stem] = alive[path.stem]
                continue
            jobs[path.stem] = run_command(["sbatch", "--parsable", str(path)]).split(";")[0]
            write_json(run / "slurm" / "jobs.json", jobs)
        jobs = {path.stem: jobs[path.stem] for path in scripts}
        write_json(run / "slurm" / "jobs.json", jobs)
    return jobs


def living(name: str) -> dict[str, str]:
    """{tier: job id} of the jobs NAME-TIER that wait, run, or will run again, by what Slurm says now."""
    found: dict[str, str] = {}
    for line in run_command(
        ["squeue", "--me", "--noheader", "--all", "--states=all", "--Format=JobArrayID:64,Name:256,State:32"]
    ).splitlines():
        job, job_name, state = line.split()
        tier = job_name.removeprefix(f"{name}-")
        if tier != job_name and not tier.startswith(CHECKS) and state not in OVER:
            found.setdefault(tier, job.partition("_")[0].partition("+")[0])
    return found


def state_of(job: str) -> str:
    """As Slurm spells it; OVER when it has ended or is forgotten."""
    found = run_command(["squeue", "--me", "--noheader", "--all", "--states=all", "--Format=JobID:64,State:32"])
    states = dict(line.split() for line in found.splitlines())
    state = states.get(job, "OVER")
    return "OVER" if state in OVER else state


def cancel(job: str) -> None:
    run_command(["scancel", job])


def _forget_failure(run: Path, alive: Mapping[str, str]) -> None:
    """A job of a run that failed ends by itself, or has lost elements already: it cannot carry the next submission."""
    failed = failed_file(run)
    if failed.exists() and alive:
        jobs = ", ".join(f"{number} ({tier})" for tier, number in sorted(alive.items()))
        why = failed.read_text().strip()
        raise OrnithError(f"{run}: failed, {why}; its jobs {jobs} still end: wait, or scancel them")
    failed.unlink(missing_ok=True)


def _check_mode(run: Path, alive: Mapping[str, str], wanted: set[str]) -> None:
    other = sorted(set(alive) - wanted)
    if other:
        raise OrnithError(
            f"{run}: job {alive[other[0]]} ({other[0]}) of another --mode carries it now; scancel it first, or give "
            "the same --mode"
        )


@contextmanager
def _alone(run: Path) -> Iterator[None]:
    """One `ornith slurm` at a time: a folder, because file locks do not hold on every parallel file system."""
    claim = run / "slurm" / "submitting"
    try:
        claim.mkdir()
    except FileExistsError:
        if time.time() - claim.stat().st_mtime < 10 * COMMAND_S:
            raise OrnithError(f"{claim}: another `ornith slurm` submits this run; if none does, rmdir it") from None
    try:
        yield
    finally:
        claim.rmdir()


def run_command(command: list[str]) -> str:
    """Its output. Raises OrnithError with its words."""
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=COMMAND_S)
    except FileNotFoundError:
        raise OrnithError(f"{command[0]}: not found; run `ornith slurm` where Slurm is, or with --dry-run") from None
    except subprocess.TimeoutExpired:
        raise OrnithError(f"{command[0]}: no answer in {COMMAND_S} s; is the Slurm controller up? try again") from None
    if done.returncode:
        raise OrnithError(f"{' '.join(command)}: {(done.stderr or done.stdout).strip()}")
    return done.stdout.strip()
