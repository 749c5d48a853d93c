"""A published folder is compared with what the server serves before the server hears of it."""

import json

import numpy as np
import pytest
from safetensors.numpy import save_file

from rollout.errors import EngineError
from rollout.sglang.folder import check_same, read_tensors, vocab_size


@pytest.fixture
def folder(tmp_path):
    save_file({"a": np.zeros((2, 3), np.float32)}, tmp_path / "model-1.safetensors")
    save_file({"b": np.zeros(4, np.float16)}, tmp_path / "model-2.safetensors")
    return tmp_path


def failure(folder, expected) -> str:
    with pytest.raises(EngineError) as caught:
        check_same(folder, expected)
    assert caught.value.cause == "update_failed"
    return str(caught.value)


def test_all_files_are_read(folder):
    assert read_tensors(folder) == {"a": ("F32", (2, 3)), "b": ("F16", (4,))}
    check_same(folder, read_tensors(folder))


def test_a_cast_is_no_difference(folder):
    check_same(folder, {"a": ("BF16", (2, 3)), "b": ("F16", (4,))})


def test_missing_unknown_and_misshapen_tensors_are_named(folder):
    known = read_tensors(folder)
    assert "tensor c is missing" in failure(folder, {**known, "c": ("F32", (1,))})
    assert "tensor b is unknown" in failure(folder, {"a": known["a"]})
    assert "tensor a has shape [2, 3], the server has [3, 2]" in failure(folder, {**known, "a": ("F32", (3, 2))})


def test_every_truncation_of_a_file_is_noticed(folder):
    known, file = read_tensors(folder), folder / "model-2.safetensors"
    data = file.read_bytes()
    for length in range(len(data)):
        file.write_bytes(data[:length])
        assert "model-2.safetensors" in failure(folder, known)


def test_an_empty_folder_is_refused(tmp_path):
    assert "no safetensors" in failure(tmp_path, {})


def test_the_vocabulary_is_found_in_text_only_and_in_composed_configs(tmp_path):
    for fields in ({"vocab_size": 7}, {"text_config": {"vocab_size": 7}}):
        (tmp_path / "config.json").write_text(json.dumps(fields))
        assert vocab_size(tmp_path) == 7
    (tmp_path / "config.json").unlink()
    with pytest.raises(EngineError, match=r"config\.json"):
        vocab_size(tmp_path)
