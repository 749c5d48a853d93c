"""A small tokenizer for small models: byte-level BPE over what the policy reads and writes on the procedural suite.

It has Qwen3.5's splitting rule, normaliser and text control tokens with their roles, so `load_chat(folder, "qwen3_5")`
takes it. Deterministic: the same arguments give the same file.
"""

from __future__ import annotations

import json
import os
import shutil
import tempfile
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

from tokenizers import AddedToken, Regex, Tokenizer, decoders, normalizers, pre_tokenizers, trainers
from tokenizers.models import BPE

from envs.suites import fledgling
from envs.tools import schemas
from rollout.chat import qwen3_5
from rollout.chat.types import Reply
from rollout.errors import RolloutError
from rollout.scaffold.defaults import default_scaffold
from rollout.scaffold.document import bounds_of, canonical
from rollout.scaffold.prompt import proposal_prompt
from rollout.settings import RolloutSettings

VOCAB_SIZE = 2048  # at most: a little less when every word of the corpus is one token before that
TASKS = 300
# The splitting rule of Qwen3.5 (transformers, models/qwen3_5/tokenization_qwen3_5.py): contractions, words with their
# marks, single digits, punctuation, line ends, spaces.
SPLIT = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?[\p{L}\p{M}]+|\p{N}"
    r"| ?[^\s\p{L}\p{M}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)
PLAIN_SPLIT = r"\p{L}+|\p{N}+|[^\s\p{L}\p{N}]+|\s+"
"""For small models: a word or a number is the same token wherever it stands: copying needs no second spelling."""
PYTEST = """
=================================== FAILURES ===================================
________________________________ test_add_count ________________________________
tests/test_shop.py:7: in test_add_count
    assert add_count([1, 2, 3]) == 6
E   AssertionError: assert 5 == 6
E    +  where 5 = add_count([1, 2, 3])
shop/items.py:12: IndexError: list index out of range
=========================== short test summary info ============================
FAILED tests/test_shop.py::test_add_count - assert 5 == 6
1 failed, 3 passed in 0.02s
[exit 1]
Traceback (most recent call last):
  File "/workspace/run.py", line 3, in <module>
    raise ValueError("unknown card")
TypeError: unsupported operand type(s) for +: 'int' and 'str'
ModuleNotFoundError: No module named 'cards'
"""
SPECIAL = {qwen3_5.START, qwen3_5.END, qwen3_5.TEXT_END}  # the other marks are ordinary added tokens, as in Qwen3.5


def corpus(tasks: int = TASKS) -> Iterator[str]:
    """What the policy reads and writes: prompts of both stages, files, the scripted expert's calls, scaffolds."""
    for task in fledgling.generate(0, tasks):
        bounds = bounds_of(task, RolloutSettings())
        solve = qwen3_5.opening("", task.prompt, schemas(task), thinking=True)
        solve += qwen3_5.completion(Reply("", "", fledgling.expert(task), ""), [qwen3_5.THINK])
        propose = qwen3_5.opening(*proposal_prompt(task, bounds, None), (), thinking=True)
        scaffold = canonical(default_scaffold(bounds))
        for pieces in (solve, propose, [scaffold]):
            yield "".join(piece for piece in pieces if piece not in qwen3_5.MARKS)
        for path, file in task.visible.items():
            yield f"{path}\n{file.data.decode(errors='replace')}"
    yield PYTEST


def fixed_lines(texts: Sequence[Iterable[str]], *, at_least: int = 12) -> list[str]:
    """Lines, with their ends, of at least so many characters that stand in a tenth of the texts or more.

    A text is what a chat format makes of it: pieces, with control tokens between them.
    """
    counts: Counter[str] = Counter()
    for pieces in texts:
        plain = [piece for piece in pieces if piece not in qwen3_5.MARKS]
        counts.update({line for piece in plain for line in piece.splitlines(keepends=True)})
    needed = max(2, len(texts) // 10)
    return sorted(line for line, count in counts.items() if count >= needed and len(line) >= at_least)


def train(
    vocab_size: int = VOCAB_SIZE, tasks: int = TASKS, *, split: str = SPLIT, phrases: Sequence[str] = ()
) -> Tokenizer:
    """The tokenizer; ids of control tokens come last, in the order of the published ones.

    `phrases` become one token each, wherever they stand: the fixed text of prompts, which a small model then reads in
    tens of tokens and not in a thousand. The text that any ids stand for stays the same.
    """
    tokenizer = Tokenizer(BPE())
    tokenizer.normalizer = normalizers.NFC()
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(split), behavior="isolated"),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=vocab_size - len(qwen3_5.MARKS),
        initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()),
        show_progress=False,
    )
    tokenizer.train_from_iterator(corpus(tasks), trainer)
    tokenizer.add_tokens([AddedToken(phrase, special=False, normalized=False) for phrase in phrases])
    order = [qwen3_5.TEXT_END, *(mark for mark in qwen3_5.MARKS if mark != qwen3_5.TEXT_END)]
    for mark in order:
        tokenizer.add_tokens([AddedToken(str(mark), special=mark in SPECIAL, normalized=False)])
    return tokenizer


def save(tokenizer: Tokenizer, folder: Path) -> None:
    """Writes `tokenizer.json` and `tokenizer_config.json` into a new folder, whole or not at all."""
    if folder.exists():
        raise RolloutError(f"{folder} exists; remove it or name a new folder")
    folder.parent.mkdir(parents=True, exist_ok=True)
    part = Path(tempfile.mkdtemp(prefix=f".{folder.name}.", dir=folder.parent))
    try:
        tokenizer.save(str(part / "tokenizer.json"))
        config = {
            "tokenizer_class": "PreTrainedTokenizerFast",
            "eos_token": str(qwen3_5.END),
            "pad_token": str(qwen3_5.TEXT_END),
            "additional_special_tokens": [str(qwen3_5.START)],
            "clean_up_tokenization_spaces": False,
            "model_max_length": 262144,
        }
        (part / "tokenizer_config.json").write_text(json.dumps(config, indent=2) + "\n")
        part.chmod(0o755)
        os.rename(part, folder)
    except BaseException:
        shutil.rmtree(part, ignore_errors=True)
        raise
