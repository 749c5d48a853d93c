"""One stage's talk with the policy: ids only ever grow, every turn is recorded, token budgets are kept."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence

from rollout.agent.ended import Ended
from rollout.agent.world import World
from rollout.chat.messages import assistant_message, observation_message
from rollout.chat.types import Observation, Reply
from rollout.types import Completion, Finish, Sampling, Stage, StopReason, Turn


class Conversation:
    """`open`, then `ask` and `hear` in turn; `finish` gives the turns. `key` makes the sampling seeds."""

    def __init__(self, world: World, stage: Stage, key: str) -> None:
        self._world, self._stage, self._key = world, stage, key
        self.turns: list[Turn] = []
        self.messages: list[Mapping[str, object]] = []
        self.written = 0  # tokens of all completions
        self.engine_s = 0.0
        self._prompt_ids: tuple[int, ...] = ()
        self._forked = False
        self._pending: tuple[Completion, float] | None = None  # what was said, and when it was asked for

    @property
    def room(self) -> int:
        """Tokens that the context still takes."""
        return self._world.settings.context_tokens - len(self._prompt_ids)

    def open(self, system: str, user: str, tools: Sequence[Mapping] = ()) -> None:
        """A first context; or, after turns, a new one (a fork)."""
        self._close_turn()
        self._forked = bool(self.turns)
        self._prompt_ids = self._world.chat.open(system, user, tools)
        self._record({"role": "system", "content": system}, {"role": "user", "content": user})

    async def ask(self, tokens: int, seconds: float) -> tuple[Reply, Finish]:
        """What the policy says next, in at most `tokens` tokens. Raises Ended(MAX_TOKENS) and EngineError."""
        tokens = min(tokens, self.room)
        if tokens <= 0:
            raise Ended(StopReason.MAX_TOKENS)
        world, chosen, started = self._world, self._world.sampling, time.monotonic()
        sampling = Sampling(
            max_new_tokens=tokens,
            temperature=chosen.temperature,
            top_p=chosen.top_p,
            top_k=chosen.top_k,
            min_p=chosen.min_p,
            stop_token_ids=world.chat.stop_token_ids,
            seed=world.seed_of(f"{self._key}/{self._stage.value}/{len(self.turns)}"),
        )
        completion = await world.engine.generate(self._prompt_ids, sampling, deadline_s=seconds)
        self.engine_s += time.monotonic() - started
        self._pending = (completion, started)
        self.written += len(completion.token_ids)
        reply = world.chat.parse(completion.token_ids)
        raw = {"raw": world.chat.decode(completion.token_ids)} if reply.error else {}
        self._record(assistant_message(reply, len(self.turns)) | raw)
        return reply, completion.finish

    def hear(self, observations: Sequence[Observation]) -> None:
        """The answer to what was said last."""
        assert self._pending is not None
        extension = self._world.chat.extend(self._prompt_ids, self._pending[0].token_ids, observations)
        turn = len(self.turns)
        self._record(*(observation_message(seen, turn, index) for index, seen in enumerate(observations)))
        self._close_turn()
        self._forked, self._prompt_ids = extension.forked, extension.ids

    def finish(self) -> tuple[Turn, ...]:
        self._close_turn()
        return tuple(self.turns)

    def _close_turn(self) -> None:
        if self._pending is None:
            return
        completion, started = self._pending
        self.turns.append(
            Turn(
                stage=self._stage,
                prompt_ids=self._prompt_ids,
                completion=completion,
                forked=self._forked,
                seconds=time.monotonic() - started,
            )
        )
        self._pending, self._forked = None, False

    def _record(self, *messages: Mapping[str, object]) -> None:
        self.messages += [{**message, "stage": self._stage.value} for message in messages]
