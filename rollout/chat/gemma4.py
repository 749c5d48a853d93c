"""The conversation format of Gemma 4: <|turn>role, a thought channel, tools declared in the system turn.

Source: the chat template published with Gemma 4 (revision of 2026-07-09). The policy goes on in its own turn after a
tool answers: its completion ends with <|tool_response>, and the answer follows. Differences, on purpose: the template
drops the thinking of earlier turns when a new user message comes, and moves text that stands before a call behind the
answers. Here every id stays where the policy wrote it.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence

from rollout.chat import gemma_calls
from rollout.chat.codec import schema_of
from rollout.chat.gemma_calls import QUOTE
from rollout.chat.pieces import Mark, Pieces
from rollout.chat.types import Observation, Reply
from rollout.errors import RolloutError

BEGIN, TEXT_END = Mark("<bos>"), Mark("<eos>")
TURN, TURN_END = Mark("<|turn>"), Mark("<turn|>")
THINK, CHANNEL, CHANNEL_END = Mark("<|think|>"), Mark("<|channel>"), Mark("<channel|>")
TOOL, TOOL_END = Mark("<|tool>"), Mark("<tool|>")
RESPONSE, RESPONSE_END = Mark("<|tool_response>"), Mark("<tool_response|>")
MARKS = (
    *(BEGIN, TEXT_END, TURN, TURN_END, THINK, CHANNEL, CHANNEL_END, TOOL, TOOL_END),
    *(RESPONSE, RESPONSE_END, gemma_calls.OPEN, gemma_calls.CLOSE, QUOTE),
)
STOPS = (TURN_END, TEXT_END, RESPONSE)

_THOUGHT = re.compile(r"<\|channel>(?:thought\n)?(.*?)(?:<channel\|>|\Z)", re.DOTALL)


def opening(system: str, user: str, tools: Sequence[Mapping], thinking: bool) -> Pieces:
    """System turn (if there is anything in it), user turn, generation prompt."""
    pieces: Pieces = [BEGIN]
    if thinking or tools or system.strip():
        pieces += [TURN, "system\n", *([THINK, "\n"] if thinking else []), system.strip()]
        for tool in tools:
            pieces += [TOOL, *_declaration(tool), TOOL_END]
        pieces += [TURN_END, "\n"]
    return [*pieces, *_user(user), TURN, "model\n"]


def completion(reply: Reply, prompt: Sequence[str]) -> Pieces:
    """What the policy writes to say `reply` after a prompt with these marks."""
    thought: Pieces = []
    if prompt[-1] == CHANNEL:
        thought = [f"{reply.thinking.strip()}\n", CHANNEL_END]
    elif reply.thinking.strip() and _is_thinking(prompt):
        thought = [CHANNEL, f"thought\n{reply.thinking.strip()}\n", CHANNEL_END]
    calls = gemma_calls.encode(reply.calls)
    return [*thought, reply.text.strip(), *calls, RESPONSE if calls else TURN_END]


def continuation(
    prompt: Sequence[str], written: Sequence[str], last: str, observations: Sequence[Observation]
) -> Pieces:
    """What follows a completion: see `qwen3_5.continuation`, which takes the same."""
    pieces: Pieces = []
    if last not in STOPS:  # it was cut
        channels = [mark for mark in [*prompt[-1:], *written] if mark in (CHANNEL, CHANNEL_END)]
        pieces += ["\n", CHANNEL_END] if channels[-1:] == [CHANNEL] else []
    if last == TEXT_END:
        pieces.append(TURN_END)
        last = TURN_END
    # A reply that asks for an answer without a readable call gets its observation as the answer.
    answers = [o for i, o in enumerate(observations) if o.role == "tool" or (i == 0 and last == RESPONSE)]
    if answers:
        pieces += ["\n", TURN, "model\n"] if last == TURN_END else []
        for i, answer in enumerate(answers):
            pieces += [] if i == 0 and last == RESPONSE else [RESPONSE]
            name = answer.name or "unknown"  # the template's own word
            pieces += [f"response:{name}{{value:", QUOTE, answer.text, QUOTE, "}", RESPONSE_END]
    users = observations[len(answers) :]
    if not users:
        return pieces + ([CHANNEL, "thought\n"] if _is_thinking(prompt) else [])
    pieces += ["\n"] if last == TURN_END and not answers else [TURN_END, "\n"]
    for observation in users:
        pieces += _user(observation.text)
    return [*pieces, TURN, "model\n"]


def parse(text: str) -> Reply:
    """A completion without its stop token. After a tool's answer the prompt has opened the thought channel already."""
    before, ended, _ = text.partition(CHANNEL_END)
    if ended and CHANNEL not in before and not gemma_calls.ends_inside(before):
        text = CHANNEL + text
    thoughts = []
    while thought := _THOUGHT.match(text):
        thoughts.append(thought[1].strip())
        text = text[thought.end() :]
    # Later thoughts count up to the first call; an argument may hold anything.
    head, call, tail = text.partition(gemma_calls.OPEN)
    thoughts += [thought.strip() for thought in _THOUGHT.findall(head)]
    outside, calls, error = gemma_calls.decode(_THOUGHT.sub("", head) + call + tail)
    return Reply(outside.strip(), "\n".join(thoughts), calls, error)


def _user(text: str) -> Pieces:
    return [TURN, f"user\n{text.strip()}", TURN_END, "\n"]


def _is_thinking(prompt: Sequence[str]) -> bool:
    """The first turn of the conversation asked for it; later marks are the policy's own."""
    return THINK in prompt[:3]


def _declaration(tool: Mapping) -> Pieces:
    """One flat function schema: strings quoted by their own token, keys sorted, types in capitals."""
    name, description, parameters = schema_of(tool)
    pieces: Pieces = [f"declaration:{name}{{description:", QUOTE, description, QUOTE, ",parameters:{"]
    properties = sorted(parameters["properties"].items(), key=lambda item: item[0].lower())
    for i, (key, value) in enumerate(properties):
        if set(value) != {"type", "description"} or value["type"] in ("object", "array"):
            raise RolloutError(f"tool {name}: parameter {key} must have a description and a plain type, nothing else")
        pieces += [f"{',' if i else 'properties:{'}{key}:{{description:", QUOTE, value["description"], QUOTE]
        pieces += [",type:", QUOTE, value["type"].upper(), QUOTE, "}"]
    pieces += ["},"] if properties else []
    for i, key in enumerate(parameters["required"]):
        pieces += ["," if i else "required:[", QUOTE, key, QUOTE]
    pieces += ["],"] if parameters["required"] else []
    return [*pieces, "type:", QUOTE, parameters["type"].upper(), QUOTE, "}}"]
