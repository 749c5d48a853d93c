"""Ornith-1.0-35B: self-scaffolding RL of the Qwen3.5-35B-A3B shape on TPU v5p, experts spread over all chips.

What it runs: as experiments/ornith_9b.py, with 256 experts of which a token uses 8. The router's
projection is frozen; what Ornith-1.0 did about it is not published. `loss.router=replayed` follows the engine's choices
instead (R3, arXiv 2510.11370), `loss.router=trained` does neither.
On what: learner v5p:2x2x2 (mesh expert 4 x context 2); SGLang servers of two accelerators each.
What was seen: not run, there is no such machine here. Compiled by `ornith plan ornith_35b_a3b --topology v5p:2x2x2`;
bytes, floors of a step and what limits it are in docs/scale.md.
Not covered: whether the base was Qwen3.5 or Qwen3.6 is not published; the shape is the same.
"""

from __future__ import annotations

from ornith_jax.experiment import EngineSettings, Experiment, LossSettings, MeshSettings, OptimSettings, TrainSettings

SEQ_LEN = 32768


def get_config() -> Experiment:
    """Values that Ornith-1.0 did not publish keep the defaults of `ornith_jax.experiment`, which say so."""
    return Experiment(
        name="ornith-35b-a3b",
        model="qwen3.5-35b-a3b",
        mesh=MeshSettings(expert=4, context=2),
        loss=LossSettings(router="frozen", float32_head=False),
        optim=OptimSettings(learning_rate=1e-6, b1=0.9, b2=0.98, weight_decay=0.1),
        train=TrainSettings(seq_len=SEQ_LEN, rows=4),
        engine=EngineSettings(kind="sglang", max_len=SEQ_LEN, tensor_parallel=2),
    )
