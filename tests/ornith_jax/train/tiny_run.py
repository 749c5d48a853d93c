"""A folder with a tiny random model, its tokenizer, and an experiment that `ornith train` can run in a minute."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import jax

from ornith_jax.convert.save_hf import save_hf
from ornith_jax.models.decoder import table
from ornith_jax.params import init
from tests.ornith_jax.train.tiny import DENSE
from tests.rollout import tokenizers

VOCABULARY = 2112  # of the project's tokenizer, rounded up
EXPERIMENT = """
from ornith_jax.experiment import *
from rollout.settings import *
from rollout.types import Arm


def get_config():
    return Experiment(
        name="tiny",
        model={model!r},
        suite=SuiteSettings(count=10),
        rollout=RolloutSettings(
            arm=Arm.NONE, scaffolds_per_task=1, solutions_per_scaffold=2, context_tokens=1536, scaffold_tokens=16,
            turn_tokens=16, episode_tokens=32, max_turns=1, turn_s=60, episode_s=120, group_s=240,
            groups_in_flight=4, groups_per_step=2, max_staleness=1, warm_sandboxes=1,
        ),
        engine=EngineSettings(slots=4, max_len=1536, dtype="float32"),
        loss=LossSettings(entropy=0.01),  # a random model earns nothing: entropy alone moves it
        optim=OptimSettings(learning_rate=1e-3),
        train=TrainSettings(steps={steps}, seq_len=1536, rows=2, dtype="float32", remat="none", checkpoint_every=3),
    )
"""


def make(folder: Path, steps: int) -> Path:
    """The experiment's file."""
    cfg = replace(DENSE, vocab_size=VOCABULARY)
    side_files = {file.name: file.read_bytes() for file in tokenizers.folder("qwen3_5").iterdir()}
    save_hf(init(table(cfg), jax.random.key(0), "float32"), cfg, folder / "model", side_files=side_files)
    experiment = folder / "experiment.py"
    experiment.write_text(EXPERIMENT.format(model=str(folder / "model"), steps=steps))
    return experiment
