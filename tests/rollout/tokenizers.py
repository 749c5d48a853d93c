"""Tokenizers for tests: the project's own, with Qwen3.5's control tokens, and a stand-in for Gemma 4's.

The Gemma stand-in has the parts of the published tokenizer (transformers, `GemmaTokenizer`: spaces as U+2581, byte
fallback, control tokens inside the vocabulary) over a small vocabulary; the published vocabulary is not available here.
"""

import functools
import json
import tempfile
from pathlib import Path

from tokenizers import Tokenizer, decoders, normalizers, pre_tokenizers, trainers
from tokenizers.models import BPE

from rollout.chat import gemma4, train_tokenizer
from rollout.chat.chat import load_chat
from rollout.chat.types import Chat

FAMILIES = ("qwen3_5", "gemma4")


def _gemma_document() -> dict:
    tokenizer = Tokenizer(BPE(unk_token="<unk>", byte_fallback=True, fuse_unk=True))
    tokenizer.normalizer = normalizers.Replace(" ", "▁")
    tokenizer.pre_tokenizer = pre_tokenizers.Split(" ", behavior="merged_with_previous")
    tokenizer.decoder = decoders.Sequence([decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse()])
    special = ["<pad>", *map(str, dict.fromkeys((gemma4.TEXT_END, gemma4.BEGIN, *gemma4.MARKS))), "<unk>"]
    trainer = trainers.BpeTrainer(vocab_size=1000, special_tokens=special, show_progress=False)
    tokenizer.train_from_iterator(train_tokenizer.corpus(50), trainer)
    document = json.loads(tokenizer.to_str())
    vocab = document["model"]["vocab"]
    for byte in range(256):
        vocab[f"<0x{byte:02X}>"] = len(vocab)
    return document


@functools.cache
def folder(family: str) -> Path:
    """A model folder with nothing but its tokenizer."""
    path = Path(tempfile.mkdtemp(prefix="tokenizer_")) / family
    if family == "qwen3_5":
        train_tokenizer.save(train_tokenizer.train(), path)
    else:
        path.mkdir()
        (path / "tokenizer.json").write_text(json.dumps(_gemma_document()))
    return path


@functools.cache
def chat(family: str) -> Chat:
    return load_chat(folder(family), family)
