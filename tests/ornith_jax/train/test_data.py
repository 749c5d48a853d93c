"""The order of the data: every sequence once an epoch, packed whole, and the same after a restart."""

import json
from pathlib import Path

import jax
import numpy as np
import pytest

from ornith_jax.errors import OrnithError
from ornith_jax.experiment import TrainSettings
from ornith_jax.models.named import TINY_QWEN
from ornith_jax.train.data import packed_batches, read_sequences

SETTINGS = TrainSettings(rows=3, accumulation=2, seq_len=24)


def write_jsonl(path: Path, number: int = 40) -> list[list[int]]:
    """Sequences of 2 to 20 ids; the first id is the number of the sequence, so that each is known again."""
    rng = np.random.default_rng(0)
    found = [[i, *rng.integers(100, 256, int(rng.integers(1, 20))).tolist()] for i in range(number)]
    masks = [[int(x) for x in rng.random(len(ids)) < 0.5] for ids in found]
    masks[0] = [1] * len(found[0])
    lines = [json.dumps({"token_ids": ids, "loss_mask": mask}) for ids, mask in zip(found, masks, strict=True)]
    path.write_text("\n".join(lines) + "\n")
    return found


def unpack(batch) -> list[tuple[list[int], list[float]]]:
    """(ids, mask) of every segment; checks the layout on the way."""
    found = []
    assert batch.token_ids.shape == (2, 3, 24)
    for ids, segments, positions, mask in zip(
        *(getattr(batch, n).reshape(6, 24) for n in ("token_ids", "segment_ids", "positions", "loss_mask")), strict=True
    ):
        assert not mask[segments == 0].any()
        for segment in range(1, segments.max() + 1):
            (here,) = np.nonzero(segments == segment)
            assert np.array_equal(here, np.arange(here[0], here[-1] + 1))
            assert np.array_equal(positions[here], np.arange(len(here)))
            found.append((ids[here].tolist(), mask[here].tolist()))
    return found


def test_every_epoch_holds_every_sequence_once_whole_and_in_another_order(tmp_path):
    wanted = write_jsonl(tmp_path / "a.jsonl")
    source = read_sequences(tmp_path / "a.jsonl", TINY_QWEN, 24)
    batches = packed_batches(source, SETTINGS, seed=1)
    seen, consumed = [], []
    while len(consumed) < 160:
        segments = unpack(next(batches))
        # Within a batch first-fit changes the order; between batches the order of the source stands.
        consumed += sorted(ids[0] for ids, _ in segments)
        seen += segments
    for ids, mask in seen:
        assert ids == wanted[ids[0]]
        assert mask[0] == 0
    counts = np.bincount(consumed, minlength=40)
    assert counts.max() - counts.min() <= 1
    fill = np.mean([(next(batches).segment_ids > 0).mean() for _ in range(20)])
    assert fill > 0.8


def test_the_order_is_of_the_seed(tmp_path):
    write_jsonl(tmp_path / "a.jsonl")
    source = read_sequences(tmp_path / "a.jsonl", TINY_QWEN, 24)
    first = [next(packed_batches(source, SETTINGS, seed)).token_ids for seed in (1, 1, 2)]
    assert np.array_equal(first[0], first[1])
    assert not np.array_equal(first[0], first[2])


def test_a_saved_position_goes_on_with_the_very_next_batch(tmp_path):
    write_jsonl(tmp_path / "a.jsonl")
    source = read_sequences(tmp_path / "a.jsonl", TINY_QWEN, 24)
    batches, positions, drawn = packed_batches(source, SETTINGS, 5), [], []
    for _ in range(14):  # more than an epoch
        positions.append(json.dumps(batches.get_state()))
        drawn.append(next(batches))
    for start in (0, 1, 6, 13):
        again = packed_batches(source, SETTINGS, 5)
        again.set_state(json.loads(positions[start]))
        for expected in drawn[start:]:
            for a, b in zip(jax.tree.leaves(next(again)), jax.tree.leaves(expected), strict=True):
                np.testing.assert_array_equal(a, b)


def test_both_formats_say_the_same_and_differ_by_digest(tmp_path):
    wanted = write_jsonl(tmp_path / "a.jsonl")
    lines = [json.loads(line) for line in (tmp_path / "a.jsonl").read_text().splitlines()]
    np.savez(
        tmp_path / "a.npz",
        token_ids=np.concatenate(wanted),
        loss_mask=np.concatenate([line["loss_mask"] for line in lines]),
        lengths=[len(ids) for ids in wanted],
    )
    a, b = (read_sequences(tmp_path / name, TINY_QWEN, 24) for name in ("a.jsonl", "a.npz"))
    assert len(a) == len(b) == 40
    for i in range(40):
        np.testing.assert_array_equal(a[i]["token_ids"], b[i]["token_ids"])
        np.testing.assert_array_equal(a[i]["loss_mask"], b[i]["loss_mask"])
    assert a.digest != b.digest


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "holds no sequences"),
        ('{"token_ids": [1, 2]}\nnot json', r"a\.jsonl, line 2: not"),
        ('{"ids": [1, 2]}', "line 1: not"),
        ('{"token_ids": [1.5, 2]}', "line 1: token_ids must be a list of integers"),
        ('{"token_ids": [1, 2], "loss_mask": [1]}', "line 1: token_ids must be"),
        ('{"token_ids": [1, 2]}\n{"token_ids": [3, 256]}', r"sequence 1 has token id 256; the vocabulary is 0\.\.255"),
        ('{"token_ids": [1, 2]}\n{"token_ids": []}', "sequence 1 has 0 tokens|line 2: token_ids must be"),
        ('{"token_ids": [1, 2, 3, 4, 5]}', "sequence 0 has 5 tokens; 1 to train.seq_len=4 fit"),
        ('{"token_ids": [1, 2], "loss_mask": [1, 0]}', "loss_mask trains no token"),
    ],
)
def test_bad_sequences_are_refused_by_place(tmp_path, text, message):
    (tmp_path / "a.jsonl").write_text(text)
    with pytest.raises(OrnithError, match=message):
        read_sequences(tmp_path / "a.jsonl", TINY_QWEN, 4)


def test_bad_archives_are_refused_by_array(tmp_path):
    path = tmp_path / "a.npz"
    path.write_bytes(b"nothing")
    with pytest.raises(OrnithError, match=r"not a readable \.npz"):
        read_sequences(path, TINY_QWEN, 24)
    np.savez(path, token_ids=np.arange(6))
    with pytest.raises(OrnithError, match="array 'lengths' must be there"):
        read_sequences(path, TINY_QWEN, 24)
    np.savez(path, token_ids=np.arange(6), lengths=[2, 2])
    with pytest.raises(OrnithError, match="token_ids has 6 entries, but the lengths sum to 4"):
        read_sequences(path, TINY_QWEN, 24)
    with pytest.raises(OrnithError, match=r"neither \.jsonl nor \.npz"):
        read_sequences(tmp_path / "a.txt", TINY_QWEN, 24)
