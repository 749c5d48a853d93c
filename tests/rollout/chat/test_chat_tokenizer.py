"""The project's own small tokenizer: deterministic, Qwen3.5's control tokens, loads where the published ones do."""

import hashlib
import subprocess
import sys
import time
from pathlib import Path

import pytest
from transformers import AutoTokenizer

from envs.suites import fledgling
from rollout.chat import qwen3_5, train_tokenizer
from rollout.errors import RolloutError
from tests.rollout.tokenizers import chat, folder


def test_two_processes_train_the_same_file_in_under_ten_seconds(tmp_path: Path):
    started = time.process_time()
    train_tokenizer.save(train_tokenizer.train(), tmp_path / "here")
    assert time.process_time() - started < 10
    code = "from rollout.chat import train_tokenizer as t, qwen3_5; from pathlib import Path; import sys;"
    subprocess.run(
        [sys.executable, "-c", f"{code} t.save(t.train(), Path(sys.argv[1]))", tmp_path / "there"], check=True
    )
    digests = [hashlib.sha256((tmp_path / x / "tokenizer.json").read_bytes()).digest() for x in ("here", "there")]
    assert digests[0] == digests[1]


def test_transformers_loads_it_and_agrees():
    """SGLang loads tokenizers through the same class."""
    hf = AutoTokenizer.from_pretrained(folder("qwen3_5"))
    tokenizer = chat("qwen3_5").tokenizer
    assert (hf.eos_token, hf.pad_token) == ("<|im_end|>", "<|endoftext|>")
    assert tuple(hf.convert_tokens_to_ids(list(qwen3_5.MARKS))) == tuple(tokenizer.mark_ids[m] for m in qwen3_5.MARKS)
    assert set(hf.all_special_tokens) == set(map(str, train_tokenizer.SPECIAL))
    for task in fledgling.generate(77, 10):
        for text in (task.prompt, *(file.data.decode() for file in task.visible.values())):
            assert tuple(hf(text)["input_ids"]) == tokenizer.ids([text])
            assert tokenizer.text(tokenizer.ids([text])) == text


def test_tasks_it_never_saw_are_short_and_nothing_is_unknown():
    tokenizer = chat("qwen3_5").tokenizer
    texts = [file.data.decode() for task in fledgling.generate(78, 40) for file in task.visible.values()]
    characters, tokens = sum(map(len, texts)), sum(len(tokenizer.ids([text])) for text in texts)
    assert characters / tokens > 3  # 3.5 measured
    assert 1500 <= tokenizer.hf.get_vocab_size() <= train_tokenizer.VOCAB_SIZE
    odd = "\x00\x1b\u202eשלום 日本 👩\u200d🔬"
    assert tokenizer.text(tokenizer.ids([odd])) == odd


def test_a_folder_is_never_overwritten(tmp_path: Path):
    with pytest.raises(RolloutError, match="exists"):
        train_tokenizer.save(train_tokenizer.train(tasks=5), tmp_path)
    assert not list(tmp_path.iterdir())
