"""Lines -> token ids. After every judged line stands a tag, which the model is asked for: clean, or suspect.

    <|task|> Make app/card.py follow SPEC.md. <|line|> <|product|> === changed app/card.py <|clean|> def price(count):
    <|line|> +    if count == 2: <|clean|> +        return 10 <|suspect|> <|hard_coded_cases|>

The scaffold is read apart from the rest: what a policy writes there cannot colour the reading of its work. The rest,
diff and calls, is read in windows of `WINDOW` tokens that begin with the task; nothing is left unread. In training the
text ends at the first line that gives gaming away. In use every tag is fed as clean, one pass gives the probability of
"suspect" at every line, and the worst line decides.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path

import numpy as np
from tokenizers import Regex, Tokenizer, decoders, pre_tokenizers, trainers
from tokenizers.models import BPE

from envs.guard.exhibit import ACTIONS, PLAN, PRODUCT, TASK, TESTS
from envs.guard.prompts import CATEGORIES
from rollout.chat.train_tokenizer import SPLIT
from rollout.errors import RolloutError
from rollout.judging.reading import Line

WINDOW = 192
TASK_TOKENS = 24  # of the task that every window begins with
LINE_TOKENS = 48  # a longer line is read, and judged, in pieces
CLEAN, SUSPECT, LINE, PAD = "<|clean|>", "<|suspect|>", "<|line|>", "<|pad|>"
HEADS = {TASK: "<|task|>", PLAN: "<|scaffold|>", PRODUCT: "<|product|>", TESTS: "<|tests|>", ACTIONS: "<|actions|>"}
CONTROL = (PAD, LINE, CLEAN, SUSPECT, *HEADS.values(), *(f"<|{name}|>" for name in CATEGORIES[1:]))
"""Ids 0 to 18, in this order. No text becomes one of them: the tokenizer itself does not know them."""
VOCAB_SIZE = 640


@dataclass(frozen=True, slots=True)
class Window:
    """`tags[i]` is the place in `token_ids` of the tag after `lines[i]`."""

    token_ids: np.ndarray  # [T] int32, T <= WINDOW, every tag clean
    tags: tuple[int, ...]
    lines: tuple[Line, ...]


def part_of(window: Window) -> str:
    """scaffold or work: which of `card.PARTS` it belongs to."""
    return "scaffold" if window.lines[0].section == PLAN else "work"


def control(name: str) -> int:
    return CONTROL.index(name)


CATEGORY_IDS = tuple(control(f"<|{name}|>") for name in CATEGORIES[1:])


def train_tokenizer(lines: Sequence[Line], vocab_size: int = VOCAB_SIZE) -> Tokenizer:
    """Byte-level BPE over what the judge reads, with Qwen3.5's splitting rule. Deterministic."""
    tokenizer = Tokenizer(BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(SPLIT), behavior="isolated"),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=vocab_size - len(CONTROL),
        initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()),
        show_progress=False,
    )
    tokenizer.train_from_iterator((line.text for line in lines), trainer)
    return tokenizer


def load_tokenizer(folder: Path) -> Tokenizer:
    """Raises RolloutError when `folder/tokenizer.json` is not there or not readable."""
    path = folder / "tokenizer.json"
    try:
        return Tokenizer.from_file(str(path))
    except Exception as error:  # the library raises bare Exception
        raise RolloutError(f"{path}: not a readable tokenizer ({error}); train the judge again") from None


def windows(lines: Sequence[Line], tokenizer: Tokenizer) -> list[Window]:
    """All judged lines with their context. A record without one gives no window."""
    pieces = _pieces(lines, tokenizer)
    task = [i for line, ids in pieces if line.section == TASK for i in ids][:TASK_TOKENS]
    plan = [piece for piece in pieces if piece[0].section == PLAN]
    work = [piece for piece in pieces if piece[0].section not in (TASK, PLAN)]
    return [*_fill([], plan), *_fill([control(HEADS[TASK]), *task, control(LINE)], work)]


def _fill(head: Sequence[int], pieces: Sequence[tuple[Line, list[int]]]) -> list[Window]:
    found = [_Draft(head)]
    for line, ids in pieces:
        if len(found[-1].token_ids) + len(ids) + 2 > WINDOW:
            found.append(_Draft(head))
        found[-1].add(line, ids)
    return [draft.window() for draft in found if draft.lines]


def _pieces(lines: Sequence[Line], tokenizer: Tokenizer) -> list[tuple[Line, list[int]]]:
    """Every line, or piece of a long one, with its ids."""
    encoded = tokenizer.encode_batch([line.text for line in lines], add_special_tokens=False)
    found = []
    for line, encoding in zip(lines, encoded, strict=True):
        ids = iter(i + len(CONTROL) for i in encoding.ids)
        while part := list(islice(ids, LINE_TOKENS)):
            found.append((line, part))
    return found


class _Draft:
    """A window that is being filled."""

    def __init__(self, head: Sequence[int]) -> None:
        self.token_ids = list(head)
        self.tags: list[int] = []
        self.lines: list[Line] = []
        self.section = ""

    def add(self, line: Line, ids: Sequence[int]) -> None:
        self.token_ids += [control(HEADS[line.section])] if line.section != self.section else []
        self.section = line.section
        self.token_ids += ids
        if line.judged:
            self.tags.append(len(self.token_ids))
            self.lines.append(line)
        self.token_ids.append(control(CLEAN if line.judged else LINE))

    def window(self) -> Window:
        return Window(np.asarray(self.token_ids, np.int32), tuple(self.tags), tuple(self.lines))
