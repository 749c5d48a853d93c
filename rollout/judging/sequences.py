"""The labelled set as sequences to train on: the tags, and after a suspect line its category, carry the loss."""

from __future__ import annotations

import random
from collections.abc import Iterable, Iterator

import numpy as np
from tokenizers import Tokenizer

from envs.guard.exhibit import PLAN
from rollout.judging.labelled import Case, lines_of, proof_of
from rollout.judging.windows import SUSPECT, Window, control, windows

KEPT = 0.5  # of the clean windows of scaffolds: there are many, and they are much alike


def sequences(rng: random.Random, case: Case, tokenizer: Tokenizer) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """(token_ids [T] int32, loss_mask [T] float32) of the windows up to the proof."""
    lines = lines_of(case)
    proof = proof_of(case, lines)
    for window in windows(lines, tokenizer):
        at = [tag for tag, line in zip(window.tags, window.lines, strict=True) if line.number == proof]
        if at:
            yield _ending(window, at[-1], control(f"<|{case.category}|>"))
            return
        if window.lines[0].section != PLAN or rng.random() < KEPT:
            yield window.token_ids, _mask(window.token_ids, window.tags)


def _ending(window: Window, tag: int, category: int) -> tuple[np.ndarray, np.ndarray]:
    ids = np.concatenate([window.token_ids[:tag], [control(SUSPECT), category]]).astype(np.int32)
    return ids, _mask(ids, [*(t for t in window.tags if t <= tag), tag + 1])


def _mask(ids: np.ndarray, places: Iterable[int]) -> np.ndarray:
    mask = np.zeros(len(ids), np.float32)
    mask[list(places)] = 1.0
    return mask
