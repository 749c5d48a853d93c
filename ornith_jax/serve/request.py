"""One request on its way through the engine: what was asked, and what has been written so far."""

from __future__ import annotations

import time
from collections.abc import Sequence
from concurrent.futures import Future, InvalidStateError
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from ornith_jax.serve.programs import MAX_STOPS
from rollout.engine import check_request
from rollout.errors import EngineError
from rollout.types import Completion, Finish, Sampling, Span


@dataclass(slots=True, kw_only=True, eq=False)
class Request:
    """The engine's thread writes; the caller reads after the future is done, or takes what there is at its deadline."""

    prompt_ids: np.ndarray  # [T] int32
    sampling: Sampling
    seed: int
    budget: int  # tokens that may be written: max_new_tokens, or what the context leaves
    future: Future[Completion] = field(default_factory=Future)
    submitted: float = field(default_factory=time.monotonic)

    weights: int = 0  # which weights it started under; its cache is pure while these are still the engine's
    row: int = -1
    filled: int = 0  # prompt tokens in the cache
    cached_tokens: int = 0
    token_ids: list[int] = field(default_factory=list)
    logprobs: list[float] = field(default_factory=list)
    versions: list[Span] = field(default_factory=list)
    experts: list[np.ndarray] = field(default_factory=list)  # [n, L, X] int32 each, of all tokens read, in order

    def append(self, token_ids: Sequence[int], logprobs: Sequence[float], policy_version: int) -> None:
        """Tokens just written by `policy_version`. The ids come last: a reader has no more of them than of the rest."""
        if token_ids and (not self.versions or self.versions[-1][1] != policy_version):
            self.versions.append((len(self.token_ids), policy_version))
        self.logprobs.extend(logprobs)
        self.token_ids.extend(token_ids)

    @property
    def unread(self) -> np.ndarray:
        """What is left of the prompt. Its last token is not: the step that writes the first token reads it."""
        return self.prompt_ids[self.filled : -1]

    @property
    def length(self) -> int:
        """Tokens so far, prompt and completion."""
        return len(self.prompt_ids) + len(self.token_ids)

    @property
    def finish(self) -> Finish | None:
        if self.token_ids and self.token_ids[-1] in self.sampling.stop_token_ids:
            return Finish.STOP
        return Finish.LENGTH if len(self.token_ids) >= self.budget else None

    def completion(self, finish: Finish) -> Completion:
        token_ids = tuple(self.token_ids)
        routed = b""
        if self.experts and token_ids:
            read = np.concatenate(self.experts)[: len(self.prompt_ids) + len(token_ids) - 1]
            routed = read.astype("<i4").tobytes()
        return Completion(
            token_ids=token_ids,
            behavior_logprobs=tuple(self.logprobs[: len(token_ids)]),
            versions=tuple(span for span in self.versions if span[0] < len(token_ids)),
            finish=finish,
            routed_experts=routed,
            cached_tokens=self.cached_tokens,
            seconds=time.monotonic() - self.submitted,
        )


def answer(future: Future[Any], result: object) -> None:
    """Resolve the future with a result or an exception, unless its caller has gone."""
    with suppress(InvalidStateError):
        if isinstance(result, Exception):
            future.set_exception(result)
        else:
            future.set_result(result)


def check(prompt_ids: Sequence[int], sampling: Sampling, vocab_size: int, max_len: int) -> np.ndarray:
    """The prompt as [T] int32. Raises EngineError("rejected") that names the field."""
    check_request(prompt_ids, sampling, vocab_size=vocab_size, max_len=max_len)
    if len(sampling.stop_token_ids) > MAX_STOPS:
        raise EngineError("rejected", f"stop_token_ids: more than {MAX_STOPS}")
    return np.asarray(prompt_ids, np.int32)
