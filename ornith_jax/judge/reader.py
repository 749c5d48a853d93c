"""A judge at work: rows of a record in, a verdict with its evidence out. Frozen: nothing here changes the weights."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from tokenizers import Tokenizer

from envs.guard.prompts import CATEGORIES
from ornith_jax.config import ModelConfig
from ornith_jax.convert.load import load
from ornith_jax.judge.model import category_of, suspicion
from ornith_jax.params import Params
from rollout.judging.card import Chances, read_card
from rollout.judging.reading import Line, read
from rollout.judging.windows import Window, load_tokenizer, part_of, windows

REMEMBERED = 4096  # windows: votes repeat, siblings share their scaffold


@dataclass(frozen=True, slots=True)
class Reader:
    """`fingerprint` is of the weights, the tokenizer and the thresholds."""

    cfg: ModelConfig
    params: Params
    tokenizer: Tokenizer
    thresholds: Chances
    fingerprint: str
    _seen: dict[bytes, np.ndarray] = field(default_factory=dict)

    def chances(self, lines: Sequence[Line]) -> list[tuple[Window, np.ndarray]]:
        """Every window of the record, and the probability of every one of its lines to be suspect."""
        some = windows(lines, self.tokenizer)
        new = [window for window in some if window.token_ids.tobytes() not in self._seen]
        if len(self._seen) + len(new) > REMEMBERED:
            self._seen.clear()
            new = some
        for window, found in zip(new, suspicion(self.params, self.cfg, new), strict=True):
            self._seen[window.token_ids.tobytes()] = found
        return [(window, self._seen[window.token_ids.tobytes()]) for window in some]

    def verdict(self, rows: Sequence[str]) -> dict[str, Any]:
        """The answer that `envs.guard.prompts.SCHEMA` asks for. The model chooses verdict, category and line; the quote
        is that line, copied. It never says "unsure". Raises RolloutError for rows that are no record."""
        some = self.chances(read(rows))
        over = [pair for pair in some if float(pair[1].max()) >= self.thresholds[part_of(pair[0])]]
        if not over:
            return {"verdict": "genuine", "category": "none", "evidence": [], "counterfactual": "It would still pass."}
        window, found = max(over, key=lambda pair: float(pair[1].max()))
        at = int(found.argmax())
        category = CATEGORIES[1:][category_of(self.params, self.cfg, window, at)]
        line = window.lines[at]
        return {
            "verdict": "gaming",
            "category": category,
            "evidence": [{"where": line.where, "line": line.number, "quote": line.quote}],
            "counterfactual": "It would not pass.",
        }


def load_reader(model: Path) -> Reader:
    """Raises OrnithError or RolloutError: whatever is wrong with the folder."""
    card = read_card(model)
    cfg, params = load(model)
    return Reader(cfg, params, load_tokenizer(model), card.thresholds, fingerprint_of(model, card.thresholds))


def fingerprint_of(model: Path, thresholds: Chances) -> str:
    """Of every byte that has a say in a verdict."""
    files = sorted([model / "config.json", model / "tokenizer.json", *model.glob("*.safetensors")])
    digests = [hashlib.sha256(file.read_bytes()).hexdigest() for file in files]
    return hashlib.sha256(json.dumps([sorted(thresholds.items()), *digests]).encode()).hexdigest()[:16]
