"""A judge that is trained in a moment: it knows nothing, but everything about it is real."""

from __future__ import annotations

from dataclasses import replace

from ornith_jax.judge.model import CONFIG
from ornith_jax.judge.train import Recipe
from rollout.judging.labelled import Sizes

SMALL = Recipe(
    cfg=replace(CONFIG, embed_dim=32, ffw_dim=48, num_layers=2, period=CONFIG.period[2:]),
    sizes=Sizes(train=60, validation=10, heldout=10, unseen=6),
    steps=2,
    rows=8,
    seq_len=256,
)
