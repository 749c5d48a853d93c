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
from rollout.settings import EngineSettings

PIECES = (32, 128, 512)  # tokens of a prompt that are read at once; the last is also the most of all rows together
DISPATCH_S = 0.03  # how long one call of `decode` should take: it is what an update or a new request waits for


def piece_of(num_tokens: int, rows: int) -> int:
    """The size of the next piece of a prompt: as large as can be without being more than half padding.

    Example: of one row, 100 tokens are a piece of 128, and 33 are one of 32 and then another.
    """
    sizes = [size for size in PIECES if size * rows <= PIECES[-1]] or [PIECES[0]]
    fits = next((size for size in sizes if size >= num_tokens), sizes[-1])
    smaller = [size for size in sizes if size <= num_tokens]
    return fits if 2 * num_tokens > fits or not smaller else smaller[-1]


def length_of(num_tokens: int, max_len: int) -> int:
    """Positions of a box for this many tokens: 256, 1024, 4096, then doubling, at most `max_len`."""
    length = 256
    while length < num_tokens:
        length *= 4 if length < 4096 else 2
    return min(length, max_len)


def boxes_of(slots: int) -> tuple[int, ...]:
    """Rows of a box: 1, 4, 16, ..., and all of them."""
    return (*(4**n for n in range(slots) if 4**n < slots), slots)


class Slots:
    """The device's side of the engine: `slots` rows for sequences of up to `max_len` tokens."""

    def __init__(self, cfg: ModelConfig, settings: EngineSettings, max_len: int) -> None:
        self.cfg, self.slots, self.max_len, self.dtype = cfg, settings.slots, max_len, jnp.dtype(settings.dtype)
        self.routed_experts = settings.routed_experts
        self._cache = new_cache(cfg, self.slots, max_len, self.dtype)
        self._empty = new_cache(cfg, 1, 1, self.dtype)
        self._step_s: dict[tuple[int, int], float] = {}  # seconds of one step, by size of box; absent: not compiled

    def box(self, rows: int) -> int:
        """Rows of the smallest box that holds the first `rows`."""
        return next(size for size in boxes_of(self.slots) if size >= rows)

    def put(self, row: int, snapshot: Params | None) -> None:
        """Make a row what the snapshot was, or empty."""
        self._cache = put_row(self._cache, self.cfg, np.int32(row), self._empty if snapshot is None else snapshot)

    def take(self, row: int, num_tokens: int) -> Params:
        """A copy of a row that holds `num_tokens` tokens."""
        return take_row(self._cache, self.cfg, np.int32(row), length=length_of(num_tokens, self.max_len))

    def fill(self, params: Params, requests: Sequence[Request]) -> int:
        """Read the next piece of the prompts of some of the requests; returns the tokens computed, padding included."""
        row, rows, members = self._neighbours(requests)
        size = piece_of(max(len(request.unread) for request in members), rows)
        token_ids, num_new = np.zeros((rows, size), np.int32), np.zeros(rows, np.int32)
        for request in members:
            piece = request.unread[:size]
            token_ids[request.row - row, : len(piece)] = piece
            num_new[request.row - row] = len(piece)
            request.filled += len(piece)
        longest = max(request.filled for request in members)
        length = length_of(longest, self.max_len)
        self._cache, experts_BTLX = fill(
            params,
            self._cache,
            np.int32(row),
            token_ids,
            num_new,
            cfg=self.cfg,
            length=length,
            dtype=self.dtype,
        )
        if self.routed_experts and experts_BTLX is not None:
            read = np.asarray(experts_BTLX)
            for request in members:
                request.experts.append(read[request.row - row, : num_new[request.row - row]])
        return token_ids.size

    def _neighbours(self, requests: Sequence[Request]) -> tuple[int, int, list[Request]]:
        """(first row, number of rows, requests in them): the largest box of which at least half is used."""
        first = min(request.row for request in requests)
        for rows in reversed(boxes_of(self.slots)):
            row = min(first, self.slots - rows)
            members = [request for request in requests if row <= request.row < row + rows]
            if 2 * len(members) >= rows:
                break
        return row, rows, members

    def decode(self, params: Params, requests: Sequence[Request], policy_version: int) -> None:
        """Let every request write as many tokens as fit into one dispatch."""
        longest = max(request.length for request in requests)
        rows = self.box(max(request.row for request in requests) + 1)
        room = max(request.budget - len(request.token_ids) for request in requests)
        guess = self._step_s.get((rows, length_of(longest, self.max_len)), 0.0)
        steps = max(1, min(MAX_STEPS, room, int(DISPATCH_S / guess) if guess else 1))
        length = length_of(longest + steps, self.max_len)
        start = time.perf_counter()
        self._cache, tokens, logprobs, experts = decode(
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
        read = np.asarray(experts) if self.routed_experts and experts is not None else None
        for request in requests:
            count = counts_B[request.row]
            if read is not None:
                request.experts.append(read[:count, request.row])
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
