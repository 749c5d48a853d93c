"""Caches kept for the next turn: the state of a row after exactly these tokens, the least recently used goes first.

A recurrent state cannot be cut back as keys and values can: only a prompt that begins with all of the tokens can
continue from it. Everything is forgotten when the weights change.
"""

from __future__ import annotations

from collections import OrderedDict
from dataclasses import dataclass

import numpy as np

from ornith_jax.params import Params


@dataclass(frozen=True, slots=True)
class Snapshot:
    """A row that has read `token_ids` [T] int32; `experts`: [n, L, X] pieces for all of them, if recorded."""

    token_ids: np.ndarray
    row: Params
    experts: tuple[np.ndarray, ...] = ()


class Prefixes:
    """At most `limit` snapshots, by their tokens."""

    def __init__(self, limit: int) -> None:
        self.limit = limit
        self._kept: OrderedDict[bytes, Snapshot] = OrderedDict()

    def put(self, snapshot: Snapshot) -> None:
        key = snapshot.token_ids.tobytes()
        self._kept[key] = snapshot
        self._kept.move_to_end(key)
        while len(self._kept) > self.limit:
            self._kept.popitem(last=False)

    def longest(self, token_ids: np.ndarray) -> Snapshot | None:
        """The longest that `token_ids` begins with."""
        wanted = token_ids.tobytes()
        key = max((key for key in self._kept if wanted.startswith(key)), key=len, default=None)
        if key is None:
            return None
        self._kept.move_to_end(key)
        return self._kept[key]

    def clear(self) -> None:
        self._kept.clear()
