"""1,000 random episodes per family: training ids are engine ids, and where the published template would differ is
counted, with the reason.

The engine's side is played by the test: well-formed replies, malformed calls, random ids, completions cut anywhere.
"""

import random
import unicodedata
from collections import Counter
from dataclasses import dataclass, field

import numpy as np
import pytest

from envs.tools import SCHEMAS
from rollout.chat.messages import assistant_message, observation_message
from rollout.chat.types import Chat, Observation, Reply
from rollout.sequence import sequences
from rollout.types import Completion, Finish, Stage, Turn
from tests.rollout.chat import episodes, official
from tests.rollout.tokenizers import FAMILIES, chat, folder

EPISODES = 1000
TEMPLATES = {"qwen3_5": "qwen3_5_think", "gemma4": "gemma4_v5"}
BROKEN = (
    "<tool_call>\nread a.py\n</tool_call>",
    "<tool_call><function=read><parameter=path>a",
    "<|tool_call>call:read{",
)


@dataclass
class Played:
    """What one episode left behind. `reasons`: why the published template may render its messages differently."""

    thinking: bool
    tools: list[dict]
    messages: list[dict]
    prompt_ids: tuple[int, ...]
    turns: list[Turn] = field(default_factory=list)
    reasons: set[str] = field(default_factory=set)


def spoiled(rng: random.Random, talk: Chat, ids: tuple[int, ...]) -> tuple[int, ...]:
    """What an engine might return instead of a well-formed reply."""
    kind = rng.random()
    if kind < 0.4:
        return ids
    if kind < 0.6:
        return ids[: rng.randrange(len(ids) + 1)]
    if kind < 0.8:
        return talk.encode(rng.choice(BROKEN)) + ids[-1:]
    control = list(talk.tokenizer.names)
    return tuple(rng.choice(control) if rng.random() < 0.2 else rng.randrange(900) for _ in range(rng.randrange(30)))


def play(rng: random.Random, talk: Chat) -> Played:
    thinking, tools = rng.random() < 0.7, rng.sample(list(SCHEMAS.values()), rng.randint(0, len(SCHEMAS)))
    system, user = episodes.text(rng, rng.choice((0, 30))), episodes.text(rng, 40) + "."
    messages = [{"role": "system", "content": system}] * bool(system.strip()) + [{"role": "user", "content": user}]
    played = Played(thinking, tools, messages, talk.open(system, user, tools, thinking=thinking))
    tame = rng.random() < 0.5  # always well-formed, no markup inside of arguments
    for turn in range(rng.randint(1, 5)):
        reply = episodes.tame_reply(rng) if tame else episodes.reply(rng)
        reply = reply if thinking else Reply("", "", reply.calls, "")
        ids = talk.write(played.prompt_ids, reply)
        written = ids if tame else spoiled(rng, talk, ids)
        parsed = talk.parse(written)
        seen = episodes.observations(rng, parsed.calls, users=0.03 if tame else 0.1)
        before = played.prompt_ids + written
        extension = talk.extend(played.prompt_ids, written, seen)
        assert extension.ids[: len(before)] == before
        assert not extension.forked
        assert control_marks(talk, extension.ids[len(before) :]) == control_marks(
            talk, talk.extend(played.prompt_ids, written, harmless(seen)).ids[len(before) :]
        ), "an observation became a control token"
        note_reasons(played, talk, parsed, written, seen)
        played.turns.append(turn_of(played.prompt_ids, written, turn))
        played.messages.append(assistant_message(parsed, turn))
        played.messages += [observation_message(o, turn, i) for i, o in enumerate(seen)]
        played.prompt_ids = extension.ids
    return played


def control_marks(talk: Chat, ids: tuple[int, ...]) -> list[str]:
    return talk.tokenizer.marks(ids)


def harmless(seen: list[Observation]) -> list[Observation]:
    return [Observation(o.role, "x", o.name) for o in seen]


def turn_of(prompt_ids: tuple[int, ...], written: tuple[int, ...], turn: int) -> Turn:
    logprobs = tuple(-0.5 - i for i in range(len(written)))
    completion = Completion(
        token_ids=written, behavior_logprobs=logprobs, versions=((0, turn),) * bool(written), finish=Finish.STOP
    )
    return Turn(stage=Stage.SOLUTION, prompt_ids=prompt_ids, completion=completion)


def note_reasons(played: Played, talk: Chat, parsed: Reply, written: tuple[int, ...], seen: list[Observation]) -> None:
    gemma = talk.format is chat("gemma4").format
    text = talk.decode(written)
    if written != talk.write(played.prompt_ids, parsed):
        played.reasons.add("the policy did not write what a template would")
    if "<tool_call>\n{" in text or '{"' in text:
        played.reasons.add("the call went as JSON")
    if seen[-1].role == "user" and (not gemma or thought_so_far(played) or parsed.thinking):
        played.reasons.add("thinking before a user message is dropped")
    if gemma and parsed.text and parsed.calls:
        played.reasons.add("text before a call is moved")
    if gemma and played.thinking and talk.decode(played.prompt_ids[-20:]).endswith("thought\n") and not parsed.thinking:
        played.reasons.add("an empty thought is left out")


def thought_so_far(played: Played) -> bool:
    return any("reasoning_content" in message for message in played.messages)


def official_text(family: str, played: Played, template: str, **options: object) -> str:
    """What a tokenizer would make of the template's text and back: NFC in Qwen, no U+2581 in Gemma."""
    text = official.render(template, folder(family), played.messages, played.tools, **options)
    return unicodedata.normalize("NFC", text) if family == "qwen3_5" else text.replace("▁", " ")


@pytest.mark.parametrize("family", FAMILIES)
def test_a_thousand_random_episodes(family: str):
    talk, rng = chat(family), random.Random(2026)
    counts: Counter[str] = Counter()
    for _ in range(EPISODES):
        played = play(rng, talk)
        [sequence] = sequences(played.turns)
        engine_ids = played.turns[-1].prompt_ids + played.turns[-1].completion.token_ids
        assert tuple(sequence.token_ids.tolist()) == engine_ids
        by_policy = [i for turn in played.turns for i in turn.completion.token_ids]
        assert sequence.token_ids[sequence.loss_mask].tolist() == by_policy
        assert np.array_equal(sequence.token_versions >= 0, sequence.loss_mask)

        ours = talk.decode(played.prompt_ids)
        theirs = official_text(family, played, TEMPLATES[family], enable_thinking=played.thinking)
        if not played.reasons:
            assert ours == theirs
            assert ours == official_text_of_render(family, talk, played)
            counts["equal"] += 1
        counts["forks of the template"] += ours != theirs
        counts.update(played.reasons)
        if played.reasons == {"thinking before a user message is dropped"}:
            assert ours != theirs
            if family == "qwen3_5" and played.thinking:
                assert ours == official_text(family, played, "qwen3_6", preserve_thinking=True)
                counts["equal to Qwen3.6, which can keep thinking"] += 1
    print(family, dict(counts))
    assert counts["equal"] >= 200
    assert all(count >= 20 for count in counts.values()), counts


def official_text_of_render(family: str, talk: Chat, played: Played) -> str:
    text = talk.render(played.messages, played.tools, thinking=played.thinking)
    return unicodedata.normalize("NFC", text) if family == "qwen3_5" else text.replace("▁", " ")
