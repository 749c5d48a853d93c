"""The rows of the cache and the programs over them, with every size rounded up to one that is compiled once.

The only file of the engine that both knows requests and touches the device.
"""

from __future__ import annotations

import time
from collections.abc import Sequence

import jax
import jax.numpy as jnp
import numpy as np

from ornith_jax.config import ModelConfig
from ornith_jax.params import Params
from ornith_jax.serve.programs import MAX_STEPS, MAX_STOPS, Rows, decode, fill, new_cache, put_row, take_row
from ornith_jax.serve.request import Request
from ornith_jax.serve.sampler import Knobs

PIECES = (8, 32, 128, 512)  # tokens of a prompt that are filled in at once
DISPATCH_S = 0.03  # how long one call of `decode` should take: it is what an update or a new request waits for


def piece_of(num_tokens: int) -> int:
    """The size of the next piece of a prompt: as large as can be without being more than half padding.

    Example: 100 tokens are one piece of 128; 33 are one of 32 and one of 8.
    """
    fits = next((size for size in PIECES if size >= num_tokens), PIECES[-1])
    smaller = [size for size in PIECES if size <= num_tokens]
    return fits if 2 * num_tokens > fits or not smaller else smaller[-1]


def length_of(num_tokens: int, max_len: int) -> int:
    """Positions of a box for this many tokens: 256, 1024, 4096, then doubling, at most `max_len`."""
    length = 256
    while length < num_tokens:
        length *= 4 if length < 4096 else 2
    return min(length, max_len)


def rows_of(num_rows: int, slots: int) -> int:
    """Rows of a box: 1, 4, 16, ..., at most `slots`."""
    rows = 1
    while rows < num_rows:
        rows *= 4
    return min(rows, slots)


class Slots:
    """The device's side of the engine: `slots` rows for sequences of up to `max_len` tokens."""

    def __init__(self, cfg: ModelConfig, slots: int, max_len: int, dtype: str) -> None:
        self.cfg, self.slots, self.max_len, self.dtype = cfg, slots, max_len, jnp.dtype(dtype)
        self._cache = new_cache(cfg, slots, max_len, self.dtype)
        self._empty = new_cache(cfg, 1, 1, self.dtype)
        self._step_s: dict[tuple[int, int], float] = {}  # seconds of one step, by size of box; absent: not compiled

    def put(self, row: int, snapshot: Params | None) -> None:
        """Make a row what the snapshot was, or empty."""
        self._cache = put_row(self._cache, self.cfg, np.int32(row), self._empty if snapshot is None else snapshot)

    def take(self, row: int, num_tokens: int) -> Params:
        """A copy of a row that holds `num_tokens` tokens."""
        return take_row(self._cache, self.cfg, np.int32(row), length=length_of(num_tokens, self.max_len))

    def fill(self, params: Params, request: Request, end: int) -> int:
        """Read the next piece of the prompt, up to its token `end`; returns the tokens computed, padding included."""
        piece = request.prompt_ids[request.filled : end]
        size = piece_of(len(piece))
        piece = piece[:size]
        token_ids = np.zeros(size, np.int32)
        token_ids[: len(piece)] = piece
        self._cache = fill(
            params,
            self._cache,
            np.int32(request.row),
            token_ids,
            np.int32(len(piece)),
            cfg=self.cfg,
            length=length_of(request.filled + len(piece), self.max_len),
            dtype=self.dtype,
        )
        request.filled += len(piece)
        return size

    def decode(self, params: Params, requests: Sequence[Request], policy_version: int) -> None:
        """Let every request write as many tokens as fit into one dispatch."""
        longest = max(request.length for request in requests)
        rows = rows_of(max(request.row for request in requests) + 1, self.slots)
        room = max(request.budget - len(request.token_ids) for request in requests)
        guess = self._step_s.get((rows, length_of(longest, self.max_len)), 0.0)
        steps = max(1, min(MAX_STEPS, room, int(DISPATCH_S / guess) if guess else 1))
        length = length_of(longest + steps, self.max_len)
        start = time.perf_counter()
        self._cache, tokens, logprobs = decode(
            params,
            self._cache,
            _rows(requests, rows),
            np.int32(steps),
            cfg=self.cfg,
            length=length,
            dtype=self.dtype,
        )
        tokens_NB, logprobs_NB = jax.device_get((tokens, logprobs))
        counts_B = (tokens_NB >= 0).sum(axis=0)
        self._learn(rows, length, (time.perf_counter() - start) / counts_B.max())
        for request in requests:
            count = counts_B[request.row]
            written = tokens_NB[:count, request.row].tolist(), logprobs_NB[:count, request.row].tolist()
            request.append(*written, policy_version)

    def _learn(self, rows: int, length: int, step_s: float) -> None:
        """The first call of a size compiles: it says nothing but that the next will not."""
        key = rows, length
        old = self._step_s.get(key)
        self._step_s[key] = DISPATCH_S if old is None else min(step_s, 0.5 * (old + step_s))


def _rows(requests: Sequence[Request], rows: int) -> Rows:
    """What `decode` must know, as arrays; rows without a request have no budget."""
    token, budget, top_k = (np.zeros(rows, np.int32) for _ in range(3))
    temperature, top_p, min_p = (np.zeros(rows, np.float32) for _ in range(3))
    stops, seed = np.full((rows, MAX_STOPS), -1, np.int32), np.zeros((rows, 2), np.uint32)
    for request in requests:
        row, sampling = request.row, request.sampling
        token[row] = request.token_ids[-1] if request.token_ids else request.prompt_ids[-1]
        budget[row] = request.budget - len(request.token_ids)
        stops[row, : len(sampling.stop_token_ids)] = sampling.stop_token_ids
        temperature[row], top_p[row] = sampling.temperature, sampling.top_p
        top_k[row], min_p[row] = sampling.top_k, sampling.min_p
        seed[row] = request.seed >> 32 & 0xFFFFFFFF, request.seed & 0xFFFFFFFF
    return Rows(token, budget, stops, Knobs(temperature, top_p, top_k, min_p, seed))  # type: ignore[arg-type]
