"""The learner's side of a run: read the plan of the next batch, train on it, publish, say so. `rollout.run_dir` is the
contract with the driver.

    plan n ─► groups from the log ─► samples, packed ─► step ─► weights/v... ─► metrics.jsonl ─► progress n

A batch without a sample, or whose update was skipped, makes no version; progress grows all the same. Killed at any
moment and started again, it reads the same plans from its last checkpoint on, and comes by the same numbers.
"""

from __future__ import annotations

import sys
import time
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jax
import numpy as np

from ornith_jax.checks import check, model_config
from ornith_jax.errors import OrnithError
from ornith_jax.experiment import Experiment
from ornith_jax.processes import any_of
from ornith_jax.rl import metrics as loss_metrics
from ornith_jax.rl.group_metrics import group_metrics
from ornith_jax.rl.pack import pack
from ornith_jax.rl.samples import make_samples
from ornith_jax.train import metrics
from ornith_jax.train.checkpoint import Checkpoints
from ornith_jax.train.loop import Step, side_files
from ornith_jax.train.report import Dispatched, Reporter
from ornith_jax.train.rundir import claim
from ornith_jax.train.state import TrainState, abstract_state, first_state, mesh_of
from ornith_jax.train.step import make_step, put_batches
from ornith_jax.train.versions import Versions
from rollout.planned import read_groups, wait_for_plan
from rollout.run_dir import BatchPlan, Events, Progress, beat, read_progress, write_progress
from rollout.store.index import Index
from rollout.types import Group

PROCESS = "learner"
BEAT_S = 1.0


def train_rl(experiment: Experiment, run_dir: Path, *, stop: Callable[[], bool] = lambda: False) -> TrainState:
    """Train on the batches that a driver plans, resumed if the run directory has a past; the last state.

    Args:
        stop: asked between batches; when it says so, a checkpoint is written and the call returns.
    Raises:
        OrnithError: bad settings, a run directory that is taken, damaged or of another experiment, or a run that is
            lost (see `train.loop.train`).
        RolloutError: a damaged plan, or a driver that is gone.
    """
    check(experiment, jax.device_count())
    if experiment.loss.kl:
        raise OrnithError("loss.kl: `ornith train` keeps no reference policy yet; set loss.kl=0")
    mesh, cfg = mesh_of(experiment), model_config(experiment.model)
    with claim(run_dir, experiment), Checkpoints(run_dir / "checkpoints", experiment.train.keep_checkpoints) as saved:
        restored = saved.restore(abstract_state(cfg, experiment, mesh))
        if restored is None:
            state, done = first_state(cfg, experiment, mesh), 0
        else:
            state, done = restored.state, restored.batch
            print(f"{run_dir}: going on after batch {done}", file=sys.stderr)
        if jax.process_index() == 0:
            metrics.rewind(run_dir / metrics.FILE, done)
        learner = Learner(
            experiment=experiment,
            run_dir=run_dir,
            experts_per_token=cfg.moe.experts_per_token if cfg.moe and experiment.loss.router == "replayed" else 0,
            step=make_step(cfg, experiment, mesh),
            put=lambda batch: put_batches(batch, mesh),
            versions=Versions(
                root=run_dir / "weights",
                cfg=cfg,
                experiment=experiment,
                mesh=mesh,
                side_files=side_files(Path(experiment.model)),
            ),
            checkpoints=saved,
            index=Index(run_dir / "trajectories"),
            report=Reporter(
                run_dir / metrics.FILE, experiment.train.steps, _summary, int(state.skipped), line=in_words
            ),
            heart=Heart(run_dir),
            events=Events(run_dir, f"{PROCESS}-{jax.process_index()}" if jax.process_index() else PROCESS),
        )
        return learner.run(state, done, stop)


@dataclass(frozen=True, slots=True, kw_only=True)
class Learner:
    """What one run of the loop works with."""

    experiment: Experiment
    run_dir: Path
    experts_per_token: int  # of the replayed router; 0: none is replayed
    step: Step
    put: Callable[[Any], Any]
    versions: Versions
    checkpoints: Checkpoints
    index: Index
    report: Reporter
    heart: Heart
    events: Events

    def run(self, state: TrainState, done: int, stop: Callable[[], bool]) -> TrainState:
        """Batches `done` + 1 to train.steps, unless stopped."""
        steps, every, saved = self.experiment.train.steps, self.experiment.train.checkpoint_every, done
        self.heart("publishing")
        self.versions.publish(state.params, int(state.step))
        self._say(done, int(state.step), is_finished=done == steps)
        self.events.add("started", batch=done, policy_version=int(state.step))
        while done < steps:
            began, batch = time.monotonic(), done + 1
            plan = wait_for_plan(self.run_dir, batch, self.heart.while_not(stop, f"waiting for batch {batch}"))
            if any_of(plan is None or stop()):  # every process must ask, those without a plan too
                break
            assert plan is not None
            state = self._train(state, plan, time.monotonic() - began)
            done = batch
            if done % every == 0 or done == steps:
                self.checkpoints.save(done, state, {"batch": done})
                saved = done
            self._say(done, int(state.step), is_finished=False)
        if done > saved:
            self.checkpoints.save(done, state, {"batch": done})
        self.heart("writing the checkpoint")
        self.checkpoints.wait()
        self._say(done, int(state.step), is_finished=done == steps)
        self.events.add("stopped", batch=done, policy_version=int(state.step))
        return state

    def _train(self, state: TrainState, plan: BatchPlan, wait_s: float) -> TrainState:
        """One batch: the update, the version that it made, and a line of metrics."""
        began, version = time.monotonic(), int(state.step)
        self.heart(f"training on batch {plan.batch}")
        if plan.policy_version != version:
            raise OrnithError(
                f"{self.run_dir}: batch {plan.batch} was planned at policy version {plan.policy_version}, but the "
                f"learner is at {version}; its checkpoints and plans are of two runs"
            )
        groups, problems = read_groups(self.index, plan)
        for problem in problems:
            print(f"ornith: warning: left out: {problem}", file=sys.stderr)
        samples, counts = make_samples(groups, self.experiment, version, self.experts_per_token)
        counts["dropped/damaged_record"] += len(problems)
        notes = self._notes(groups, version, +counts)
        done = self._update(state, samples, plan.batch)
        state, stepped = done.pop("state"), time.monotonic()
        published = int(state.step) > version and self.versions.publish(state.params, int(state.step))
        publish_s = time.monotonic() - stepped
        times = {"time/wait_s": wait_s, "time/step_s": stepped - began, "time/publish_s": publish_s}
        self.report(Dispatched(batch=plan.batch, **done, notes=notes | times))
        if published:
            self.events.add("published", policy_version=int(state.step), seconds=publish_s)
        return state

    def _update(self, state: TrainState, samples: Sequence[Any], batch: int) -> dict[str, Any]:
        """The new state, and what `Dispatched` says of the step; the old one when there is nothing to train on."""
        if not samples:
            found = {"step": state.step, "optim/skipped": state.skipped, "sums": {}}
            return {"state": state, "metrics": found, "tokens": 0, "fill": 0.0}
        train = self.experiment.train
        packed = pack(samples, rows=train.rows, seq_len=train.seq_len, accumulation=train.accumulation)
        state, found = self.step(state, self.put(packed.batch))
        jax.block_until_ready(state.step)
        tokens = int(np.count_nonzero(packed.batch.segment_ids))
        return {"state": state, "metrics": found, "tokens": tokens, "fill": packed.fill}

    def _notes(self, groups: Sequence[Group], version: int, counts: Counter[str]) -> dict[str, float]:
        solutions = self.experiment.rollout.solutions_per_scaffold
        found = group_metrics(groups, self.experiment.advantage, solutions, version)
        return found | {name: float(count) for name, count in counts.items()}

    def _say(self, batch: int, policy_version: int, *, is_finished: bool) -> None:
        """Progress never goes back: a learner that restarts from an older checkpoint says nothing until it is ahead."""
        if jax.process_index():
            return
        before = read_progress(self.run_dir)
        if before is None or batch >= before.batch:
            now = Progress(batch=batch, policy_version=policy_version, is_finished=is_finished)
        else:
            now = Progress(batch=before.batch, policy_version=before.policy_version)
        if now != before:
            write_progress(self.run_dir, now)


@dataclass(slots=True)
class Heart:
    """`heart("waiting")` beats when what is done changes, or a second has passed."""

    run_dir: Path
    doing: str = ""
    last: float = float("-inf")

    def __call__(self, doing: str) -> None:
        if jax.process_index() == 0 and (doing != self.doing or time.monotonic() - self.last > BEAT_S):
            beat(self.run_dir, PROCESS, doing)
            self.doing, self.last = doing, time.monotonic()

    def while_not(self, stop: Callable[[], bool], doing: str) -> Callable[[], bool]:
        """`stop` with a beat at every question."""

        def asked() -> bool:
            self(doing)
            return stop()

        return asked


def in_words(record: Any) -> str:
    """A record of this loop for people."""
    reward = record.get("reward/mean")
    told = "no reward" if reward is None else f"reward {reward:.3f}"
    return (
        f"v{record['step']}  {told}  loss {record.get('loss', 0.0):.4f}  "
        f"waited {record['time/wait_s']:.1f} s, trained {record['time/step_s']:.1f} s, "
        f"published {record['time/publish_s']:.1f} s"
    )


def _summary(sums: Any) -> dict[str, float]:
    return loss_metrics.metrics(sums) if sums else {}
