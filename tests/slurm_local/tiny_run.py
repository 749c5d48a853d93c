"""`experiments/quickstart.py` made small enough for tests: random weights, real sandboxes, no scaffold stage.

A random policy solves nothing: every advantage is zero. The entropy bonus alone keeps its tokens in the batch, so that
every update moves the weights.
"""

from __future__ import annotations

from pathlib import Path

OVERRIDES = (
    *("mesh.fsdp=4", "engine.replicas=2", "engine.slots=4", "engine.max_len=4096", "suite.count=40"),
    *("rollout.arm=none", "rollout.scaffolds_per_task=1", "rollout.solutions_per_scaffold=2", "rollout.max_turns=2"),
    *("rollout.context_tokens=2048", "rollout.turn_tokens=8", "rollout.episode_tokens=64", "rollout.warm_sandboxes=2"),
    *("rollout.groups_in_flight=4", "rollout.groups_per_step=2", "rollout.sandbox=bubblewrap"),
    *("loss.entropy=0.01", "train.seq_len=2048", "train.checkpoint_every=2"),
)


def make(folder: Path) -> tuple[str, ...]:
    """A model below `folder`, and all overrides of `quickstart` but the number of steps."""
    import jax

    from experiments.school import config
    from ornith_jax.convert.save_hf import save_hf
    from ornith_jax.models.decoder import table
    from ornith_jax.params import init
    from tests.rollout.tokenizers import folder as tokenizer

    cfg = config(2048)
    side_files = {file.name: file.read_bytes() for file in tokenizer("qwen3_5").iterdir()}
    save_hf(init(table(cfg), jax.random.key(0), "float32"), cfg, folder / "model", side_files=side_files)
    return (f"model={folder / 'model'}", *OVERRIDES)
