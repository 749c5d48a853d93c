"""Kill -9 anything, again and again, and look at what is left.

    python -m tests.chaos --kills 10 --seed 1 [--experiment FILE --run DIR]

starts `ornith train` on a tiny random model (or on the experiment given), kills a random one of learner, engine,
driver, sandbox and supervisor every few batches, and starts the same command again when the supervisor was the victim.
At the end: every batch was trained on once, the versions have no gap, no group is in two plans, every record that was
in the log at a kill is still in its place, and no episode is there twice. Prints a table.
"""

from __future__ import annotations

import argparse
import os
import random
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path

from ornith_jax.experiment import load
from ornith_jax.train.metrics import read
from rollout.run_dir import plans, read_events, read_json, read_progress
from rollout.store.frame import Entry, locate
from rollout.store.index import Index

ROOT = Path(__file__).resolve().parents[1]
VICTIMS = ("learner", "engine-0", "driver", "sandbox", "supervisor")
STILL_S = 600.0  # without a batch for so long, the run does not get on
FORGIVEN_S = (0.0, 1.0)  # after a batch, until the kill


@dataclass
class Chaos:
    """A run that is being harmed, and what was seen of it."""

    experiment: Path
    run: Path
    kills: list[tuple[str, int, str]] = field(default_factory=list)  # (victim, batch, what was killed)
    seen: dict[tuple[str, str], Entry] = field(default_factory=dict)  # of the log, at each kill
    starts: int = 0
    process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        command = [sys.executable, "-m", "ornith_jax.cli", "train", str(self.experiment), "--run", str(self.run)]
        self.run.mkdir(parents=True, exist_ok=True)
        with (self.run / "chaos.log").open("ab") as out:
            self.process = subprocess.Popen(command, cwd=ROOT, stdout=out, stderr=out)
        self.starts += 1

    @property
    def batch(self) -> int:
        progress = read_progress(self.run)
        return 0 if progress is None else progress.batch

    def wait(self, batch: int) -> None:
        """Until that batch. Raises RuntimeError when the run ends before it, or does not get on."""
        assert self.process is not None
        before, since = -1, time.monotonic()
        while self.batch < batch:
            if self.process.poll() is not None:
                raise RuntimeError(f"the run ended with {self.process.returncode}; see {self.run / 'chaos.log'}")
            if self.batch != before:
                before, since = self.batch, time.monotonic()
            if time.monotonic() - since > STILL_S:
                raise RuntimeError(f"no batch in {STILL_S:.0f} s; see {self.run / 'logs'}")
            time.sleep(0.05)

    def kill(self, victim: str) -> None:
        """And note what was acknowledged by then."""
        index = Index(self.run / "trajectories")
        index.refresh()
        self.seen.update(index.entries)
        found = self._pid(victim)
        if found:
            os.kill(found, signal.SIGKILL)
        self.kills.append((victim, self.batch, str(found or "there was none")))
        if victim == "supervisor":
            assert self.process is not None
            self.process.wait(60)
            self.start()

    def finish(self) -> None:
        assert self.process is not None
        until = time.monotonic() + STILL_S
        while self.process.poll() is None and time.monotonic() < until:
            time.sleep(0.2)
        if self.process.poll() != 0:
            raise RuntimeError(f"the run ended with {self.process.poll()}; see {self.run / 'chaos.log'}")

    def _pid(self, victim: str) -> int | None:
        assert self.process is not None
        if victim == "supervisor":
            return self.process.pid
        heart = read_json(self.run / "heartbeats" / f"{'driver' if victim == 'sandbox' else victim}.json")
        if heart is None:
            return None
        if victim != "sandbox":
            return heart["pid"] if _is_ours(heart["pid"], self.run) else None
        below = _descendants(heart["pid"])
        return random.choice(below) if below else None

    def problems(self, steps: int) -> list[str]:
        """What is wrong with what is left; empty when nothing is."""
        records, found = read(self.run / "metrics.jsonl"), list(plans(self.run))
        named = Counter(id for plan in found for id in plan.groups)
        index = Index(self.run / "trajectories")
        index.refresh()
        lines = Counter(_lines(self.run / "trajectories"))
        steps_made = [int(record["step"] or 0) for record in records]
        checks = {
            "a batch is missing in the metrics, or there twice": [r["batch"] for r in records]
            == [*range(1, steps + 1)],
            "a batch has no plan": [plan.batch for plan in found] == [*range(1, steps + 1)],
            "versions have a gap": all(b - a in (0, 1) for a, b in zip([0, *steps_made], steps_made, strict=False)),
            "a group is in two plans": not named or max(named.values()) == 1,
            "a group that was planned has no end in the log": all(("closed", id) in index.entries for id in named),
            "a record that was acknowledged is gone or moved": all(
                index.entries.get(key) == entry for key, entry in self.seen.items()
            ),
            "an episode is in the log twice": not lines or max(lines.values()) == 1,
            "a line of the log is damaged": not index.damaged,
        }
        return [problem for problem, holds in checks.items() if not holds]

    def table(self, steps: int) -> str:
        died = Counter(event["child"] for event in read_events(self.run) if event["event"] == "died")
        hung = sum(event["event"] == "hung" for event in read_events(self.run))
        index = Index(self.run / "trajectories")
        index.refresh()
        rows = [
            f"{number:4}  {victim:10}  at batch {at:4}  {what}"
            for number, (victim, at, what) in enumerate(self.kills, 1)
        ]
        restarts = ", ".join(f"{name} {count}" for name, count in sorted(died.items())) or "none"
        return "\n".join(
            [
                *rows,
                f"started {self.starts} times; restarts by the supervisor: {restarts}; hung: {hung}",
                f"{steps} batches, version {int(read(self.run / 'metrics.jsonl')[-1]['step'] or 0)}, "
                f"{len(index.of_kind('trajectory'))} episodes, {len(index.of_kind('dropped'))} groups dropped, "
                f"{len(self.seen)} records were acknowledged before a kill",
            ]
        )


def _is_ours(pid: int, run: Path) -> bool:
    """Numbers of dead processes are given to others."""
    try:
        return str(run).encode() in Path(f"/proc/{pid}/cmdline").read_bytes()
    except OSError:
        return False


def _descendants(pid: int) -> list[int]:
    """Processes below one: of the driver, those are sandboxes and what runs in them."""
    parents = {}
    for path in Path("/proc").glob("[0-9]*/stat"):
        try:
            parents[int(path.parent.name)] = int(path.read_text().rsplit(")", 1)[1].split()[1])
        except (OSError, IndexError, ValueError):
            continue
    found, last = [], {pid}
    while last := {child for child, parent in parents.items() if parent in last}:
        found += sorted(last)
    return found


def _lines(folder: Path) -> list[tuple[str, str]]:
    found = []
    for path in sorted(folder.glob("*.log")):
        for line in path.read_bytes().splitlines(keepends=True):
            entry = locate(line, path.name, 0)
            if isinstance(entry, Entry):
                found.append((entry.kind, entry.id))
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kills", type=int, default=10)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--experiment", type=Path, help="default: a tiny random model")
    parser.add_argument("--run", type=Path, help="default: a folder that is removed")
    args = parser.parse_args()
    random.seed(args.seed)
    with tempfile.TemporaryDirectory(prefix="chaos_") as folder:
        if args.experiment is None:
            from tests.ornith_jax.train.tiny_run import make

            experiment = make(Path(folder), steps=3 * args.kills + 3)
        else:
            experiment = args.experiment
        steps = load(str(experiment)).train.steps
        chaos = Chaos(experiment, (args.run or Path(folder) / "run").absolute())
        chaos.start()
        try:
            for kill in range(args.kills):
                chaos.wait(min(chaos.batch + random.randint(1, 3), steps - args.kills + kill))
                time.sleep(random.uniform(*FORGIVEN_S))
                chaos.kill(VICTIMS[kill] if kill < len(VICTIMS) else random.choice(VICTIMS))
                print("killed {} at batch {} ({})".format(*chaos.kills[-1]), flush=True)
            chaos.finish()
        finally:
            assert chaos.process is not None
            chaos.process.kill()
        print(chaos.table(steps))
        if problems := chaos.problems(steps):
            sys.exit("\n".join(problems))
    print("every batch was trained on once; nothing that was acknowledged is lost")


if __name__ == "__main__":
    main()
