"""`train_judge`: a labelled set, a model trained on it, thresholds, and a card of what it was measured to do."""

from __future__ import annotations

import os
import random
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import jax
import numpy as np
from tokenizers import Tokenizer

from ornith_jax.config import ModelConfig
from ornith_jax.convert.save_hf import save_hf
from ornith_jax.experiment import Experiment, MeshSettings, OptimSettings, TrainSettings
from ornith_jax.judge.model import CONFIG, suspicion
from ornith_jax.models import decoder
from ornith_jax.params import Params, init
from ornith_jax.train.loop import train_sft
from rollout.judging.card import FILE, PARTS, Chances, JudgeCard, choose_thresholds, count, read_card, write_card
from rollout.judging.labelled import Case, Sizes, labelled, lines_of
from rollout.judging.sequences import sequences
from rollout.judging.windows import part_of, train_tokenizer, windows


@dataclass(frozen=True, slots=True)
class Recipe:
    """Muon comes in 340 updates to where AdamW is far from it (docs/filter.md)."""

    cfg: ModelConfig = CONFIG
    sizes: Sizes = field(default_factory=Sizes)
    steps: int = 340
    rows: int = 4
    seq_len: int = 512
    learning_rate: float = 5e-3


def recipe_of(updates: int) -> Recipe:
    """The recipe in so many updates, on as many fewer cases. Fewer make a worse judge."""
    sizes = replace(Sizes(), train=round(Sizes().train * updates / Recipe().steps))
    return Recipe(sizes=sizes, steps=updates)


def train_judge(folder: Path, seed: int, recipe: Recipe | None = None) -> JudgeCard:
    """Train and measure a judge, once; `folder/model` serves. A folder that holds one already gives its card.

    A start after an interruption goes on: what was written is used again.

    Raises:
        OrnithError: the folder holds the training of another seed or recipe, or the disk is full.
    """
    model, recipe = folder / "model", recipe or Recipe()
    if (model / FILE).is_file():
        return read_card(model)
    parts = labelled(seed, recipe.sizes)
    tokenizer = train_tokenizer([line for case in parts.train for line in lines_of(case)])
    params = _trained(folder, seed, recipe, tokenizer, parts.train)
    validation, heldout, unseen = (
        chances(params, recipe.cfg, tokenizer, part) for part in (parts.validation, parts.heldout, parts.unseen)
    )
    thresholds = choose_thresholds(parts.validation, validation)
    counts = count(parts.heldout, heldout, thresholds, is_unseen=False)
    counts += count(parts.unseen, unseen, thresholds, is_unseen=True)
    card = JudgeCard(model, thresholds, tuple(counts))
    if not model.exists():
        save_hf(params, recipe.cfg, model, side_files={"tokenizer.json": tokenizer.to_str().encode()})
    write_card(card)
    return card


def chances(params: Params, cfg: ModelConfig, tokenizer: Tokenizer, cases: Sequence[Case]) -> list[Chances]:
    """Of every case and part, that of the worst line; 0 where there is nothing to read."""
    read = [windows(lines_of(case), tokenizer) for case in cases]
    found = iter(suspicion(params, cfg, [window for some in read for window in some]))
    pairs = [[(part_of(window), float(next(found).max())) for window in some] for some in read]
    return [{part: max((c for p, c in some if p == part), default=0.0) for part in PARTS} for some in pairs]


def _trained(folder: Path, seed: int, recipe: Recipe, tokenizer: Tokenizer, cases: Sequence[Case]) -> Params:
    """The weights after supervised training; its run directory is `folder/sft`."""
    start, data = folder / "start", folder / "sequences.npz"
    folder.mkdir(parents=True, exist_ok=True)
    if not start.exists():
        save_hf(init(decoder.table(recipe.cfg), jax.random.key(seed), "float32"), recipe.cfg, start)
    if not data.exists():
        rng = random.Random(seed)
        pairs = [pair for case in cases for pair in sequences(rng, case, tokenizer)]
        _save(data, [ids for ids, _ in pairs], [mask for _, mask in pairs])
    state = train_sft(_experiment(start, seed, recipe), data, folder / "sft")
    return jax.device_get(state.params)


def _experiment(start: Path, seed: int, recipe: Recipe) -> Experiment:
    """On all devices there are, each with the same number of rows; on more than `recipe.rows` batches are larger."""
    devices = jax.device_count()
    return Experiment(
        name="judge",
        model=str(start),
        seed=seed,
        mesh=MeshSettings(data=devices),
        optim=OptimSettings(
            kind="muon",
            learning_rate=recipe.learning_rate,
            warmup_steps=recipe.steps // 10,
            decay_steps=recipe.steps,
        ),
        train=TrainSettings(
            steps=recipe.steps,
            seq_len=recipe.seq_len,
            rows=-(-recipe.rows // devices) * devices,
            remat="none",
            dtype="float32",
            checkpoint_every=recipe.steps,
            keep_checkpoints=1,
        ),
    )


def _save(path: Path, token_ids: Sequence[np.ndarray], masks: Sequence[np.ndarray]) -> None:
    """For `train.data.read_sequences`; whole or not at all."""
    partial = path.with_name(f".{path.name}.{os.getpid()}.partial")
    with partial.open("wb") as file:
        lengths = np.array([len(ids) for ids in token_ids])
        np.savez(file, token_ids=np.concatenate(token_ids), loss_mask=np.concatenate(masks), lengths=lengths)
    os.replace(partial, path)
