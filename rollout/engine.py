"""The engine protocol: token ids in, token ids with behaviour logprobs and version spans out."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from rollout.errors import EngineError
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


def check_request(prompt_ids: Sequence[int], sampling: Sampling, *, vocab_size: int, max_len: int) -> None:
    """What no engine can answer. Raises `EngineError("rejected")` that names the field.

    Args:
        max_len: tokens of one request, prompt and completion; at least one is left for the completion.
    """
    wrong = {
        "prompt_ids: empty": not prompt_ids,
        f"prompt_ids: {len(prompt_ids)} tokens leave no room in {max_len}": len(prompt_ids) >= max_len,
        f"prompt_ids: an id is not in 0..{vocab_size - 1}": any(not 0 <= token < vocab_size for token in prompt_ids),
        f"max_new_tokens: {sampling.max_new_tokens} is less than 1": sampling.max_new_tokens < 1,
        f"temperature: {sampling.temperature} is not finite and >= 0": not 0 <= sampling.temperature < math.inf,
        f"top_p: {sampling.top_p} is not in (0, 1]": not 0 < sampling.top_p <= 1,
        f"top_k: {sampling.top_k} is negative": sampling.top_k < 0,
        f"min_p: {sampling.min_p} is not in [0, 1]": not 0 <= sampling.min_p <= 1,
    }
    for message, is_wrong in wrong.items():
        if is_wrong:
            raise EngineError("rejected", message)
