"""`ornith score`: log-probabilities of given tokens under any checkpoint, so that anyone can compare us with anything.

The input is an .npz with `token_ids` [B, T] (integers) and, for packed or padded rows, `segment_ids` [B, T] (0 is
padding; neighbours with equal ids belong together) and `positions` [B, T]. The output is an .npz with `logprobs`
[B, T] float32:

    logprobs[b, t] = log p(token_ids[b, t] | the tokens of its segment before it)

and 0.0 for the first token of each segment and for padding. `logits` [B, T, V] float32 come with it when asked for.
"""

from __future__ import annotations

import os
import zipfile
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from ornith_jax.config import ModelConfig
from ornith_jax.convert.load import load
from ornith_jax.errors import OrnithError
from ornith_jax.models.decoder import forward, logits
from ornith_jax.params import Params
from ornith_jax.rl.logprobs import token_logprobs

POSITIONS = 256  # as many logits as these positions have are held at once


@dataclass(frozen=True, slots=True)
class Request:
    """All [B, T] int32; `positions` None: counted from 0 in each segment."""

    token_ids: np.ndarray
    segment_ids: np.ndarray
    positions: np.ndarray | None


def score(model: Path, source: Path, out: Path, *, with_logits: bool = False, dtype: str | None = None) -> None:
    """Run the checkpoint `model` over `source` and write `out`, at once or not at all.

    Args:
        dtype: of parameters and activations; None: as the checkpoint has them.
    Raises:
        OrnithError: a bad checkpoint, or bad input.
    """
    if not out.parent.is_dir():
        raise OrnithError(f"{out}: the folder {out.parent} does not exist; make it first")
    cfg, params = load(model, dtype=dtype)
    request = read_request(source, cfg)
    dtype = dtype or cfg.dtype
    with jax.default_matmul_precision("highest" if dtype == "float32" else "default"):
        results = [_row(params, cfg, request, b, dtype, with_logits) for b in range(len(request.token_ids))]
    arrays = {name: np.stack([row[name] for row in results]) for name in results[0]}
    temporary = out.with_name(f".{out.name}.{os.getpid()}.partial")
    try:
        with temporary.open("wb") as f:
            np.savez(f, **arrays)  # type: ignore[arg-type]
        os.replace(temporary, out)
    finally:
        temporary.unlink(missing_ok=True)


def read_request(source: Path, cfg: ModelConfig) -> Request:
    """The checked input. Raises OrnithError naming the array that is missing or wrong."""
    try:
        with np.load(source, allow_pickle=False) as archive:
            arrays = {name: archive[name] for name in archive.files}
    except (OSError, EOFError, ValueError, AttributeError, TypeError, zipfile.BadZipFile) as error:
        raise OrnithError(f"{source}: not a readable .npz file ({error}); write it with numpy.savez") from None
    if "token_ids" not in arrays:
        raise OrnithError(f"{source}: array 'token_ids' is missing; it holds {', '.join(arrays) or 'nothing'}")
    token_ids = arrays["token_ids"]
    if token_ids.ndim != 2 or not token_ids.size:
        raise OrnithError(f"{source}: array 'token_ids' has shape {list(token_ids.shape)}; it must be [batch, tokens]")
    limits = {"token_ids": cfg.vocab_size, "segment_ids": 2**31, "positions": cfg.max_positions}
    for name in limits.keys() & arrays.keys():
        _check_array(source, name, arrays[name], token_ids.shape, limits[name])
    segment_ids = arrays.get("segment_ids", np.ones_like(token_ids)).astype(np.int32)
    positions = arrays["positions"].astype(np.int32) if "positions" in arrays else None
    return Request(token_ids.astype(np.int32), segment_ids, positions)


def _check_array(source: Path, name: str, value: np.ndarray, shape: tuple[int, ...], limit: int) -> None:
    if not np.issubdtype(value.dtype, np.integer):
        raise OrnithError(f"{source}: array {name!r} is {value.dtype}; it must be integers")
    if value.shape != shape:
        raise OrnithError(f"{source}: array {name!r} has shape {list(value.shape)}, token_ids {list(shape)}")
    wrong = (value < 0) | (value >= limit)
    if wrong.any():
        where = [int(i) for i in np.argwhere(wrong)[0]]
        raise OrnithError(f"{source}: array {name!r}: {value[tuple(where)]} at {where} is not in 0..{limit - 1}")


def _row(params: Params, cfg: ModelConfig, request: Request, b: int, dtype: str, with_logits: bool) -> dict[str, Any]:
    """One row of the batch at a time: its hidden states are all that is held of it."""
    ids, segments = jnp.asarray(request.token_ids[b]), jnp.asarray(request.segment_ids[b])
    positions = None if request.positions is None else jnp.asarray(request.positions[b])
    hidden_TD = _hidden(params, cfg, ids, segments, positions, dtype)
    row = {"logprobs": np.asarray(_logprobs(params, cfg, hidden_TD, ids, segments))}
    if with_logits:
        row["logits"] = np.asarray(_logits(params, cfg, hidden_TD))
    return row


@partial(jax.jit, static_argnums=(1, 5))
def _hidden(
    params: Params, cfg: ModelConfig, ids_T: jax.Array, segments_T: jax.Array, positions_T: jax.Array | None, dtype: str
) -> jax.Array:
    positions_BT = None if positions_T is None else positions_T[None]
    return forward(
        params, cfg, ids_T[None], segment_ids_BT=segments_T[None], positions_BT=positions_BT, dtype=jnp.dtype(dtype)
    )[0]


@partial(jax.jit, static_argnums=1)
def _logits(params: Params, cfg: ModelConfig, hidden_TD: jax.Array) -> jax.Array:
    return logits(params, cfg, hidden_TD[None])[0]


@partial(jax.jit, static_argnums=1)
def _logprobs(
    params: Params, cfg: ModelConfig, hidden_TD: jax.Array, ids_T: jax.Array, segments_T: jax.Array
) -> jax.Array:
    """[T], from logits of the same dtype as those that `_logits` gives."""
    return token_logprobs(
        params, cfg, hidden_TD[None], ids_T[None], segments_T[None], chunk_tokens=POSITIONS, float32_head=False
    )[0][0]
