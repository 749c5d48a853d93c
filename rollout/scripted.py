"""An engine that follows a script: it drives every path of the loop without a model. Ships with the package.

Tokens, spans and log-probabilities are consistent (one entry a token, versions in order), but nobody sampled them: the
log-probability of a token is a fixed function of its id and of the version that wrote it.
"""

from __future__ import annotations

import asyncio
import math
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from rollout.chat.types import Chat, Reply
from rollout.engine import Health
from rollout.errors import EngineError
from rollout.types import Completion, Finish, Sampling, Span


@dataclass(frozen=True, slots=True, kw_only=True)
class Say:
    """One completion of a script. `text` is encoded as it stands, or a Reply in the chat's own form."""

    reply: Reply | str
    seconds: float = 0.0  # until it is written; past the deadline: what fits before it, and Finish.DEADLINE
    switch: tuple[int, int] | None = None  # (token index, policy version): the weights change before that token
    fail: str = ""  # a cause of EngineError instead of an answer


Script = Callable[[tuple[int, ...]], Say] | Iterable[Say]


class ScriptedEngine:
    """Implements `rollout.engine.Engine`. The script is asked with the prompt ids, or is a list that is used up.

    `prompts` keeps every prompt, in order. An empty list of answers is EngineError("bad_answer").
    """

    def __init__(self, chat: Chat, script: Script, *, policy_version: int | None = 0, capacity: int = 64) -> None:
        self._chat, self._capacity = chat, capacity
        self._answers: Iterator[Say] | None = None if callable(script) else iter(script)
        self._choose = script if callable(script) else None
        self._version = policy_version
        self._running = 0
        self.prompts: list[tuple[int, ...]] = []

    @property
    def policy_version(self) -> int | None:
        return self._version

    async def generate(self, prompt_ids: Sequence[int], sampling: Sampling, *, deadline_s: float) -> Completion:
        if self._version is None:
            raise EngineError("not_ready", "no weights yet")
        prompt = tuple(prompt_ids)
        self.prompts.append(prompt)
        say = self._next(prompt)
        if say.fail:
            raise EngineError(say.fail, "the script says so")
        ids = self._ids(prompt, say)
        begun = self._version
        self._running += 1
        try:
            await asyncio.sleep(min(say.seconds, deadline_s))
        finally:
            self._running -= 1
        finish = Finish.STOP if ids and ids[-1] in sampling.stop_token_ids else Finish.LENGTH
        if len(ids) > sampling.max_new_tokens:
            ids, finish = ids[: sampling.max_new_tokens], Finish.LENGTH
        if say.seconds > deadline_s:
            ids, finish = ids[: int(len(ids) * deadline_s / say.seconds)], Finish.DEADLINE
        if say.switch:
            self._version = say.switch[1]
        return _completion(ids, begun, say.switch, finish, say.seconds)

    async def update_weights(self, path: Path, policy_version: int) -> float:
        self._version = policy_version
        return 0.0

    async def health(self) -> Health:
        return Health(policy_version=self._version, running=self._running, waiting=0, capacity=self._capacity)

    async def close(self) -> None:
        pass

    def _next(self, prompt: tuple[int, ...]) -> Say:
        if self._choose is not None:
            return self._choose(prompt)
        assert self._answers is not None
        say = next(self._answers, None)
        if say is None:
            raise EngineError("bad_answer", "the script has no more answers")
        return say

    def _ids(self, prompt: tuple[int, ...], say: Say) -> tuple[int, ...]:
        if isinstance(say.reply, Reply):
            return self._chat.write(prompt, say.reply)
        return self._chat.encode(say.reply)


def token_logprob(token_id: int, policy_version: int) -> float:
    """What this engine claims of a token: between -3 and 0, another value for another version."""
    return -3.0 * math.modf((token_id + 1) * 0.6180339887 + policy_version * 0.1)[0]


def _completion(
    ids: tuple[int, ...], version: int, switch: tuple[int, int] | None, finish: Finish, seconds: float
) -> Completion:
    spans: tuple[Span, ...] = ((0, version),) if ids else ()
    if switch and 0 < switch[0] < len(ids):
        spans += (switch,)
    elif switch and switch[0] == 0 and ids:
        spans = ((0, switch[1]),)
    written_by = [max(span for span in spans if span[0] <= index)[1] for index in range(len(ids))]
    return Completion(
        token_ids=ids,
        behavior_logprobs=tuple(token_logprob(i, v) for i, v in zip(ids, written_by, strict=True)),
        versions=spans,
        finish=finish,
        seconds=seconds,
    )
