"""Tokens per second of the whole train step, beside what it is made of, beside torch, and beside padded rows.

    python -m benchmarks.train [--rounds 3] [--steps 3] [--threads 2] [--models 1]

For each model, same random weights, float32, the same number of threads, in one process, measured in turn (A B A B);
a ratio is the median of the ratios of neighbouring rounds. Compile time is not counted.

loop      `train.loop.train`: data from grain, dispatch, update, metrics on disk; no checkpoints
step      the jitted update alone, on one batch that lies ready: the difference to `loop` is the cost of the loop
gradient  the jitted forward and backward pass alone: the difference to `step` is the optimizer
torch     `transformers`: the same tokens, the same masked log-likelihood, the same clip, AdamW (fused)
packed    sequences of uneven length in packed rows, and
padded    one of them in each row; only tokens that are no padding are counted
"""

from __future__ import annotations

import argparse
import contextlib
import io
import os
import statistics
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.model import torch_models


@dataclass
class Ours:
    """The programs of one model. The state goes from call to call, for a step gives its buffers away."""

    cfg: Any
    experiment: Any
    mesh: Any
    state: Any
    jitted: Any
    gradients: Any

    @staticmethod
    def make(cfg: Any, params: Any, args: argparse.Namespace) -> Ours:
        import jax

        from ornith_jax.experiment import Experiment, LossSettings, OptimSettings, TrainSettings
        from ornith_jax.train.likelihood import likelihood_loss
        from ornith_jax.train.state import init_state, mesh_of
        from ornith_jax.train.step import make_gradients, make_step

        experiment = Experiment(
            name="benchmark",
            model="",
            loss=LossSettings(router="trained"),
            optim=OptimSettings(learning_rate=1e-4),
            train=TrainSettings(
                steps=args.steps,
                seq_len=args.length,
                rows=args.rows,
                remat="dots",
                dtype="float32",
                checkpoint_every=args.steps + 1,
            ),
        )
        mesh = mesh_of(experiment)
        state = init_state(cfg, experiment, mesh).replace(params=jax.tree.map(lambda x: x.copy(), params))
        step = make_step(cfg, experiment, mesh, likelihood_loss)
        return Ours(cfg, experiment, mesh, state, step, jax.jit(make_gradients(cfg, experiment, mesh, likelihood_loss)))

    def loop(self, batches: Any, folder: Path) -> None:
        import jax

        from ornith_jax.train.likelihood import likelihood_metrics
        from ornith_jax.train.loop import train

        with contextlib.redirect_stderr(io.StringIO()):  # its lines of progress
            self.state = train(
                self.jitted,
                self.state,
                batches,
                experiment=self.experiment,
                mesh=self.mesh,
                run_dir=folder,
                checkpoints=NoCheckpoints(),  # type: ignore[arg-type]
                summary=likelihood_metrics,
            )
        jax.block_until_ready(self.state)

    def step(self, batch: Any) -> None:
        import jax

        for _ in range(self.experiment.train.steps):
            self.state, _ = self.jitted(self.state, batch)
        jax.block_until_ready(self.state)

    def gradient(self, batch: Any) -> None:
        import jax

        for _ in range(self.experiment.train.steps):
            jax.block_until_ready(self.gradients(self.state.params, self.state.step, batch))


class NoCheckpoints:
    """Stands for the checkpoints of a run: what they cost depends on how often they are made."""

    def save(self, *_: Any) -> None:
        pass


def sequences(cfg: Any, lengths: np.ndarray) -> Any:
    """Random sequences of the given lengths; all tokens train but the first, which nothing predicts."""
    from ornith_jax.train.data import Sequences

    starts = np.concatenate([[0], np.cumsum(lengths)])
    mask = np.ones(starts[-1], np.float32)
    mask[starts[:-1]] = 0
    ids = np.random.default_rng(0).integers(1, cfg.vocab_size, starts[-1]).astype(np.int32)
    return Sequences(ids, mask, starts, digest="")


def padded(source: Any, like: Any) -> Any:
    """A batch of the shape of `like` with one sequence in each row."""
    arrays = {
        name: np.zeros_like(getattr(like, name)) for name in ("token_ids", "segment_ids", "positions", "loss_mask")
    }
    for row in range(like.token_ids.shape[1]):
        record = source[row]
        here = (0, row, slice(0, len(record["token_ids"])))
        arrays["token_ids"][here], arrays["loss_mask"][here] = record["token_ids"], record["loss_mask"]
        arrays["segment_ids"][here], arrays["positions"][here] = 1, np.arange(len(record["token_ids"]))
    return like.replace(**arrays)


def torch_steps(model: Any, batch: Any, steps: int) -> Callable[[], None]:
    import torch

    ids, mask = (torch.tensor(np.array(x[0])) for x in (batch.token_ids, batch.loss_mask))
    optimizer = torch.optim.AdamW(model.parameters(), 1e-4, betas=(0.9, 0.98), weight_decay=0.1, fused=True)

    def run() -> None:
        for _ in range(steps):
            optimizer.zero_grad()
            logprobs = torch.log_softmax(model(ids.long(), use_cache=False).logits[:, :-1], -1)
            picked = torch.gather(logprobs, -1, ids[:, 1:, None].long())[..., 0]
            (-(picked * mask[:, 1:]).sum() / mask.sum()).backward()
            torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
            optimizer.step()

    return run


def in_turn(works: dict[str, Callable[[], None]], rounds: int) -> dict[str, list[float]]:
    """Seconds of each call in each round, after one call of each to compile."""
    for call in works.values():
        call()
    found: dict[str, list[float]] = {name: [] for name in works}
    for _ in range(rounds):
        for name, call in works.items():
            start = time.perf_counter()
            call()
            found[name].append(time.perf_counter() - start)
    return found


def times_faster(found: dict[str, list[float]], name: str, other: str) -> float:
    return statistics.median(b / a for a, b in zip(found[name], found[other], strict=True))


def measure(name: str, model: Any, args: argparse.Namespace, folder: Path) -> None:
    from ornith_jax.models.registry import config_from_hf
    from ornith_jax.train.data import packed_batches
    from ornith_jax.train.step import put_batches
    from tests.ornith_jax.torch_weights import to_params

    cfg = config_from_hf({**model.config.to_dict(), "dtype": "float32"})
    ours = Ours.make(cfg, to_params(dict(model.state_dict()), cfg), args)
    full_rows = packed_batches(sequences(cfg, np.full(64, args.length)), ours.experiment.train, 0)
    batch = next(full_rows)
    ready = put_batches(batch, ours.mesh)
    works = {
        "loop": partial(ours.loop, full_rows, folder),
        "step": partial(ours.step, ready),
        "gradient": partial(ours.gradient, ready),
        "torch": torch_steps(model, batch, args.steps),
    }
    found = in_turn(works, args.rounds)
    print(f"\n{name}: {sum(p.numel() for p in model.parameters()):,} parameters, {args.rows} x {args.length} tokens")
    for part, seconds in found.items():
        print(f"  {part:<10}{args.steps * batch.token_ids.size / statistics.median(seconds):>10,.0f} tokens/s")
    for one, other in (("loop", "step"), ("loop", "gradient"), ("step", "gradient"), ("loop", "torch")):
        print(f"  {one} / {other}: {times_faster(found, one, other):.3f}", flush=True)
    measure_packing(ours, args)


def measure_packing(ours: Ours, args: argparse.Namespace) -> None:
    """Lognormal lengths, of median a quarter of a row; both batches have the same shape, so the program is the same."""
    from ornith_jax.train.data import packed_batches
    from ornith_jax.train.step import put_batches

    lengths = args.length / 4 * np.random.default_rng(1).lognormal(0, 0.6, 512)
    source = sequences(ours.cfg, np.clip(lengths, 8, args.length).astype(int))
    packed = next(packed_batches(source, ours.experiment.train, 0))
    batches = {"packed": packed, "padded": padded(source, packed)}
    tokens = {name: int((batch.segment_ids > 0).sum()) for name, batch in batches.items()}
    works = {name: partial(ours.step, put_batches(batch, ours.mesh)) for name, batch in batches.items()}
    found = in_turn(works, args.rounds)
    for name, seconds in found.items():
        rate = args.steps * tokens[name] / statistics.median(seconds)
        print(f"  {name:<10}{rate:>10,.0f} tokens/s ({tokens[name] / packed.token_ids.size:.0%} of the rows filled)")
    gain = times_faster(found, "packed", "padded") * tokens["packed"] / tokens["padded"]
    print(f"  packed / padded: {gain:.2f}", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--steps", type=int, default=3, help="updates in one measurement")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--rows", type=int, default=4)
    parser.add_argument("--length", type=int, default=512)
    parser.add_argument("--models", type=int, default=4, help="the first so many of benchmarks.model")
    args = parser.parse_args()
    os.environ.setdefault("JAX_PLATFORMS", "cpu")  # where torch is
    os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[: args.threads])
    import torch

    torch.set_num_threads(args.threads)
    for name, model in list(torch_models().items())[: args.models]:
        with tempfile.TemporaryDirectory() as folder:
            measure(name, model, args, Path(folder))


if __name__ == "__main__":
    main()
