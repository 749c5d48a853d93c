"""The judge behind the OpenAI API, as `envs.guard.judge` asks it: /v1/models and /v1/chat/completions.

It is guided decoding for one schema: the model's own tokens decide verdict, category and line, and the rest of the
JSON follows from them. It answers requests for a verdict and nothing else, always as at temperature 0.
"""

from __future__ import annotations

import asyncio
import json
import uuid
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from aiohttp import web

from envs.guard.exhibit import PLAN, PRODUCT, TASK
from ornith_jax.judge.reader import Reader
from rollout.errors import RolloutError
from rollout.judging.reading import record_of

MODEL = "ornith-judge"
WARM_UP = [f"1| {TASK}", "2|   Mend it.", f"3| {PLAN}", "4|   (none)", f"5| {PRODUCT}", "6|   + return 1"]


@dataclass(frozen=True, slots=True)
class Server:
    """One request at a time: the model takes all cores."""

    reader: Reader
    _turn: asyncio.Lock = field(default_factory=asyncio.Lock)

    def app(self) -> web.Application:
        app = web.Application(client_max_size=64 << 20)
        app.router.add_get("/health", self.health)
        app.router.add_get("/v1/models", self.models)
        app.router.add_post("/v1/chat/completions", self.complete)
        app.on_startup.append(self._warm_up)
        return app

    async def _warm_up(self, app: web.Application) -> None:
        """Compile before the first request, not during it."""
        await self._verdict(WARM_UP)

    async def health(self, request: web.Request) -> web.Response:
        return web.json_response({"model": MODEL, "fingerprint": self.reader.fingerprint})

    async def models(self, request: web.Request) -> web.Response:
        entry = {"id": MODEL, "object": "model", "owned_by": "ornith", "root": self.reader.fingerprint}
        return web.json_response({"object": "list", "data": [entry]})

    async def complete(self, request: web.Request) -> web.Response:
        try:
            body = await request.json()
            messages = body["messages"]
            probe = isinstance(messages, list) and len(messages) == 1  # of `model_client`, before any judging
            text = "ok" if probe else json.dumps(await self._verdict(record_of(messages)))
        except (RolloutError, ValueError, KeyError, TypeError, AttributeError) as error:
            return web.json_response({"error": {"message": f"{error}", "code": 400}}, status=400)
        choice = {"index": 0, "finish_reason": "stop", "message": {"role": "assistant", "content": text}}
        answer = {
            "id": f"chat.completion-{uuid.uuid4().hex}",
            "object": "chat.completion",
            "model": MODEL,
            "system_fingerprint": self.reader.fingerprint,
            "choices": [choice],
        }
        return web.json_response(answer)

    async def _verdict(self, rows: Sequence[str]) -> dict[str, Any]:
        async with self._turn:
            return await asyncio.to_thread(self.reader.verdict, rows)
