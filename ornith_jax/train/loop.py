"""The loop of the learner: draw a batch, dispatch a step, read the metrics of the step before, save now and then.

`train` is the loop itself, for any iterator of batches; `train_sft` is supervised training from a file.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import jax
import numpy as np
from jax.sharding import Mesh

from ornith_jax.checks import check_training, model_config
from ornith_jax.convert import manifest
from ornith_jax.errors import OrnithError
from ornith_jax.experiment import Experiment
from ornith_jax.processes import from_first
from ornith_jax.rl.types import Batch
from ornith_jax.train import metrics
from ornith_jax.train.checkpoint import Checkpoints
from ornith_jax.train.data import BatchIterator, packed_batches, read_sequences
from ornith_jax.train.likelihood import likelihood_loss, likelihood_metrics
from ornith_jax.train.publish import publish
from ornith_jax.train.report import Dispatched, Reporter, Summary
from ornith_jax.train.rundir import claim
from ornith_jax.train.state import TrainState, abstract_state, first_state, mesh_of
from ornith_jax.train.step import Metrics, make_step, put_batches
from rollout.published import version_folder
from rollout.settings import SamplingSettings

SIDE_FILES = ("tokenizer*", "chat_template*", "special_tokens*", "added_tokens*", "generation_config.json", "*.model")
"""What engines need beside the weights, carried from the model's folder into the published one."""

Step = Callable[[TrainState, Batch], tuple[TrainState, Metrics]]


def train(
    step: Step,
    state: TrainState,
    batches: BatchIterator,
    *,
    experiment: Experiment,
    mesh: Mesh,
    run_dir: Path,
    checkpoints: Checkpoints,
    summary: Summary,
    done: int = 0,
    extras: Callable[[], dict[str, Any]] = dict,
) -> TrainState:
    """Consume batches `done` + 1 to train.steps, and return the last state.

    Metrics are read one step late, so that the device never waits for the host; they are on disk before a checkpoint
    begins, so that a restart from it misses none.

    Args:
        done: batches that `state` has consumed. The iterator must stand after them.
        extras: further JSON values for each checkpoint; "data" is the position of the iterator.
    Raises:
        OrnithError: the loss or the gradient was not finite SKIPS_IN_A_ROW times in a row, or a disk failed.
    """
    report = Reporter(run_dir / metrics.FILE, experiment.train.steps, summary, int(state.skipped))
    before: Dispatched | None = None
    for batch in range(done + 1, experiment.train.steps + 1):
        arrays = next(batches)
        state, found = step(state, put_batches(arrays, mesh))
        tokens = int(np.count_nonzero(arrays.segment_ids))
        now = Dispatched(batch, found, tokens, tokens / arrays.segment_ids.size)
        if before is not None:
            report(before)
        before = now
        if batch % experiment.train.checkpoint_every == 0 or batch == experiment.train.steps:
            report(now)
            before = None
            checkpoints.save(batch, state, {**extras(), "data": batches.get_state()})
    return state


def train_sft(experiment: Experiment, data: Path, run_dir: Path) -> TrainState:
    """Supervised training on the sequences of a file (`data.read_sequences`), resumed if the run directory has a past.

    The likelihood is at temperature 1, whatever the experiment samples with.
    The last weights are published as a version of `run_dir/weights`, a folder that every engine and Hugging Face load.

    Raises:
        OrnithError: bad settings, bad data, or a run directory that is taken, damaged or of another experiment.
    """
    check_training(experiment, jax.device_count())
    mesh = mesh_of(experiment)
    with claim(run_dir, experiment):
        with Checkpoints(run_dir / "checkpoints", experiment.train.keep_checkpoints) as checkpoints:
            cfg = model_config(experiment.model)
            source = read_sequences(data, cfg, experiment.train.seq_len)
            batches = packed_batches(source, experiment.train, experiment.seed)
            restored = checkpoints.restore(abstract_state(cfg, experiment, mesh))
            if restored is None:
                state, done = first_state(cfg, experiment, mesh), 0
            else:
                if restored.position["digest"] != source.digest:
                    raise OrnithError(f"{data}: {run_dir} was trained on another file; give that, or another --run")
                state, done = restored.state, restored.batch
                batches.set_state(restored.position["data"])
                print(f"{run_dir}: going on after batch {done}", file=sys.stderr)
            if jax.process_index() == 0:
                metrics.rewind(run_dir / metrics.FILE, done)
            state = train(
                make_step(cfg, replace(experiment, sampling=SamplingSettings()), mesh, likelihood_loss),
                state,
                batches,
                experiment=experiment,
                mesh=mesh,
                run_dir=run_dir,
                checkpoints=checkpoints,
                summary=likelihood_metrics,
                done=done,
                extras=lambda: {"digest": source.digest},
            )
        weights, version = run_dir / "weights", int(state.step)
        if not from_first(version_folder(weights, version).exists()):
            publish(state.params, cfg, weights, version, side_files=side_files(Path(experiment.model)))
    return state


def side_files(model: Path) -> dict[str, bytes]:
    """The tokenizer and the like of a Hugging Face folder or of a checkpoint of ours; none of a published name."""
    folder = model / manifest.SIDE if manifest.is_checkpoint(model) else model
    return {path.name: path.read_bytes() for pattern in SIDE_FILES for path in sorted(folder.glob(pattern))}
