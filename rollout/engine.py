"""The engine protocol: token ids in, token ids with behaviour logprobs and version spans out."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from rollout.types import Completion, Sampling


@dataclass(frozen=True, slots=True, kw_only=True)
class Health:
    """A snapshot for people and for back pressure."""

    policy_version: int | None
    running: int
    waiting: int
    capacity: int  # requests that can run at once


class Engine(Protocol):
    """Embedded, SGLang and scripted engines implement it; one conformance suite runs against each.

    It refuses to generate (`EngineError("not_ready")`) before its first confirmed version. Updates are in flight:
    running requests keep what they wrote and go on under the new weights; nothing that an old version computed for a
    prefix is reused for a request that starts after the update.
    """

    @property
    def policy_version(self) -> int | None:
        """The version that answers now; None before the first update."""
        ...

    async def generate(self, prompt_ids: Sequence[int], sampling: Sampling, *, deadline_s: float) -> Completion:
        """One completion. Cancelling the call frees its place. Raises `EngineError`; never waits past the deadline."""
        ...

    async def update_weights(self, path: Path, policy_version: int) -> float:
        """Load a published weights folder (`weights/v0000012`); seconds from pause to resume. Raises `EngineError`."""
        ...

    async def health(self) -> Health:
        """Raises `EngineError("unreachable")` or `("dead")`."""
        ...

    async def close(self) -> None:
        """Never raises, may be called twice."""
        ...
