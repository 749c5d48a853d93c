"""Which replica has seen the beginning of a prompt: so that the turns of an episode meet their own prefix cache."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterator, Sequence

BLOCK = 64
REMEMBERED = 100_000


class PrefixMap:
    """Hashes of prompts at every BLOCK ids -> replica, the least recently used forgotten."""

    def __init__(self) -> None:
        self._seen: OrderedDict[int, int] = OrderedDict()

    def find(self, ids: Sequence[int]) -> int | None:
        """The replica that saw the longest beginning of `ids`."""
        found = None
        for key in _keys(ids):
            if key not in self._seen:
                break
            self._seen.move_to_end(key)
            found = self._seen[key]
        return found

    def add(self, ids: Sequence[int], replica: int) -> None:
        for key in _keys(ids):
            self._seen[key] = replica
            self._seen.move_to_end(key)
        while len(self._seen) > REMEMBERED:
            self._seen.popitem(last=False)


def _keys(ids: Sequence[int]) -> Iterator[int]:
    key = 0
    for start in range(0, len(ids) - BLOCK + 1, BLOCK):
        key = hash((key, *ids[start : start + BLOCK]))
        yield key
