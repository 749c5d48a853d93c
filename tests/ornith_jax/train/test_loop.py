"""The loop itself, around a step that is no model: what is read when, and what is saved with what."""

import jax
import jax.numpy as jnp
import numpy as np

from ornith_jax.train.loop import train
from ornith_jax.train.metrics import read
from ornith_jax.train.state import TrainState, mesh_of
from tests.ornith_jax.train.tiny import DENSE, batches, experiment


class Numbered:
    """Batches 1, 2, 3, ...: the number is every token's id."""

    def __init__(self) -> None:
        self.number = 0

    def __next__(self):
        self.number += 1
        like = batches(DENSE)
        return like.replace(token_ids=np.full_like(like.token_ids, self.number))

    def get_state(self) -> int:
        return self.number


class Recorder:
    """Notes what happens in which order; its `save` stands for the checkpoints."""

    def __init__(self) -> None:
        self.events: list[tuple] = []

    def step(self, state: TrainState, batch):
        number = int(batch.token_ids[0, 0, 0])
        self.events.append(("dispatch", number))
        state = state.replace(step=state.step + 1)
        found = {"step": state.step, "optim/skipped": state.skipped, "optim/grad_norm": jnp.float32(0)}
        return state, {"sums": {"number": jnp.float32(number)}, **found}

    def summary(self, sums) -> dict[str, float]:
        self.events.append(("read", int(sums["number"])))
        return {"loss": float(sums["number"])}

    def save(self, batch: int, state: TrainState, position: dict) -> None:
        self.events.append(("save", batch, int(state.step), position))


def run(tmp_path, done: int = 0):
    e = experiment(steps=5, checkpoint_every=3)
    recorder, source = Recorder(), Numbered()
    source.number = done
    state = TrainState(step=jnp.int32(done), params={}, opt_state=(), skipped=jnp.int32(0))
    state = train(
        recorder.step,
        state,
        source,
        experiment=e,
        mesh=mesh_of(e, jax.devices()[:1]),
        run_dir=tmp_path,
        checkpoints=recorder,
        summary=recorder.summary,
        done=done,
        extras=lambda: {"library": 7},
    )
    return recorder.events, state


def test_metrics_are_read_one_step_late_and_written_before_a_checkpoint_begins(tmp_path):
    events, state = run(tmp_path)
    assert events == [
        *[("dispatch", 1), ("dispatch", 2), ("read", 1), ("dispatch", 3), ("read", 2), ("read", 3)],
        ("save", 3, 3, {"library": 7, "data": 3}),
        *[("dispatch", 4), ("dispatch", 5), ("read", 4), ("read", 5)],
        ("save", 5, 5, {"library": 7, "data": 5}),
    ]
    assert int(state.step) == 5
    records = read(tmp_path / "metrics.jsonl")
    assert [(record["batch"], record["step"], record["loss"]) for record in records] == [(i, i, i) for i in range(1, 6)]
    assert all(record["time/step_s"] > 0 and 0 < record["data/fill"] <= 1 for record in records)


def test_a_run_that_has_consumed_all_its_batches_does_nothing(tmp_path):
    events, state = run(tmp_path, done=5)
    assert events == []
    assert int(state.step) == 5
