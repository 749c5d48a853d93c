"""A run of the real roles that is small enough for tests: random weights, real sandboxes, no scaffold stage.

A random policy solves nothing: every advantage is zero. The entropy bonus alone keeps its tokens in the batch, so that
every update moves the weights.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

EXPERIMENT = """
from ornith_jax.experiment import *
from rollout.settings import *
from rollout.types import Arm

def get_config():
    return Experiment(
        name="tiny",
        model={model!r},
        mesh=MeshSettings(fsdp=4),
        suite=SuiteSettings(count=30),
        rollout=RolloutSettings(
            arm=Arm.NONE, scaffolds_per_task=1, solutions_per_scaffold=2, turn_tokens=8, max_turns=2,
            context_tokens=2048, episode_tokens=64, groups_in_flight=4, groups_per_step=2, max_staleness=2,
            warm_sandboxes=2, sandbox="bubblewrap",
        ),
        engine=EngineSettings(slots=4, max_len=4096, dtype="float32", replicas=2),
        loss=LossSettings(entropy=0.01),
        optim=OptimSettings(learning_rate=1e-3),
        train=TrainSettings(steps={steps}, seq_len=2048, rows=4, dtype="float32", checkpoint_every=2),
    )
"""


def make(folder: Path, steps: int) -> Path:
    """Model and experiment below `folder`; the experiment's path."""
    import jax

    from ornith_jax.convert.save_hf import save_hf
    from ornith_jax.models.decoder import table
    from ornith_jax.models.named import TINY_QWEN
    from ornith_jax.params import init
    from tests.rollout.tokenizers import folder as tokenizer

    cfg = replace(TINY_QWEN, period=TINY_QWEN.period[2:], num_layers=2, embed_dim=32, ffw_dim=64, vocab_size=2048)
    side_files = {file.name: file.read_bytes() for file in tokenizer("qwen3_5").iterdir()}
    save_hf(init(table(cfg), jax.random.key(0), "float32"), cfg, folder / "model", side_files=side_files)
    (folder / "tiny.py").write_text(EXPERIMENT.format(model=str(folder / "model"), steps=steps))
    return folder / "tiny.py"
