"""Tokens per second of the embedded engine beside `transformers.generate`, and beside the bytes that must be moved.

    python -m benchmarks.decode [--rounds 3] [--threads 2] [--sample]

Same random weights, same prompts, float32, the same number of threads, in turn (A B A B ...) in one process; the
ratio is the median of neighbouring rounds. Compile time is not counted. All of the engine is: queue, prefill, host.

The bound is the time to move the bytes of one step at the bandwidth of a copy as large as the weights, measured in
the same run: every weight read once, every row's keys and values read, its recurrent state read and written.
"""

from __future__ import annotations

import argparse
import asyncio
import os
from typing import Any

import numpy as np

from benchmarks.model import Workload, compare, seconds, torch_models

MODELS = ("qwen3.5 dense tiny", "qwen3.5 dense")
BATCHES = (1, 8, 32)
PROMPT, NEW = 32, 64


def workload(engine: Any, model: Any, batch: int, runner: asyncio.Runner, sample: bool) -> Workload:
    import torch

    from rollout.types import Sampling

    ids = np.random.default_rng(batch).integers(1, engine.cfg.vocab_size, (batch, PROMPT))
    sampling = Sampling(max_new_tokens=NEW, temperature=float(sample))
    options = {"max_new_tokens": NEW, "do_sample": sample, "eos_token_id": None, "pad_token_id": 0}

    async def all_rows() -> None:
        await asyncio.gather(*(engine.generate(row, sampling, deadline_s=600) for row in ids.tolist()))

    def theirs() -> None:
        with torch.no_grad():
            model.generate(torch.tensor(ids).long(), **options)

    for _ in range(3):  # the engine learns how long a step takes
        runner.run(all_rows())
    return Workload(f"x{batch}", batch * NEW, lambda: runner.run(all_rows()), theirs)


def bytes_per_step(cfg: Any, params: Any, batch: int) -> int:
    """Weights but for the looked-up table (when it is not the head too), and the mean state of all rows."""
    import jax

    from ornith_jax.config import AttentionConfig
    from ornith_jax.models import decoder

    weights = sum(x.nbytes for x in jax.tree.leaves(params))
    if not cfg.tie_embeddings:
        weights -= params["embed"].nbytes
    cache = jax.eval_shape(lambda: decoder.init_cache(cfg, batch, PROMPT + NEW // 2, "float32"))
    state = 0
    for name, mixer in decoder.slots(cfg):
        size = sum(x.size * x.dtype.itemsize for x in jax.tree.leaves(cache["layers"][name]))
        state += size if isinstance(mixer, AttentionConfig) else 2 * size
    return weights + state


def bandwidth(nbytes: int) -> float:
    """Bytes per second, read and written, of a copy of this size."""
    import jax
    import jax.numpy as jnp

    x = jnp.ones(nbytes // 4, jnp.float32)
    copy = jax.jit(lambda x: x + 1)
    copy(x).block_until_ready()
    return 2 * nbytes / min(seconds(lambda: copy(x).block_until_ready()) for _ in range(7))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--sample", action="store_true", help="temperature 1 instead of greedy, on both sides")
    args = parser.parse_args()
    os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[: args.threads])
    import torch

    from ornith_jax.models.registry import config_from_hf
    from ornith_jax.serve.engine import EmbeddedEngine
    from rollout.settings import EngineSettings
    from tests.ornith_jax.torch_weights import to_params

    torch.set_num_threads(args.threads)
    columns = ("ours tok/s", "torch tok/s", "ratio", "ms/step", "bound ms", "of bound")
    print(f"{'model':<20}{'parameters':>12}{'batch':>7}" + "".join(f"{c:>13}" for c in columns))
    every = torch_models()
    with asyncio.Runner() as runner:
        for name in MODELS:
            model = every[name].eval()
            cfg = config_from_hf({**model.config.to_dict(), "dtype": "float32"})
            params = to_params(dict(model.state_dict()), cfg)
            size = sum(p.numel() for p in model.parameters())
            speed = bandwidth(4 * size)
            for batch in BATCHES:
                engine = EmbeddedEngine(cfg, EngineSettings(slots=batch, max_len=PROMPT + NEW, dtype="float32"))
                runner.run(engine.update_params(params, 0))
                ours, theirs, ratio = compare(workload(engine, model, batch, runner, args.sample), args.rounds)
                runner.run(engine.close())
                step, bound = batch / ours, bytes_per_step(cfg, params, batch) / speed
                numbers = f"{ours:>13,.0f}{theirs:>13,.0f}{ratio:>12.2f}x{step * 1e3:>13.2f}{bound * 1e3:>13.2f}"
                print(f"{name:<20}{size:>12,}{batch:>7}{numbers}{bound / step:>13.0%}", flush=True)


if __name__ == "__main__":
    main()
