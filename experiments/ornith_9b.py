"""Ornith-1.0-9B: self-scaffolding RL of the Qwen3.5-9B shape on 4 TPU v5p chips, with SGLang beside them.

What it runs: the two-stage loop of experiments on real tasks, 32,768 tokens per row, AdamW with float32 weights and
moments, every layer recomputed in the backward pass.
On what: learner v5p:2x2x1 (mesh fsdp 4); one SGLang server on one accelerator of 80 GB.
What was seen: not run, there is no such machine here. Compiled by `ornith plan ornith_9b --topology v5p:2x2x1`;
bytes, floors of a step and what limits it are in docs/scale.md.
Not covered: the published model's training data, and its continued pre-training before RL.
"""

from __future__ import annotations

from ornith_jax.experiment import EngineSettings, Experiment, LossSettings, MeshSettings, OptimSettings, TrainSettings

SEQ_LEN = 32768


def get_config() -> Experiment:
    """Values that Ornith-1.0 did not publish keep the defaults of `ornith_jax.experiment`, which say so."""
    return Experiment(
        name="ornith-9b",
        model="qwen3.5-9b",
        mesh=MeshSettings(fsdp=4),
        # A float32 head costs six products on a matrix unit, three quarters more operations in all at this size.
        loss=LossSettings(float32_head=False),
        optim=OptimSettings(learning_rate=1e-6, b1=0.9, b2=0.98, weight_decay=0.1),  # slime's recipe for this family
        train=TrainSettings(seq_len=SEQ_LEN, rows=4),
        engine=EngineSettings(kind="sglang", max_len=SEQ_LEN, tensor_parallel=1),
    )
