"""An OpenAI-compatible server over any engine: completions and chat, and SGLang's `/generate` for ids in, ids out.

    GET  /health, /identity, /v1/models
    POST /v1/completions          {"prompt": text or ids, "max_tokens", "temperature", ...}
    POST /v1/chat/completions     {"messages": [...], "tools": [...], "max_tokens", ...}
    POST /generate                {"input_ids": [...], "sampling_params": {"max_new_tokens", ...}, "deadline_s"}
    POST /update_weights_from_disk  {"model_path": "weights/v0000012", "weight_version": "12"}

A field that would change the answer and is not known here is refused by name. Answers are whole, never streamed.
"""

from __future__ import annotations

import base64
import json
import math
import os
import socket
import time
import uuid
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from aiohttp import web

from rollout.chat.messages import assistant_message, observation_of, reply_of
from rollout.chat.types import Chat
from rollout.engine import Engine
from rollout.errors import EngineError, RolloutError
from rollout.types import Completion, Finish, Sampling

DEADLINE_S = 600.0
STATUS = {"rejected": 400, "update_failed": 400, "not_ready": 503, "dead": 503, "unreachable": 503, "bad_answer": 500}
SAMPLING = ("max_new_tokens", "temperature", "top_p", "top_k", "min_p", "seed", "stop_token_ids")
ALIASES = {"max_tokens": "max_new_tokens", "max_completion_tokens": "max_new_tokens", "sampling_seed": "seed"}
NEUTRAL: Mapping[str, Sequence[Any]] = {  # fields of others that say nothing new with these values
    "stream": (False, None),
    "n": (1, None),
    "return_logprob": (True, None),
    "return_token_ids": (True, None),
    "logprob_start_len": (-1, None),
    "rid": (),
    "user": (),
    "model": (),
}


@dataclass(frozen=True, slots=True)
class Server:
    """`chat` None: a model without a tokenizer, which speaks in ids only."""

    engine: Engine
    name: str
    chat: Chat | None = None

    def app(self) -> web.Application:
        app = web.Application(client_max_size=64 << 20)
        app.router.add_get("/health", _answering(self.health))
        app.router.add_get("/identity", _answering(self.identity))
        app.router.add_get("/v1/models", _answering(self.models))
        app.router.add_post("/v1/completions", _answering(self.complete))
        app.router.add_post("/v1/chat/completions", _answering(self.converse))
        app.router.add_post("/generate", _answering(self.generate))
        app.router.add_post("/update_weights_from_disk", _answering(self.update))
        return app

    async def health(self, body: dict[str, Any]) -> dict[str, Any]:
        health = await self.engine.health()
        if health.policy_version is None:
            raise EngineError("not_ready", "no weights yet")
        return asdict(health)

    async def identity(self, body: dict[str, Any]) -> dict[str, Any]:
        """Who answers here, with weights or without: ports are given to others when an engine dies."""
        health = await self.engine.health()
        return {"name": self.name, "pid": os.getpid(), "host": socket.gethostname(), **asdict(health)}

    async def models(self, body: dict[str, Any]) -> dict[str, Any]:
        return {"object": "list", "data": [{"id": self.name, "object": "model", "owned_by": "ornith"}]}

    async def complete(self, body: dict[str, Any]) -> dict[str, Any]:
        prompt = body.pop("prompt", None)
        if isinstance(prompt, str):
            prompt = self._chat().encode(prompt)
        prompt, sampling = _ids("prompt", prompt), _sampling(body)
        got = await self.engine.generate(prompt, sampling, deadline_s=DEADLINE_S)
        return self._openai("text_completion", prompt, got, {"text": self._text(got.token_ids)})

    async def converse(self, body: dict[str, Any]) -> dict[str, Any]:
        chat, messages, tools = self._chat(), body.pop("messages", None), body.pop("tools", None)
        prompt = _prompt_of(chat, messages, tools or ())
        sampling = _sampling({"stop_token_ids": chat.stop_token_ids, **body})
        got = await self.engine.generate(prompt, sampling, deadline_s=DEADLINE_S)
        reply = chat.parse(got.token_ids)
        message = _arguments(assistant_message(reply), json.dumps)
        if reply.error:  # people see what was written, malformed as it is
            message["content"] = chat.decode(got.token_ids)
        answer = self._openai("chat.completion", prompt, got, {"message": message})
        if reply.calls:
            answer["choices"][0]["finish_reason"] = "tool_calls"
        return answer

    async def generate(self, body: dict[str, Any]) -> dict[str, Any]:
        prompt = _ids("input_ids", body.pop("input_ids", None))
        deadline_s = body.pop("deadline_s", DEADLINE_S)
        if type(deadline_s) not in (int, float) or not 0 <= deadline_s < math.inf:
            raise EngineError("rejected", f"deadline_s: {deadline_s!r} is not a number of seconds")
        sampling = _sampling({**body.pop("sampling_params", {}), **body})
        got = await self.engine.generate(prompt, sampling, deadline_s=deadline_s)
        ends = [*(start for start, _ in got.versions[1:]), len(got.token_ids)]
        spans = [
            {"version": str(version), "start": start, "end": end}
            for (start, version), end in zip(got.versions, ends, strict=False)
        ]
        reason = {Finish.STOP: "stop", Finish.LENGTH: "length", Finish.DEADLINE: "abort"}[got.finish]
        triples = [[logprob, i, None] for logprob, i in zip(got.behavior_logprobs, got.token_ids, strict=True)]
        meta = {
            "finish_reason": {"type": reason},
            "prompt_tokens": len(prompt),
            "completion_tokens": len(got.token_ids),
            "cached_tokens": got.cached_tokens,
            "e2e_latency": got.seconds,
            "weight_version": spans[-1]["version"] if spans else None,
            "weight_versions": spans,
            "output_token_logprobs": triples,
        }
        if got.routed_experts:
            meta["routed_experts"] = base64.b64encode(got.routed_experts).decode()
        return {"text": self._text(got.token_ids), "output_ids": list(got.token_ids), "meta_info": meta}

    async def update(self, body: dict[str, Any]) -> dict[str, Any]:
        try:
            path, version = Path(body["model_path"]), int(body["weight_version"])
        except (KeyError, TypeError, ValueError):
            raise EngineError("rejected", "model_path and weight_version (a number) are needed") from None
        seconds = await self.engine.update_weights(path, version)
        return {"success": True, "message": f"version {version}", "pause_s": seconds}

    def _chat(self) -> Chat:
        if self.chat is None:
            raise EngineError("rejected", f"{self.name} has no tokenizer.json; send token ids")
        return self.chat

    def _text(self, token_ids: Sequence[int]) -> str:
        return "" if self.chat is None else self.chat.decode(token_ids)

    def _openai(self, kind: str, prompt: Sequence[int], got: Completion, said: dict[str, Any]) -> dict[str, Any]:
        reason = "stop" if got.finish is Finish.STOP else "length"
        usage = {"prompt_tokens": len(prompt), "completion_tokens": len(got.token_ids)}
        return {
            "id": f"{kind}-{uuid.uuid4().hex}",
            "object": kind,
            "created": int(time.time()),
            "model": self.name,
            "choices": [{"index": 0, "finish_reason": reason, "token_ids": list(got.token_ids), **said}],
            "usage": {**usage, "total_tokens": sum(usage.values())},
        }


def _answering(handle: Callable[[dict[str, Any]], Awaitable[dict[str, Any]]]) -> Any:
    """JSON in, JSON out; an error is one line with the status of its cause."""

    async def answer(request: web.Request) -> web.Response:
        try:
            body = await request.json() if request.can_read_body else {}
            if not isinstance(body, dict):
                raise EngineError("rejected", "the body must be a JSON object")
            return web.json_response(await handle(body))
        except (ValueError, RolloutError) as error:  # not JSON; messages that make no conversation
            return _refusal(400, "rejected", str(error))
        except EngineError as error:
            return _refusal(STATUS[error.cause], error.cause, str(error))

    return answer


def _refusal(status: int, cause: str, message: str) -> web.Response:
    return web.json_response({"error": {"message": message, "code": status, "cause": cause}}, status=status)


def _ids(name: str, value: Any) -> list[int]:
    if not isinstance(value, list | tuple) or not all(type(i) is int for i in value):
        raise EngineError("rejected", f"{name}: must be a list of token ids")
    return list(value)


def _sampling(body: Mapping[str, Any]) -> Sampling:
    """Raises EngineError("rejected") that names a field which is unknown or of the wrong kind."""
    fields: dict[str, Any] = {"max_new_tokens": 256}
    for name, value in body.items():
        known = ALIASES.get(name, name)
        if known in SAMPLING:
            if value is not None:
                fields[known] = tuple(_ids(name, value)) if known == "stop_token_ids" else value
        elif name not in NEUTRAL or (NEUTRAL[name] and value not in NEUTRAL[name]):
            raise EngineError("rejected", f"{name}: {value!r} is not supported")
    wrong = [n for n, v in fields.items() if n != "stop_token_ids" and type(v) not in (int, float)]
    wrong += [n for n in ("max_new_tokens", "top_k", "seed") if type(fields.get(n, 0)) is not int]
    if wrong:
        raise EngineError("rejected", f"{wrong[0]}: {fields[wrong[0]]!r} is not a number of the right kind")
    return Sampling(**fields)


def _arguments(message: Mapping[str, Any], convert: Callable[[Any], Any]) -> dict[str, Any]:
    """The message with the arguments of its calls converted: OpenAI sends them as JSON text."""
    if not message.get("tool_calls"):
        return dict(message)
    functions = [dict(call["function"]) for call in message["tool_calls"]]
    converted = [{**f, "arguments": convert(f["arguments"])} for f in functions]
    calls = [{**call, "function": f} for call, f in zip(message["tool_calls"], converted, strict=True)]
    return {**message, "tool_calls": calls}


def _prompt_of(chat: Chat, messages: Any, tools: Sequence[Mapping]) -> tuple[int, ...]:
    """The conversation as ids. What users and tools say is tokenized as plain text, never as control tokens."""
    if not isinstance(messages, list) or not all(isinstance(m, dict) and "role" in m for m in messages):
        raise RolloutError("messages: must be a list of {role, content}")
    system, rest = "", list(messages)
    if rest and rest[0]["role"] == "system":
        system = str(rest.pop(0).get("content") or "")
    if not rest or rest[0]["role"] != "user":
        raise RolloutError("messages: the first after the system's must be the user's")
    ids = chat.open(system, str(rest.pop(0).get("content") or ""), tools)
    while rest:
        message = rest.pop(0)
        seen = []
        while rest and rest[0]["role"] != "assistant":
            seen.append(observation_of({"content": "", **rest.pop(0)}))
        if message["role"] != "assistant" or not seen:
            raise RolloutError("messages: after the user's comes the assistant's, and the last is not the assistant's")
        try:
            said = reply_of(_arguments(message, lambda text: json.loads(text) if isinstance(text, str) else text))
        except (ValueError, KeyError, TypeError):
            raise RolloutError("messages: tool_calls must be a list of {function: {name, arguments}}") from None
        ids = chat.extend(ids, chat.write(ids, said), seen).ids
    return ids
