"""An OpenAI-compatible server as an engine: ours over real sockets, and one that answers as others do."""

import asyncio
import math
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest
from aiohttp import web
from aiohttp.test_utils import TestServer

from ornith_jax.serve.http import Server
from rollout.errors import EngineError
from rollout.openai_engine import OpenAIEngine, build_body
from rollout.scripted import Say, ScriptedEngine
from rollout.types import Finish, Sampling
from tests.rollout.tokenizers import chat

SAMPLING = Sampling(max_new_tokens=50, temperature=0.5, stop_token_ids=(3,), seed=7)


def served(app: web.Application, use: Callable[[str], Awaitable[Any]]) -> Any:
    """`use(url)` while the app answers there."""

    async def run() -> Any:
        async with TestServer(app) as server:
            return await use(str(server.make_url("/")))

    return asyncio.run(run())


def other(choice: dict[str, Any], seen: list[dict] | None = None, seconds: float = 0.0) -> web.Application:
    """A server that is not ours: its health says nothing, and it gives this one choice."""

    async def complete(request: web.Request) -> web.Response:
        body = await request.json()
        if seen is not None:
            seen.append(body)
        await asyncio.sleep(seconds)
        return web.json_response({"choices": [choice]})

    async def models(_: web.Request) -> web.Response:
        return web.json_response({"data": [{"id": "first"}, {"id": "second"}]})

    async def health(_: web.Request) -> web.Response:
        return web.Response()

    app = web.Application()
    app.add_routes([web.post("/v1/completions", complete), web.get("/v1/models", models), web.get("/health", health)])
    return app


async def ask(url: str, **options: Any) -> Any:
    engine = await OpenAIEngine.connect(url, **options)
    try:
        return await engine.generate([5, 6], SAMPLING, deadline_s=30)
    finally:
        await engine.close()


def test_our_own_server_is_one():
    talk = chat("qwen3_5")
    scripted = ScriptedEngine(talk, [Say(reply="one two three")], policy_version=12)

    async def use(url: str) -> Any:
        engine = await OpenAIEngine.connect(url + "v1", policy_version=3)
        assert engine.policy_version == 12, "it tells its own"
        got = await engine.generate([5, 6], SAMPLING, deadline_s=30)
        await scripted.update_weights(Path("x"), 13)
        health = await engine.health()
        with pytest.raises(EngineError, match=r"update_failed: .* serve v4 there"):
            await engine.update_weights(Path("v4"), 4)
        await engine.close()
        return got, health

    got, health = served(Server(scripted, "tiny", talk).app(), use)
    assert scripted.prompts == [(5, 6)]
    assert got.token_ids == talk.encode("one two three")
    assert all(math.isnan(logprob) for logprob in got.behavior_logprobs)
    assert (len(got.behavior_logprobs), got.versions, got.finish) == (len(got.token_ids), ((0, 12),), Finish.LENGTH)
    assert (health.policy_version, health.running, health.waiting) == (13, 0, 0)
    assert health.capacity > 0


def test_a_stop_token_that_a_server_leaves_out_is_put_back():
    for ids in ([8, 9], [8, 9, 3]):
        got = served(other({"finish_reason": "stop", "token_ids": ids}), ask)
        assert (got.token_ids, got.finish, got.versions) == ((8, 9, 3), Finish.STOP, ((0, 0),))
    got = served(other({"finish_reason": "length", "token_ids": [8, 9]}), ask)
    assert (got.token_ids, got.finish) == ((8, 9), Finish.LENGTH)


def test_the_request_says_what_was_asked_and_nothing_neutral():
    seen: list[dict] = []
    served(other({"finish_reason": "stop", "token_ids": [3]}, seen), lambda url: ask(url, model="second"))
    asked = {"model": "second", "prompt": [5, 6], "max_tokens": 50, "temperature": 0.5, "top_p": 1.0, "seed": 7}
    assert seen == [{**asked, "return_token_ids": True, "stop_token_ids": [3]}]
    narrow = build_body("m", [1], Sampling(max_new_tokens=1, top_k=4, min_p=0.1))
    assert (narrow["top_k"], narrow["min_p"]) == (4, 0.1)
    assert "seed" not in narrow


def test_past_the_deadline_nothing_is_left():
    async def late(url: str) -> Any:
        engine = await OpenAIEngine.connect(url, policy_version=2)
        got = await engine.generate([5], SAMPLING, deadline_s=0.1)
        await engine.close()
        return got

    got = served(other({"finish_reason": "stop", "token_ids": [3]}, seconds=5), late)
    assert (got.token_ids, got.finish, got.versions) == ((), Finish.DEADLINE, ())


@pytest.mark.parametrize(
    ("choice", "said"),
    [
        ({"finish_reason": "stop", "text": "hello"}, "no token_ids in the answer; text alone is not used"),
        ({"finish_reason": "stop", "token_ids": ["a"]}, "no token_ids"),
        ({"token_ids": [1]}, "not the one choice"),
    ],
)
def test_an_answer_without_ids_is_refused(choice: dict, said: str):
    with pytest.raises(EngineError, match=said) as refused:
        served(other(choice), ask)
    assert refused.value.cause == "bad_answer"


def test_what_is_no_such_server_is_said_at_the_start():
    with pytest.raises(EngineError, match="no model 'third'; it serves first, second"):
        served(other({}), lambda url: ask(url, model="third"))
    with pytest.raises(EngineError) as refused:
        asyncio.run(ask("http://127.0.0.1:9"))
    assert refused.value.cause == "unreachable"
    with pytest.raises(EngineError, match="404"):
        served(web.Application(), ask)
