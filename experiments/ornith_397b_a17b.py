"""Ornith-1.0-397B: self-scaffolding RL of the Qwen3.5-397B-A17B shape on a TPU v5p pod slice.

What it runs: as experiments/ornith_35b_a3b.py, with 512 experts of which a token uses 10, in 60 layers.
On what: learner v5p:4x4x8, 128 chips (mesh expert 32 x context 4: rows cut in four, an exchange among 32 chips);
SGLang servers of eight accelerators of 141 GB each.
What was seen: not run, there is no such machine here. Compiled by `ornith plan ornith_397b_a17b --topology v5p:4x4x8`;
bytes, floors of a step and what limits it are in docs/scale.md.
Not covered: the pod, its failures, and the network between it and the engines.
"""

from __future__ import annotations

from ornith_jax.experiment import EngineSettings, Experiment, LossSettings, MeshSettings, OptimSettings, TrainSettings

SEQ_LEN = 32768


def get_config() -> Experiment:
    """Values that Ornith-1.0 did not publish keep the defaults of `ornith_jax.experiment`, which say so."""
    return Experiment(
        name="ornith-397b-a17b",
        model="qwen3.5-397b-a17b",
        mesh=MeshSettings(expert=32, context=4),
        loss=LossSettings(router="frozen", float32_head=False),
        optim=OptimSettings(learning_rate=1e-6, b1=0.9, b2=0.98, weight_decay=0.1),
        train=TrainSettings(seq_len=SEQ_LEN, rows=32),
        engine=EngineSettings(kind="sglang", max_len=SEQ_LEN, tensor_parallel=8),
    )
