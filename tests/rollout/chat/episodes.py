"""Random conversations: text that hurts, replies good and bad, observations huge and empty."""

import random

from envs.tools import SCHEMAS, Call
from rollout.chat.types import Observation, Reply

NASTY = (
    *(
        "<|im_end|>",
        "<|im_start|>system\n",
        "</tool_response>",
        "<tool_response>",
        "<|endoftext|>",
        "<think>",
        "</think>",
    ),
    *("<tool_call>", "</tool_call>", "</parameter>", "\n</parameter>\n", "<parameter=new>\n", "</function>"),
    *(
        "<turn|>",
        "<|turn>user\n",
        "<|tool_response>",
        "<tool_response|>",
        '<|"|>',
        '<|"|>}',
        "<eos>",
        "<bos>",
        "<|think|>",
    ),
    *("<|channel>thought\n", "<channel|>", "<|tool_call>call:", "{%- raw %}", '"', "\\u003c", "}}", ",path:"),
)
LETTERS = (
    "abcdefgh  __==()[]{}:,.<>/\\'\"0123456789",
    "\n\n  \t\r\n",
    "日本語テキスト한국어",
    "😀🧪👩‍🔬𝔸𓀀",  # astral, with a joiner
    "e\u0301a\u0308o\u0302n\u0303",  # decomposed: a normaliser composes it
    "שלום مرحبا\u202e\u200f",  # right to left, with overrides
    "\x00\x01\x07\x1b[31m\x7f\x85\u2028\u00a0",  # control characters, odd spaces
    "▁ſﬀ①",  # Gemma's own space, compatibility forms
)


CALM = tuple(letters for letters in LETTERS if not {"\u0301", "▁"} & set(letters))  # no tokenizer changes them


def text(rng: random.Random, length: int, nasty: float = 0.3, alphabets: tuple[str, ...] = LETTERS) -> str:
    if length > 1000:
        return text(rng, 1000, nasty) * (length // 1000)
    made = ""
    while len(made) < length:
        letters = rng.choice(alphabets)
        made += "".join(rng.choice(letters) for _ in range(rng.randint(1, 12)))
        if rng.random() < nasty:
            made += rng.choice(NASTY)
    return made


def call(rng: random.Random, nasty: float = 0.3, alphabets: tuple[str, ...] = LETTERS) -> Call:
    """A call whose arguments fit the schema."""
    name = rng.choice(list(SCHEMAS))
    parameters = SCHEMAS[name]["function"]["parameters"]
    arguments: dict[str, object] = {}
    for key, value in parameters["properties"].items():
        if key in parameters["required"] or rng.random() < 0.5:
            string = text(rng, rng.choice((0, 1, 10, 60)), nasty, alphabets)
            arguments[key] = string if value["type"] == "string" else rng.randint(-5, 10**6)
    return Call(name, arguments)


def reply(rng: random.Random) -> Reply:
    """A well-formed reply; its text and thinking hold no control token, as `parse` reads text."""
    thinking = text(rng, rng.choice((0, 5, 80)), nasty=0).strip()
    said = text(rng, rng.choice((0, 0, 20)), nasty=0).strip()
    return Reply(said, thinking, tuple(call(rng) for _ in range(rng.choice((0, 1, 1, 1, 2)))), "")


def tame_reply(rng: random.Random) -> Reply:
    """A thought and calls, without markup inside of arguments: what every template can render as it was written."""
    calls = tuple(call(rng, 0, CALM) for _ in range(rng.randint(1, 2)))
    return Reply("", "I " + text(rng, 30, nasty=0).strip(), calls, "")


def observations(rng: random.Random, calls: tuple[Call, ...], users: float) -> list[Observation]:
    """An answer to every call, now and then a user message after them; one in 200 answers is huge."""
    lengths = [rng.choice((0, 3, 40, 200)) if rng.random() > 0.005 else 100_000 for _ in calls]
    found = [Observation("tool", text(rng, n), c.name) for n, c in zip(lengths, calls, strict=True)]
    if not calls or rng.random() < users:
        found.append(Observation("user", text(rng, 30) + "."))
    return found
