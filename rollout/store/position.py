"""Which groups a learner has used up: what a checkpoint keeps, so that a restart repeats and loses nothing."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True, slots=True)
class Position:
    """All group numbers below `below`, and those in `also`. Numbers count one driver's admissions from 0.

    Example: Position().plus([0, 1, 3]) == Position(below=2, also=frozenset({3})).
    """

    below: int = 0
    also: frozenset[int] = frozenset()

    def __contains__(self, number: int) -> bool:
        return number < self.below or number in self.also

    def plus(self, numbers: Iterable[int]) -> Position:
        """With these groups used up too."""
        also, below = set(self.also).union(numbers), self.below
        while below in also:
            below += 1
        return Position(below, frozenset(number for number in also if number >= below))

    def to_json(self) -> dict[str, Any]:
        """For a checkpoint's free JSON part."""
        return {"below": self.below, "also": sorted(self.also)}

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> Position:
        """The inverse of `to_json`."""
        return cls(data["below"], frozenset(data["also"]))
