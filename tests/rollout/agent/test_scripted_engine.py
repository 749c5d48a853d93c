"""The scripted engine keeps the engine's contract, so that what is tested with it holds for a real one."""

import asyncio
import time

import pytest
from theatre import CHAT, READ, says

from rollout.chat.types import Reply
from rollout.errors import EngineError
from rollout.scripted import Say, ScriptedEngine, token_logprob
from rollout.types import Finish, Sampling

PROMPT = CHAT.open("", "Go.")
STOPS = CHAT.stop_token_ids


def answer(say: Say, *, tokens: int = 500, deadline_s: float = 5.0, version: int | None = 3):
    engine = ScriptedEngine(CHAT, [say], policy_version=version)
    sampling = Sampling(max_new_tokens=tokens, stop_token_ids=STOPS)
    return asyncio.run(engine.generate(PROMPT, sampling, deadline_s=deadline_s)), engine


def test_a_reply_comes_back_as_it_was_meant():
    reply = Reply("I look.", "hm", (READ,), "")
    completion, engine = answer(Say(reply=reply))
    assert CHAT.parse(completion.token_ids) == reply
    assert (completion.finish, completion.versions) == (Finish.STOP, ((0, 3),))
    assert completion.behavior_logprobs == tuple(token_logprob(id, 3) for id in completion.token_ids)
    assert all(-3 < logprob <= 0 for logprob in completion.behavior_logprobs)
    assert engine.prompts == [PROMPT]


@pytest.mark.parametrize(("at", "spans"), [(0, ((0, 9),)), (2, ((0, 3), (2, 9))), (999, ((0, 3),))])
def test_the_weights_can_change_in_the_middle(at, spans):
    completion, engine = answer(Say(reply=Reply("some words", "", (), ""), switch=(at, 9)))
    assert completion.versions == spans
    assert completion.behavior_logprobs[-1] == token_logprob(completion.token_ids[-1], spans[-1][1])
    assert engine.policy_version == 9


def test_length_and_deadline_cut():
    words = Reply("one two three four five six seven eight", "", (), "")
    whole, _ = answer(Say(reply=words))
    cut, _ = answer(Say(reply=words), tokens=4)
    assert (cut.token_ids, cut.finish) == (whole.token_ids[:4], Finish.LENGTH)
    started = time.monotonic()
    late, _ = answer(Say(reply=words, seconds=0.4), deadline_s=0.2)
    assert (late.token_ids, late.finish) == (whole.token_ids[: len(whole.token_ids) // 2], Finish.DEADLINE)
    assert time.monotonic() - started < 0.39
    unended, _ = answer(Say(reply="no stop token"))
    assert unended.finish is Finish.LENGTH


def test_failures_on_command():
    for say, version, cause in ((Say(reply="", fail="dead"), 0, "dead"), (Say(reply=""), None, "not_ready")):
        with pytest.raises(EngineError) as caught:
            answer(say, version=version)
        assert caught.value.cause == cause
    engine = ScriptedEngine(CHAT, [])
    with pytest.raises(EngineError, match="no more answers"):
        asyncio.run(engine.generate(PROMPT, Sampling(max_new_tokens=9), deadline_s=1))


def test_a_function_answers_by_the_prompt_and_health_counts():
    engine = ScriptedEngine(CHAT, lambda prompt: says(f"{len(prompt)}")[0], capacity=2)

    async def both():
        sampling = Sampling(max_new_tokens=50, stop_token_ids=STOPS)
        slow = asyncio.create_task(ScriptedEngine.generate(engine, PROMPT, sampling, deadline_s=1))
        completion = await slow
        await engine.update_weights(None, 8)
        return completion, await engine.health()

    completion, health = asyncio.run(both())
    assert CHAT.parse(completion.token_ids).text == str(len(PROMPT))
    assert (health.policy_version, health.running, health.capacity) == (8, 0, 2)
