"""First steps with the models alone: make a tiny model, convert it, run it, and give it back bit for bit.

What it runs: one tiny Qwen3.5-style model with random weights, in a folder of its own under `runs/`.
On what, for how long: two CPU cores, under a minute; no network, no torch.
What it shows: Hugging Face folder -> `ornith convert import` -> `ornith score` and greedy decoding -> `export`,
with the log-probabilities of both forms equal and the exported files identical to the byte.
"""

from __future__ import annotations

import shutil
import sys
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np

from ornith_jax.cli import main as ornith
from ornith_jax.convert.load import load
from ornith_jax.convert.save_hf import save_hf
from ornith_jax.models import decoder
from ornith_jax.models.generate import greedy
from ornith_jax.models.named import NAMED
from ornith_jax.params import count, init

RUN = Path("runs/first-steps")
MODEL = "tiny-qwen3.5-moe"


def run(*words: object) -> None:
    """One `ornith` command, as a person would type it."""
    print(f"\n$ ornith {' '.join(map(str, words))}", flush=True)
    if code := ornith([str(word) for word in words]):
        sys.exit(code)


def main() -> None:
    shutil.rmtree(RUN, ignore_errors=True)
    RUN.mkdir(parents=True)
    cfg = NAMED[MODEL]
    table = decoder.table(cfg)
    print(f"{MODEL}: {count(table):,} parameters, {cfg.num_layers} layers, random weights -> {RUN}/hf")
    save_hf(init(table, jax.random.key(0), cfg.dtype), cfg, RUN / "hf")

    run("convert", "check", RUN / "hf")
    run("convert", "import", RUN / "hf", RUN / "checkpoint")
    run("convert", "inspect", RUN / "checkpoint")
    tokens = np.random.default_rng(0).integers(0, cfg.vocab_size, (2, 100)).astype(np.int32)
    np.savez(RUN / "tokens.npz", token_ids=tokens)
    for source in ("hf", "checkpoint"):
        run("score", RUN / source, RUN / "tokens.npz", RUN / f"{source}.npz")
    with np.load(RUN / "hf.npz") as ours, np.load(RUN / "checkpoint.npz") as theirs:
        np.testing.assert_array_equal(ours["logprobs"], theirs["logprobs"])
        print(f"mean logprob {ours['logprobs'][:, 1:].mean():.4f}; both forms give the same numbers")

    _, params = load(RUN / "checkpoint")
    lengths = jnp.full((2,), 100, jnp.int32)
    print("greedy continuation:", greedy(params, cfg, jnp.asarray(tokens), lengths, num_tokens=12).tolist())

    run("convert", "export", RUN / "checkpoint", RUN / "exported")
    for file in sorted((RUN / "hf").iterdir()):
        assert file.read_bytes() == (RUN / "exported" / file.name).read_bytes(), file.name
        print(f"{RUN / 'exported' / file.name}: identical to the byte")


if __name__ == "__main__":
    main()
