"""The HTTP server: OpenAI's completions and chat, SGLang's /generate. Real sockets, mostly a scripted engine."""

import asyncio
import json
import socket
import subprocess
import sys
from pathlib import Path
from typing import Any

import aiohttp
import pytest
from aiohttp.test_utils import TestClient, TestServer

from envs.tools import Call
from ornith_jax.convert.save_hf import save_hf
from ornith_jax.models.named import TINY_QWEN
from ornith_jax.serve.http import Server
from rollout.chat.types import Reply
from rollout.scripted import Say, ScriptedEngine
from tests.rollout.lab import Lab
from tests.rollout.tokenizers import chat


def exchange(engine: ScriptedEngine, *requests: tuple[str, Any], family: str = "qwen3_5") -> list[tuple[int, Any]]:
    """(status, body) of each request; a body of None is a GET."""

    async def run() -> list[tuple[int, Any]]:
        app = Server(engine, "tiny", chat(family) if family else None).app()
        async with TestClient(TestServer(app)) as client:
            answers = []
            for path, body in requests:
                data = body if isinstance(body, bytes) else json.dumps(body).encode()
                call = client.get(path) if body is None else client.post(path, data=data)
                async with call as answer:
                    answers.append((answer.status, await answer.json()))
            return answers

    return asyncio.run(run())


def scripted(*replies: Reply | str, **kwargs: Any) -> ScriptedEngine:
    return ScriptedEngine(chat("qwen3_5"), [Say(reply=reply) for reply in replies], **kwargs)


USER = {"role": "user", "content": "Say <|im_end|> twice."}
LOOK = Reply("I look.", "hm", (Call("read", {"path": "a.py"}),), "")


def test_a_conversation_is_tokenized_as_the_agent_does_it_and_parsed_back():
    engine, qwen = scripted(LOOK, Reply("done", "", (), "")), chat("qwen3_5")
    [(_, first)] = exchange(engine, ("/v1/chat/completions", {"messages": [USER], "max_tokens": 90}))
    choice = first["choices"][0]
    assert choice["finish_reason"] == "tool_calls"
    function = choice["message"]["tool_calls"][0]["function"]
    assert (function["name"], json.loads(function["arguments"])) == ("read", {"path": "a.py"})
    assert choice["message"]["reasoning_content"] == "hm"
    prompt = qwen.open("", USER["content"])
    assert engine.prompts[0] == prompt
    assert first["usage"]["total_tokens"] == len(prompt) + len(choice["token_ids"])

    told = {"role": "assistant", "content": "I look.", "reasoning_content": "hm"}
    told["tool_calls"] = choice["message"]["tool_calls"]
    messages = [USER, told, {"role": "tool", "name": "read", "content": "x = 1"}]
    [(status, second)] = exchange(engine, ("/v1/chat/completions", {"messages": messages}))
    assert (status, second["choices"][0]["message"]["content"]) == (200, "done")
    assert engine.prompts[1][: len(prompt)] == prompt
    assert "x = 1" in qwen.decode(engine.prompts[1])


def test_text_and_ids_are_completed():
    engine, qwen = scripted("one two", "one two"), chat("qwen3_5")
    ids = list(qwen.encode("one"))
    asked = {"max_tokens": 50, "temperature": 0.5, "stream": False}
    (_, text), (_, same) = exchange(
        engine, ("/v1/completions", {"prompt": "one", **asked}), ("/v1/completions", {"prompt": ids, **asked})
    )
    assert text["choices"][0]["text"] == same["choices"][0]["text"] == "one two"
    assert engine.prompts == [tuple(ids)] * 2


def test_generate_answers_in_sglangs_shape():
    say = Say(reply="one two three", switch=(1, 5))
    engine = ScriptedEngine(chat("qwen3_5"), [say], policy_version=4)
    body = {"input_ids": [5, 6], "sampling_params": {"max_new_tokens": 90, "top_p": 0.9}, "return_logprob": True}
    [(status, answer)] = exchange(engine, ("/generate", body))
    assert status == 200
    meta, ids = answer["meta_info"], answer["output_ids"]
    assert meta["weight_versions"] == [
        {"version": "4", "start": 0, "end": 1},
        {"version": "5", "start": 1, "end": len(ids)},
    ]
    assert [triple[1] for triple in meta["output_token_logprobs"]] == ids
    assert (meta["prompt_tokens"], meta["completion_tokens"], answer["text"]) == (2, len(ids), "one two three")


@pytest.mark.parametrize(
    ("path", "body", "problem"),
    [
        ("/v1/completions", {"prompt": [1], "stream": True}, "stream: True is not supported"),
        ("/v1/completions", {"prompt": [1], "logit_bias": {}}, "logit_bias"),
        ("/v1/completions", {"prompt": [1], "temperature": "hot"}, "temperature: 'hot'"),
        ("/v1/completions", {"prompt": [1], "max_tokens": 1.5}, "max_new_tokens: 1.5"),
        ("/v1/completions", {"prompt": [1.5]}, "prompt: must be a list of token ids"),
        ("/v1/completions", {}, "prompt: must be"),
        ("/v1/completions", [1], "must be a JSON object"),
        ("/v1/completions", b"{", "Expecting property name"),
        ("/v1/chat/completions", {"messages": [{"role": "assistant", "content": "hi"}]}, "the first after"),
        ("/v1/chat/completions", {"messages": [USER, USER]}, "after the user's comes the assistant's"),
        ("/v1/chat/completions", {"messages": "hi"}, "messages: must be a list"),
        ("/v1/chat/completions", {"messages": [USER, {"role": "assistant", "tool_calls": [3]}, USER]}, "tool_calls"),
        ("/generate", {"text": "hi"}, "input_ids: must be"),
        ("/update_weights_from_disk", {"model_path": "x"}, "weight_version"),
    ],
)
def test_what_is_wrong_is_named(path: str, body: Any, problem: str):
    [(status, answer)] = exchange(scripted(), (path, body))
    assert status == 400
    assert problem in answer["error"]["message"]


def test_a_model_without_a_tokenizer_speaks_in_ids():
    asked = ("/v1/completions", {"prompt": "text"}), ("/v1/completions", {"prompt": [1, 2], "max_tokens": 50})
    refused, answered = exchange(scripted("one"), *asked, family="")
    assert refused[0] == 400
    assert "no tokenizer.json; send token ids" in refused[1]["error"]["message"]
    assert answered[0] == 200
    assert answered[1]["choices"][0]["token_ids"]


def test_an_engine_that_cannot_answer_is_unavailable():
    engine = ScriptedEngine(chat("qwen3_5"), [], policy_version=None)
    for status, _ in exchange(engine, ("/health", None), ("/v1/completions", {"prompt": [1]})):
        assert status == 503
    (health, models) = exchange(scripted(), ("/health", None), ("/v1/models", None))
    assert health[1]["policy_version"] == 0
    assert models[1]["data"][0]["id"] == "tiny"


def test_ornith_serve_serves_a_folder_until_it_is_told_to_stop(tmp_path: Path):
    lab = Lab(tmp_path / "weights", TINY_QWEN)
    save_hf(lab.params(0), lab.cfg, tmp_path / "model")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    argv = ["serve", str(tmp_path / "model"), "--port", str(port), "--max-len", "128", "--slots", "1"]
    server = subprocess.Popen([sys.executable, "-m", "ornith_jax.cli", *argv], stdout=subprocess.PIPE, text=True)
    try:
        assert server.stdout is not None
        assert str(port) in server.stdout.readline()
        got = asyncio.run(_ask(f"http://127.0.0.1:{port}", lab.prompt(9)))
    finally:
        server.terminate()
        assert server.wait(30) == 0
    assert got["meta_info"]["weight_versions"] == [{"version": "0", "start": 0, "end": 12}]
    logits = lab.logits(0, [*lab.prompt(9), *got["output_ids"]])[8:-1]
    assert logits.argmax(axis=1).tolist() == got["output_ids"]


async def _ask(url: str, prompt: list[int]) -> Any:
    body = {"input_ids": prompt, "sampling_params": {"max_new_tokens": 12, "temperature": 0}}
    async with aiohttp.ClientSession() as session, session.post(f"{url}/generate", json=body) as answer:
        return await answer.json()
