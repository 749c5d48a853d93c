"""One `Chat` over a tokenizer and a family's format; `load_chat` picks both.

Token in, token out: the next prompt is the old prompt, the completion, and a newly tokenized suffix. Nothing that was
sampled is tokenized again, so neither family ever forks: what its template would strip or move stays as it was
sampled. `Extension.forked` is there for a format that cannot be kept append-only.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from rollout.chat import gemma4, qwen3_5
from rollout.chat.messages import observation_of, reply_of
from rollout.chat.pieces import Pieces, marks_of, split
from rollout.chat.tokenizer import Tokenizer, load_tokenizer
from rollout.chat.types import Chat, Extension, Observation, Reply
from rollout.errors import RolloutError


class Format(Protocol):
    """What a family's module offers; `qwen3_5` says what each part means."""

    MARKS: tuple
    STOPS: tuple

    def opening(self, system: str, user: str, tools: Sequence[Mapping], thinking: bool) -> Pieces: ...

    def completion(self, reply: Reply, prompt: Sequence[str]) -> Pieces: ...

    def continuation(
        self, prompt: Sequence[str], written: Sequence[str], last: str, observations: Sequence[Observation]
    ) -> Pieces: ...

    def parse(self, text: str) -> Reply: ...


FAMILIES: dict[str, Format] = {"qwen3_5": qwen3_5, "gemma4": gemma4}


def load_chat(tokenizer_dir: Path, family: str) -> Chat:
    """The chat of a model folder. Raises `RolloutError` for an unknown family or a tokenizer that does not fit it."""
    if family not in FAMILIES:
        raise RolloutError(f"no chat format for {family!r}; there are {', '.join(FAMILIES)}")
    return TemplateChat(load_tokenizer(tokenizer_dir, FAMILIES[family].MARKS), FAMILIES[family])


@dataclass(frozen=True, slots=True)
class TemplateChat:
    """See `rollout.chat.types.Chat`."""

    tokenizer: Tokenizer
    format: Format

    @property
    def stop_token_ids(self) -> tuple[int, ...]:
        return tuple(self.tokenizer.mark_ids[stop] for stop in self.format.STOPS)

    def open(self, system: str, user: str, tools: Sequence[Mapping] = (), *, thinking: bool = True) -> tuple[int, ...]:
        return self.tokenizer.ids(self.format.opening(system, user, tools, thinking))

    def extend(
        self, prompt_ids: Sequence[int], completion_ids: Sequence[int], observations: Sequence[Observation]
    ) -> Extension:
        roles = [observation.role for observation in observations]
        assert roles, "without an observation there is nothing to extend with"
        assert roles == sorted(roles), f"answers of tools come first, then users' messages: {roles}"
        prompt, written = self.tokenizer.marks(prompt_ids), self.tokenizer.marks(completion_ids)
        last = self.tokenizer.names.get(completion_ids[-1], "") if completion_ids else ""
        suffix = self.format.continuation(prompt, written, last, observations)
        return Extension((*prompt_ids, *completion_ids, *self.tokenizer.ids(suffix)))

    def parse(self, completion_ids: Sequence[int]) -> Reply:
        stopped = bool(completion_ids) and completion_ids[-1] in self.stop_token_ids
        return self.format.parse(self.tokenizer.text(completion_ids[:-1] if stopped else completion_ids))

    def write(self, prompt_ids: Sequence[int], reply: Reply) -> tuple[int, ...]:
        return self.tokenizer.ids(self.format.completion(reply, self.tokenizer.marks(prompt_ids)))

    def render(self, messages: Sequence[Mapping], tools: Sequence[Mapping] = (), *, thinking: bool = True) -> str:
        system = str(messages[0]["content"]) if messages and messages[0]["role"] == "system" else ""
        rest = messages[1:] if messages and messages[0]["role"] == "system" else messages
        if not rest or rest[0]["role"] != "user":
            raise RolloutError("the first message after the system's must be the user's")
        pieces = self.format.opening(system, str(rest[0]["content"]), tools, thinking)
        at = 1
        while at < len(rest):
            if rest[at]["role"] != "assistant":
                raise RolloutError(f"message {at} has the role {rest[at]['role']!r}; the assistant's turn was next")
            prompt = marks_of(pieces)
            written = self.format.completion(reply_of(rest[at]), prompt)
            pieces += written
            end = next((i for i in range(at + 1, len(rest)) if rest[i]["role"] == "assistant"), len(rest))
            observations = [observation_of(message) for message in rest[at + 1 : end]]
            if observations:
                pieces += self.format.continuation(prompt, marks_of(written), written[-1], observations)
            at = end
        return "".join(pieces)

    def decode(self, ids: Sequence[int]) -> str:
        return self.tokenizer.text(ids)

    def encode(self, text: str) -> tuple[int, ...]:
        return self.tokenizer.ids(split(text, tuple(self.tokenizer.mark_ids)))
