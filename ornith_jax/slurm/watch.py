"""Runs one role as a child, and leaves a mark that says what its end means. `python -m ornith_jax.slurm.watch ...`

- SIGUSR1 (Slurm wants the node back): the child gets SIGTERM, saves what it has and ends. So it does upon SIGTERM.
- The run is finished (progress.json says so), or another role has failed: a child that does not end by itself in
  LEAVE_S seconds gets SIGTERM.
- No heartbeat for `--stuck` seconds: SIGUSR1, upon which a role writes the stacks of its threads to its log; then it is
  killed. The job script starts it again. So a role that hangs is running again within the bound and KILL_S seconds.
- It dies CRASHES times without a new batch in between, or refuses its settings (exit code 2): the run has failed, and
  the reason is in RUN/slurm/FAILED for all the others to see.
"""

from __future__ import annotations

import argparse
import os
import signal
import subprocess
import sys
import time
from dataclasses import dataclass, field
from pathlib import Path

from rollout.run_dir import read_json, read_progress, write_json

POLL_S = 0.5
LEAVE_S = 10.0  # for a role to see by itself that the run is over
STACKS_S = 5.0  # for the stacks to be written
KILL_S = 60.0  # from SIGTERM to SIGKILL, when nobody else needs the node
CRASHES = 5


def failed_file(run: Path) -> Path:
    """Why the run cannot go on; `ornith slurm` removes it when it submits again."""
    return run / "slurm" / "FAILED"


@dataclass(slots=True)
class Heartbeat:
    """Sees whether a file changes, by this process's own clock: the clocks of two nodes differ."""

    path: Path
    stuck_s: float
    seen: str = ""
    at: float = field(default_factory=time.monotonic)

    def is_stuck(self) -> bool:
        try:
            now = self.path.read_text()
        except OSError:
            now = ""
        if now != self.seen:
            self.seen, self.at = now, time.monotonic()
        return time.monotonic() - self.at > self.stuck_s


def watch(command: list[str], *, run: Path, name: str, mark: Path, stuck_s: float) -> int:
    """Run the command to its end and leave the mark. The exit code: 0 finished, 75 asked to stop, else its own."""
    asked: list[int] = []
    for number in (signal.SIGUSR1, signal.SIGTERM):
        signal.signal(number, lambda n, _: asked.append(n))
    # Slurm signals every process of a step. Until a child knows SIGUSR1, it must not die of it.
    child = subprocess.Popen(command, preexec_fn=lambda: signal.signal(signal.SIGUSR1, signal.SIG_IGN))
    heartbeat = Heartbeat(run / "heartbeats" / f"{name}.json", stuck_s)
    is_stuck = _follow(child, run, heartbeat, asked)
    code = child.wait()
    if _is_finished(run):
        mark.with_name(mark.name + ".finished").touch()
        return 0
    if failed_file(run).exists():
        mark.with_name(mark.name + ".failed").touch()
        return code or 1
    if asked and not is_stuck:
        return 75
    why = f"{name} on {os.uname().nodename}: " + (
        f"hung for {stuck_s:.0f} s" if is_stuck else f"ended with code {code}"
    )
    print(f"ornith: {why}", file=sys.stderr, flush=True)
    if code == 2 or _crashes(run, name) >= CRASHES:
        failed_file(run).write_text(f"{why}, {'which no restart mends' if code == 2 else f'{CRASHES} times'}\n")
        mark.with_name(mark.name + ".failed").touch()
    return code or 1


def _follow(child: subprocess.Popen[bytes], run: Path, heartbeat: Heartbeat, asked: list[int]) -> bool:
    """Until the child has ended; whether it was killed because it hung."""
    told = over = 0.0
    while child.poll() is None:
        now = time.monotonic()
        over = over or (now if _is_finished(run) or failed_file(run).exists() else 0.0)
        if not told and (asked or (over and now - over > LEAVE_S)):
            if not _was_told(asked):
                child.terminate()
            told = now
        if over and told and now - told > KILL_S:
            child.kill()
        if heartbeat.is_stuck():
            child.send_signal(signal.SIGUSR1)
            time.sleep(STACKS_S)
            child.kill()
            child.wait()
            return not over
        time.sleep(POLL_S)
    return False


def _was_told(asked: list[int]) -> bool:
    """Slurm sends SIGTERM to every process of a step, and a second one would cut the child's orderly end short."""
    return signal.SIGTERM in asked and "SLURM_JOB_ID" in os.environ


def _is_finished(run: Path) -> bool:
    progress = read_progress(run)
    return progress is not None and progress.is_finished


def _crashes(run: Path, name: str) -> int:
    """How often this process has now died since the learner got on. Each rank counts for itself."""
    path = run / "slurm" / "crashes" / f"{name}-{os.environ.get('SLURM_PROCID') or os.uname().nodename}.json"
    progress = read_progress(run)
    batch = progress.batch if progress else -1
    before = read_json(path) or {}
    count = before["count"] + 1 if before.get("batch") == batch else 1
    write_json(path, {"batch": batch, "count": count})
    return count


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--run", type=Path, required=True)
    parser.add_argument("--name", required=True)
    parser.add_argument("--mark", type=Path, required=True)
    parser.add_argument("--stuck", type=float, required=True)
    parser.add_argument("command", nargs="+", help="of the Python that runs this: -m MODULE ...")
    args = parser.parse_args()
    command = [sys.executable, *args.command]
    return watch(command, run=args.run, name=args.name, mark=args.mark, stuck_s=args.stuck)


if __name__ == "__main__":
    sys.exit(main())
