"""Replies and observations as the messages that people read and others train on (the OpenAI form), and back."""

from __future__ import annotations

from collections.abc import Mapping

from envs.tools import Call
from rollout.chat.types import Observation, Reply
from rollout.errors import RolloutError


def assistant_message(reply: Reply, turn: int = 0) -> dict[str, object]:
    """Calls have the ids "call_<turn>_<index>". A malformed call is in no field: its text is lost here."""
    message: dict[str, object] = {"role": "assistant", "content": reply.text}
    if reply.thinking:
        message["reasoning_content"] = reply.thinking
    if reply.calls:
        message["tool_calls"] = [
            {
                "id": f"call_{turn}_{index}",
                "type": "function",
                "function": {"name": call.name, "arguments": dict(call.arguments)},
            }
            for index, call in enumerate(reply.calls)
        ]
    return message


def observation_message(observation: Observation, turn: int = 0, index: int = 0) -> dict[str, object]:
    """`turn` of the assistant's message that it follows; `index` among what followed, calls answered in order."""
    message: dict[str, object] = {"role": observation.role, "content": observation.text}
    if observation.role == "tool":
        message |= {"name": observation.name, "tool_call_id": f"call_{turn}_{index}"}
    return message


def reply_of(message: Mapping) -> Reply:
    functions = [entry["function"] for entry in message.get("tool_calls") or ()]
    calls = tuple(Call(function["name"], function["arguments"]) for function in functions)
    return Reply(message.get("content") or "", message.get("reasoning_content") or "", calls, "")


def observation_of(message: Mapping) -> Observation:
    if message["role"] not in ("tool", "user"):
        raise RolloutError(f"a message after the first has the role {message['role']!r}; it must be user or tool")
    return Observation(message["role"], message["content"], message.get("name", ""))
