"""`ornith train` on one machine: starts learner, engines and driver, watches over them, and starts again what dies.

A process that is silent for too long is asked for its stacks, killed and started again. One that dies again and again
without the run getting on ends the run, with the end of its log. No child outlives the supervisor.
"""

from __future__ import annotations

import fcntl
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ornith_jax.checks import check
from ornith_jax.errors import OrnithError
from ornith_jax.experiment import Experiment
from ornith_jax.train.screen import screen
from rollout.child import dying_with_us
from rollout.run_dir import Events, read_json, read_progress

HANG_S: Mapping[str, float] = {"learner": 1800.0, "engine": 600.0, "driver": 300.0}
"""Without a heartbeat for so long, a process hangs. A learner says nothing while a step compiles and runs."""
RESTARTS = 5  # of one process, while the run does not get on
PAUSE_S = (0.5, 30.0)  # before a process is started again: doubled from the first up to the second
STOP_S = 120.0  # for an orderly end: the learner writes a checkpoint
STACKS_S = 2.0  # for the stacks of a process that hangs to reach its log
TICK_S = 0.2
SCREEN_S = {True: 1.0, False: 15.0}  # between two looks of the screen, on a terminal and elsewhere
TAIL_LINES = 20


@dataclass(slots=True)
class Child:
    """One process of the run, and how it fares."""

    name: str
    role: str
    argv: list[str]
    log: Path
    process: subprocess.Popen[bytes] | None = None
    restarts: int = 0  # since the run last got on
    not_before: float = 0.0
    heard: Any = None  # its last heartbeat
    heard_at: float = 0.0

    def start(self) -> None:
        self.log.parent.mkdir(parents=True, exist_ok=True)
        with self.log.open("ab") as out:
            self.process = subprocess.Popen(
                dying_with_us(self.argv), stdin=subprocess.DEVNULL, stdout=out, stderr=out, start_new_session=True
            )
        self.heard_at = time.monotonic()

    def signal(self, number: int) -> None:
        """To the whole group."""
        if self.process is not None:
            with suppress(ProcessLookupError, PermissionError):
                os.killpg(self.process.pid, number)

    @property
    def runs(self) -> bool:
        return self.process is not None and self.process.poll() is None

    def tail(self) -> str:
        lines = self.log.read_text(errors="replace").splitlines()[-TAIL_LINES:]
        return f"the end of {self.log} is:\n" + "\n".join(lines)


def supervise(
    experiment: Experiment, words: Sequence[str], run_dir: Path, *, hang_s: Mapping[str, float] = HANG_S
) -> None:
    """Run the experiment to its end.

    Args:
        words: the experiment and its overrides, as on the command line: for the children.
    Raises:
        OrnithError: bad settings, a run that is under way already, or one that does not get on.
        KeyboardInterrupt: an interrupt or SIGTERM, after all have stopped in order.
    """
    check(experiment)
    with _only_one(run_dir), _interrupts() as asked:
        Supervisor(experiment, words, run_dir, hang_s).run(asked)


@dataclass(slots=True)
class Supervisor:
    """Holds the children; one look at all of them every TICK_S."""

    experiment: Experiment
    words: Sequence[str]
    run_dir: Path
    hang_s: Mapping[str, float]
    children: list[Child] = field(default_factory=list)
    shown: float = 0.0
    batch: int = -1  # that progress was last seen at

    def run(self, asked: list[int]) -> None:
        events = Events(self.run_dir, "supervisor")
        events.add("started")
        self.children = self._make()
        try:
            while not self._is_over():
                if asked:
                    raise KeyboardInterrupt
                self._look(events)
                time.sleep(TICK_S)
        finally:
            self._stop()
            self._show(last=True)
            events.add("stopped")

    def _make(self) -> list[Child]:
        settings, children = self.experiment.engine, [self._child("learner", "learner")]
        if not settings.urls:
            children += [self._child(f"engine-{number}", "engine") for number in range(settings.replicas)]
        return [*children, self._child("driver", "driver")]

    def _child(self, name: str, role: str) -> Child:
        command = [sys.executable, "-m", "ornith_jax.cli", "train", *self.words]
        options = ["--run", str(self.run_dir), "--role", role, "--name", name]
        return Child(name, role, [*command, *options], self.run_dir / "logs" / f"{name}.log")

    def _is_over(self) -> bool:
        """The learner has finished, and so has the driver, who follows."""
        progress = read_progress(self.run_dir)
        if progress is None or not progress.is_finished or progress.batch < self.experiment.train.steps:
            return False
        return not any(child.runs for child in self.children if child.role != "engine")

    def _look(self, events: Events) -> None:
        progress = read_progress(self.run_dir)
        if progress is not None and progress.batch != self.batch:
            self.batch = progress.batch
            for child in self.children:
                child.restarts = 0
        for child in self.children:
            if child.process is None:
                if time.monotonic() >= child.not_before:
                    child.start()
                continue
            self._check_heart(child, events)
            if not child.runs and not self._may_end(child):
                self._again(child, events)
        if time.monotonic() - self.shown > SCREEN_S[sys.stderr.isatty()]:
            self._show()

    def _may_end(self, child: Child) -> bool:
        assert child.process is not None
        progress = read_progress(self.run_dir)
        done = progress is not None and progress.is_finished and progress.batch >= self.experiment.train.steps
        return done and child.role != "engine" and child.process.returncode == 0

    def _again(self, child: Child, events: Events) -> None:
        """It died: start it again after a pause. Raises OrnithError when it has died too often."""
        assert child.process is not None
        code = child.process.returncode
        child.signal(signal.SIGKILL)  # what it left behind
        events.add("died", child=child.name, code=code, restarts=child.restarts)
        limit = 1 if code == 2 else RESTARTS  # 2: it refused, and will again
        if child.restarts >= limit:
            raise OrnithError(
                f"{child.name} ended with {code}, {child.restarts + 1} times without a batch between; {child.tail()}"
            )
        first, most = PAUSE_S
        child.not_before = time.monotonic() + min(most, first * 2**child.restarts)
        child.restarts += 1
        child.process = None

    def _check_heart(self, child: Child, events: Events) -> None:
        heard = read_json(self.run_dir / "heartbeats" / f"{child.name}.json")
        if heard != child.heard:
            child.heard, child.heard_at = heard, time.monotonic()
        elif child.runs and time.monotonic() - child.heard_at > self.hang_s[child.role]:
            events.add("hung", child=child.name, doing=(heard or {}).get("doing", "starting"))
            assert child.process is not None
            with suppress(ProcessLookupError):
                os.kill(child.process.pid, signal.SIGUSR1)
            time.sleep(STACKS_S)
            child.signal(signal.SIGKILL)
            child.process.wait(STOP_S)

    def _stop(self) -> None:
        """Ask everybody, the engines last: the learner and the driver are in the middle of something."""
        for roles in (("learner", "driver"), ("engine",)):
            some = [child for child in self.children if child.role in roles and child.runs]
            for child in some:
                assert child.process is not None
                with suppress(ProcessLookupError):
                    os.kill(child.process.pid, signal.SIGTERM)
            until = time.monotonic() + STOP_S
            while any(child.runs for child in some) and time.monotonic() < until:
                time.sleep(TICK_S / 2)
        for child in self.children:
            child.signal(signal.SIGKILL)
            if child.process is not None:
                child.process.wait(STOP_S)

    def _show(self, *, last: bool = False) -> None:
        self.shown = time.monotonic()
        live = {child.name: child.runs for child in self.children}
        restarts = sum(child.restarts for child in self.children)
        screen(self.run_dir, self.experiment.train.steps, live, restarts, last=last)


@contextmanager
def _only_one(run_dir: Path) -> Iterator[None]:
    """One supervisor on this machine to a run. The lock goes with the process, however it ends."""
    run_dir.mkdir(parents=True, exist_ok=True)
    with (run_dir / "supervisor.lock").open("a") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise OrnithError(f"{run_dir}: `ornith train` runs here already; give another --run") from None
        yield


@contextmanager
def _interrupts() -> Iterator[list[int]]:
    """SIGINT and SIGTERM are noted, not raised: an orderly stop is not interrupted half way."""
    asked: list[int] = []
    with ExitStack() as stack:
        for number in (signal.SIGINT, signal.SIGTERM):
            before = signal.signal(number, lambda number, frame: asked.append(number))
            stack.callback(signal.signal, number, before)
        yield asked
