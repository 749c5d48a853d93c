"""Sequences to train on, in an order that is shuffled anew every epoch, packed, and resumed exactly (grain)."""

from __future__ import annotations

import hashlib
import json
import zipfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from ornith_jax.config import ModelConfig
from ornith_jax.errors import OrnithError
from ornith_jax.experiment import TrainSettings
from ornith_jax.rl.types import Batch

ARRAYS = ("token_ids", "loss_mask", "lengths")


class BatchIterator(Protocol):
    """What the loop draws from: batches of one update each, and where it stands, as JSON values."""

    def __next__(self) -> Batch: ...

    def get_state(self) -> Any:
        """The position after the last batch that was drawn."""

    def set_state(self, state: Any) -> None:
        """Go on from there: the next batch is the one that followed."""


@dataclass(frozen=True, slots=True)
class Sequences:
    """Sequences laid end to end; `self[i]` is {"token_ids": int32 [T], "loss_mask": float32 [T]}.

    Nothing predicts the first token of a sequence, so its mask is 0. `digest` tells one file from another.
    """

    token_ids: np.ndarray  # [total] int32
    loss_mask: np.ndarray  # [total] float32
    starts: np.ndarray  # [N + 1]
    digest: str

    def __len__(self) -> int:
        return len(self.starts) - 1

    def __getitem__(self, index: Any) -> dict[str, np.ndarray]:
        here = slice(self.starts[index], self.starts[index + 1])
        return {"token_ids": self.token_ids[here], "loss_mask": self.loss_mask[here]}


def read_sequences(path: Path, cfg: ModelConfig, seq_len: int) -> Sequences:
    """A .jsonl file with {"token_ids": [...], "loss_mask": [...]} on each line, or an .npz file with flat `token_ids`
    and `loss_mask` [total] and `lengths` [N]. Without `loss_mask` every token trains.

    Raises:
        OrnithError: not readable, an id outside the vocabulary, or a sequence that is empty or longer than `seq_len`;
            it names the file and the sequence. Nothing is cut.
    """
    if path.suffix not in (".jsonl", ".npz"):
        raise OrnithError(f"{path}: neither .jsonl nor .npz; write one of them (see `ornith sft --help`)")
    content = path.read_bytes()
    token_ids, loss_mask, lengths = (_read_jsonl if path.suffix == ".jsonl" else _read_npz)(path)
    if not len(lengths):
        raise OrnithError(f"{path}: holds no sequences")
    for name, value in (("token_ids", token_ids), ("loss_mask", loss_mask)):
        if len(value) != lengths.sum():
            raise OrnithError(f"{path}: {name} has {len(value)} entries, but the lengths sum to {lengths.sum()}")
    wrong = np.flatnonzero((lengths < 1) | (lengths > seq_len))
    if wrong.size:
        raise OrnithError(
            f"{path}: sequence {wrong[0]} has {lengths[wrong[0]]} tokens; 1 to train.seq_len={seq_len} fit in a row"
        )
    starts = np.concatenate([[0], np.cumsum(lengths)])
    wrong = np.flatnonzero((token_ids < 0) | (token_ids >= cfg.vocab_size))
    if wrong.size:
        index = int(np.searchsorted(starts, wrong[0], "right")) - 1
        raise OrnithError(
            f"{path}: sequence {index} has token id {token_ids[wrong[0]]}; the vocabulary is 0..{cfg.vocab_size - 1}"
        )
    mask = (loss_mask != 0).astype(np.float32)
    mask[starts[:-1]] = 0
    if not mask.any():
        raise OrnithError(f"{path}: loss_mask trains no token; the first of a sequence never counts")
    return Sequences(token_ids.astype(np.int32), mask, starts, hashlib.sha256(content).hexdigest())


def packed_batches(source: Any, settings: TrainSettings, seed: int) -> BatchIterator:
    """Endless batches [A, B, T] of a random-access source of sequences, each filled first-fit with what comes next.

    `source[i]` is as of `Sequences`; every epoch has an order of its own, from the seed.

    Every process draws the same batches and puts its own shards on its devices (`step.put_batches`): token ids are
    small, rows need not be divided by processes, and the order does not depend on how many there are.
    """
    import grain

    bins, shape = settings.accumulation * settings.rows, (settings.accumulation, settings.rows, settings.seq_len)
    order = grain.MapDataset.source(source).seed(seed).shuffle().repeat(None)
    packed = grain.experimental.FirstFitPackIterDataset(
        order.to_iter_dataset(grain.ReadOptions(num_threads=2, prefetch_buffer_size=64)),
        length_struct={"token_ids": settings.seq_len, "loss_mask": settings.seq_len},
        num_packing_bins=bins,
        shuffle_bins=False,  # one filling of the bins is one batch
    )
    return iter(packed.batch(bins).map(lambda row: _to_batch(row, shape)))


def _to_batch(rows: dict[str, np.ndarray], shape: tuple[int, ...]) -> Batch:
    zeros = np.zeros(shape, np.float32)
    return Batch(  # type: ignore[call-arg]
        token_ids=rows["token_ids"].reshape(shape),
        segment_ids=rows["token_ids_segment_ids"].astype(np.int32).reshape(shape),
        positions=rows["token_ids_positions"].astype(np.int32).reshape(shape),
        loss_mask=rows["loss_mask"].reshape(shape),
        behavior_logprobs=zeros,
        advantages=zeros,
        token_versions=np.zeros(shape, np.int32),
    )


def _read_jsonl(path: Path) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    ids, masks = [], []
    for number, line in enumerate(path.read_text().splitlines(), 1):
        try:
            record = json.loads(line)
            ids.append(np.asarray(record["token_ids"]))
            masks.append(np.asarray(record.get("loss_mask", np.ones(len(ids[-1])))))
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            raise OrnithError(
                f'{path}, line {number}: not {{"token_ids": [...], "loss_mask": [...]}} ({error!r})'
            ) from None
        if ids[-1].ndim != 1 or ids[-1].dtype.kind != "i" or masks[-1].shape != ids[-1].shape:
            raise OrnithError(f"{path}, line {number}: token_ids must be a list of integers, loss_mask one as long")
    lengths = np.array([len(x) for x in ids], np.int64)
    return np.concatenate(ids or [np.zeros(0, np.int64)]), np.concatenate(masks or [np.zeros(0)]), lengths


def _read_npz(path: Path) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    try:
        with np.load(path, allow_pickle=False) as archive:
            arrays = {name: archive[name] for name in ARRAYS if name in archive.files}
    except (OSError, EOFError, ValueError, zipfile.BadZipFile) as error:
        raise OrnithError(f"{path}: not a readable .npz file ({error}); write it with numpy.savez") from None
    for name in ("token_ids", "lengths"):
        if name not in arrays or arrays[name].ndim != 1 or arrays[name].dtype.kind != "i":
            raise OrnithError(f"{path}: array {name!r} must be there, one-dimensional and of integers")
    return arrays["token_ids"], arrays.get("loss_mask", np.ones(len(arrays["token_ids"]))), arrays["lengths"]
