"""A published version is whole, or it is refused and the file is named."""

import json
from pathlib import Path

import pytest

from rollout.errors import RolloutError
from rollout.published import READY, newest, seal, verify, version_folder


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    folder = version_folder(tmp_path, 12)
    (folder / "more").mkdir(parents=True)
    (folder / "model.safetensors").write_bytes(bytes(1000))
    (folder / "more" / "tokenizer.json").write_text("{}")
    seal(folder, 12)
    return folder


def test_a_sealed_folder_is_accepted(folder: Path):
    assert folder.name == "v0000012"
    verify(folder, 12)
    assert json.loads((folder / READY).read_text())["files"]["more/tokenizer.json"]["bytes"] == 2


def test_every_harm_is_named(folder: Path):
    weights = folder / "model.safetensors"
    for harm in (bytes(999), bytes(1001), bytes(999) + b"\1"):
        weights.write_bytes(harm)
        with pytest.raises(RolloutError, match=r"model\.safetensors: differs"):
            verify(folder, 12)
    weights.unlink()
    with pytest.raises(RolloutError, match=r"model\.safetensors: missing"):
        verify(folder, 12)


def test_the_version_must_be_the_one_asked_for(folder: Path):
    with pytest.raises(RolloutError, match="holds version 12, not 13"):
        verify(folder, 13)


@pytest.mark.parametrize("text", ["", "{", "[]", '{"policy_version": 12}', '{"policy_version": 12, "files": 3}'])
def test_a_damaged_marker_is_refused(folder: Path, text: str):
    (folder / READY).write_text(text)
    with pytest.raises(RolloutError, match="READY: damaged"):
        verify(folder, 12)


def test_the_newest_is_the_highest_that_is_ready(folder: Path):
    root = folder.parent
    for version in (3, 13):
        version_folder(root, version).mkdir()
    seal(version_folder(root, 3), 3)
    (root / ".v0000014.staging").mkdir()
    seal(root / ".v0000014.staging", 14)  # killed before it got its name
    assert newest(root) == (12, folder)
    assert newest(root / "nowhere") is None
