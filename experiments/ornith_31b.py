"""Ornith-1.0-31B, announced and never released: self-scaffolding RL of the Gemma 4 31B shape on TPU v5p.

What it runs: as experiments/ornith_9b.py, on a dense model with five sliding-window layers to one global layer.
On what: learner v5p:2x2x2 (mesh fsdp 4 x context 2); SGLang servers of two accelerators each.
What was seen: not run, there is no such machine here. Compiled by `ornith plan ornith_31b --topology v5p:2x2x2`;
bytes, floors of a step and what limits it are in docs/scale.md.
Not covered: whether the 31B was trained at all, and from which checkpoint, is not published.
"""

from __future__ import annotations

from ornith_jax.experiment import EngineSettings, Experiment, LossSettings, MeshSettings, OptimSettings, TrainSettings

SEQ_LEN = 32768


def get_config() -> Experiment:
    """Values that Ornith-1.0 did not publish keep the defaults of `ornith_jax.experiment`, which say so."""
    return Experiment(
        name="ornith-31b",
        model="gemma4-31b",
        mesh=MeshSettings(fsdp=4, context=2),
        loss=LossSettings(float32_head=False),  # the tied head is a twentieth of the model; six times that is a quarter
        optim=OptimSettings(learning_rate=1e-6, b1=0.9, b2=0.98, weight_decay=0.1),
        train=TrainSettings(seq_len=SEQ_LEN, rows=4),
        engine=EngineSettings(kind="sglang", max_len=SEQ_LEN, tensor_parallel=2),
    )
