"""Samples -> packed rows of a fixed length. Nothing is cut or lost, and the same samples give the same rows."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from ornith_jax.errors import OrnithError
from ornith_jax.rl.types import Batch, Sample


@dataclass(frozen=True, slots=True)
class Packed:
    """Micro-batches of one update: every array of `batch` is numpy, [A, B, T] (A micro-batches)."""

    batch: Batch
    trained_tokens: int  # where loss_mask is 1, over all micro-batches: the denominator of the loss
    fill: float  # tokens that are no padding, as a fraction of A x B x T


def pack(samples: Sequence[Sample], *, rows: int, seq_len: int, accumulation: int = 1) -> Packed:
    """Lay samples into micro-batches of `rows` rows of `seq_len` tokens.

    The number of micro-batches is the smallest of `accumulation` x 1, 2, ..., 8, 10, 12, 14, 16, 20, ... that holds
    them all, so that few shapes ever compile. Best fit, longest first; rows are dealt to the micro-batches in turn.

    Raises:
        OrnithError: no samples, or one that is longer than a row or trains its first token, which nothing predicts.
    """
    if not samples:
        raise OrnithError("no samples to pack; every group was dropped (see the counts of make_samples)")
    for index, sample in enumerate(samples):
        _check_sample(index, sample, seq_len)
    filled = _best_fit([len(sample.token_ids) for sample in samples], seq_len)
    step = rows * accumulation
    micro_batches = _round_up(-(-len(filled) // step)) * accumulation
    arrays = _empty(samples, (micro_batches, rows, seq_len))
    for number, members in enumerate(filled):
        row, micro_batch = divmod(number, micro_batches)
        _write_row({name: array[micro_batch, row] for name, array in arrays.items()}, [samples[i] for i in members])
    trained = int(arrays["loss_mask"].sum(dtype=np.float64))
    return Packed(Batch(**arrays), trained, float((arrays["segment_ids"] > 0).mean()))


def _round_up(count: int) -> int:
    """The next of 1, 2, ..., 8, 10, 12, 14, 16, 20, ...: four steps to every doubling."""
    step = 1 << max((count - 1).bit_length() - 3, 0)
    return -(-count // step) * step


def _check_sample(index: int, sample: Sample, seq_len: int) -> None:
    length = len(sample.token_ids)
    if not 0 < length <= seq_len:
        raise OrnithError(f"sample {index} has {length} tokens, a row holds 1 to {seq_len}; raise train.seq_len")
    if sample.loss_mask[0]:
        raise OrnithError(f"sample {index}: loss_mask is set on its first token, which no token before it predicts")


def _best_fit(lengths: Sequence[int], seq_len: int) -> list[list[int]]:
    """Indices of the samples of each row: longest first, each into the fullest row that still has room for it."""
    filled: list[list[int]] = []
    room = np.zeros(len(lengths), np.int64)
    for index in sorted(range(len(lengths)), key=lambda i: (-lengths[i], i)):
        left = np.where(room[: len(filled)] >= lengths[index], room[: len(filled)], seq_len + 1)
        row = int(left.argmin()) if len(left) and left.min() <= seq_len else len(filled)
        if row == len(filled):
            filled.append([])
            room[row] = seq_len
        filled[row].append(index)
        room[row] -= lengths[index]
    return filled


def _empty(samples: Sequence[Sample], shape: tuple[int, ...]) -> dict[str, np.ndarray]:
    """All padding: zeros, and -1 for experts that nobody recorded."""
    integers = ("token_ids", "segment_ids", "positions", "token_versions")
    floats = ("loss_mask", "behavior_logprobs", "advantages")
    arrays = {name: np.zeros(shape, np.int32) for name in integers}
    arrays |= {name: np.zeros(shape, np.float32) for name in floats}
    tails = {sample.routed_experts.shape[1:] for sample in samples if sample.routed_experts is not None}
    if len(tails) > 1:
        raise OrnithError(f"samples disagree on the shape of routed_experts: {sorted(tails)}; are they of one model?")
    if tails:
        arrays["routed_experts"] = np.full((*shape, *tails.pop()), -1, np.int32)
    return arrays


def _write_row(row: dict[str, np.ndarray], samples: Sequence[Sample]) -> None:
    start = 0
    for segment, sample in enumerate(samples, 1):
        here = slice(start, start + len(sample.token_ids))
        row["token_ids"][here] = sample.token_ids
        row["segment_ids"][here] = segment
        row["positions"][here] = np.arange(len(sample.token_ids))
        row["loss_mask"][here] = sample.loss_mask
        row["behavior_logprobs"][here] = np.where(sample.loss_mask, sample.behavior_logprobs, 0)
        row["advantages"][here] = sample.advantage
        row["token_versions"][here] = np.where(sample.loss_mask, sample.token_versions, 0)
        if sample.routed_experts is not None:
            row["routed_experts"][here] = sample.routed_experts
        start = here.stop
