"""Caches kept for the next turn: the state of a row after exactly these tokens, the least recently used goes first.

A recurrent state cannot be cut back as keys and values can: only a prompt that begins with all of the tokens can
continue from it. Everything is forgotten when the weights change.
"""

from __future__ import annotations

from collections import OrderedDict

import numpy as np

from ornith_jax.params import Params


class Prefixes:
    """At most `limit` snapshots, by their tokens."""

    def __init__(self, limit: int) -> None:
        self.limit = limit
        self._rows: OrderedDict[bytes, Params] = OrderedDict()

    def put(self, token_ids: np.ndarray, row: Params) -> None:
        """Keep `row`, which has read `token_ids` [T] int32."""
        key = token_ids.tobytes()
        self._rows[key] = row
        self._rows.move_to_end(key)
        while len(self._rows) > self.limit:
            self._rows.popitem(last=False)

    def longest(self, token_ids: np.ndarray) -> tuple[int, Params | None]:
        """(tokens read, row) of the longest snapshot that `token_ids` begins with; (0, None) without one."""
        wanted = token_ids.tobytes()
        key = max((k for k in self._rows if wanted.startswith(k)), key=len, default=b"")
        if not key:
            return 0, None
        self._rows.move_to_end(key)
        return len(key) // token_ids.itemsize, self._rows[key]

    def clear(self) -> None:
        self._rows.clear()
