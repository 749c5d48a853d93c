"""What the agent and a chat format say to each other: Observation in, ids out; ids in, Reply out."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

from envs.tools import Call


@dataclass(frozen=True, slots=True)
class Reply:
    """What the policy wrote in one completion.

    Example: the Qwen3.5 completion "It is done.\\n</think>\\n\\nI hand it in.<|im_end|>" is
    Reply(text="I hand it in.", thinking="It is done.", calls=(), error="").
    """

    text: str  # outside of thinking and calls
    thinking: str
    calls: tuple[Call, ...]  # empty when `error` is set: nothing is carried out of a reply that is half understood
    error: str  # why a call is malformed and what to write, as an observation for the policy; "" if fine


@dataclass(frozen=True, slots=True)
class Observation:
    """What the policy sees next. Its text comes from outside: it never becomes a control token."""

    role: str  # "tool" | "user"
    text: str
    name: str = ""  # of the tool that answered; Gemma 4 writes it


@dataclass(frozen=True, slots=True)
class Extension:
    """The ids of the next prompt. They begin with the old prompt and completion unless `forked`."""

    ids: tuple[int, ...]
    forked: bool = False


class Chat(Protocol):
    """One model family's conversation format over one tokenizer. Pure: no state between calls."""

    @property
    def stop_token_ids(self) -> tuple[int, ...]:
        """Any of them ends a completion, as its last id."""
        ...

    def open(self, system: str, user: str, tools: Sequence[Mapping] = (), *, thinking: bool = True) -> tuple[int, ...]:
        """The first prompt; ends with the generation prompt. `tools` are function schemas (`envs.tools.schemas`)."""
        ...

    def extend(
        self, prompt_ids: Sequence[int], completion_ids: Sequence[int], observations: Sequence[Observation]
    ) -> Extension:
        """The next prompt: prompt + completion (+ end of turn if it was cut) + observations + generation prompt.

        At least one observation; tool observations come first, in the order of the calls.
        """
        ...

    def parse(self, completion_ids: Sequence[int]) -> Reply:
        """Lenient; never raises. Thinking that is not closed is text."""
        ...

    def write(self, prompt_ids: Sequence[int], reply: Reply) -> tuple[int, ...]:
        """The completion that says `reply` after this prompt, stop token included: for scripts and demonstrations."""
        ...

    def render(self, messages: Sequence[Mapping], tools: Sequence[Mapping] = (), *, thinking: bool = True) -> str:
        """The conversation as text, nothing stripped; ends with the generation prompt unless the policy spoke last."""
        ...

    def decode(self, ids: Sequence[int]) -> str:
        """Text, control tokens shown."""
        ...

    def encode(self, text: str) -> tuple[int, ...]:
        """Ids of text as the policy would write it: control tokens in it are control. Never for text from outside."""
        ...
