"""Tool calls of Gemma 4: `<|tool_call>call:read{lines:20,path:<|"|>src/a.py<|"|>}<tool_call|>`, keys sorted.

Source: the chat template published with Gemma 4. A string that holds the quote token is ambiguous as text; such a call
is written with a JSON object, which `decode` reads too.
"""

from __future__ import annotations

import json
import re
from collections.abc import Sequence

from envs.tools import Call
from rollout.chat.codec import NAME, Malformed, ascii_json, decode_calls, put, same, typed
from rollout.chat.pieces import Mark, Pieces

OPEN, CLOSE, QUOTE = Mark("<|tool_call>"), Mark("<tool_call|>"), Mark('<|"|>')
FORM = '<|tool_call>call:NAME{ARGUMENT:<|"|>TEXT<|"|>,ARGUMENT:NUMBER}<tool_call|>'

_START = re.compile(r"<\|tool_call>\s*")
_HEAD = re.compile(rf"call:\s*({NAME})\s*\{{")
_OPENED = re.compile(_START.pattern + _HEAD.pattern)
_KEY = re.compile(rf'\s*(?:<\|"\|>|")?({NAME})(?:<\|"\|>|")?\s*:\s*')
# A string ends at the first quote that the next argument or the end of the call follows.
_STRING = re.compile(rf'<\|"\|>(.*?)<\|"\|>(?=\s*(?:\}}|,\s*(?:<\|"\|>|")?{NAME}(?:<\|"\|>|")?\s*:))', re.DOTALL)
_BARE = re.compile(r"[^,}]*")
_NEXT = re.compile(r"\s*(,|\})")
_END = re.compile(r"\s*\}")
_CLOSE = re.compile(r"\s*<tool_call\|>")


def encode(calls: Sequence[Call]) -> Pieces:
    pieces: Pieces = []
    for call in calls:
        native = _native(call)
        pieces += native if _survives(call, native) else _json(call)
    return pieces


def decode(text: str) -> tuple[str, tuple[Call, ...], str]:
    """See `codec.decode_calls`."""
    return decode_calls(text, _START, _one, FORM)


def ends_inside(text: str) -> bool:
    """Is the end of the text inside of a call: in an argument, say?"""
    return bool(_OPENED.search(text, text.rfind(CLOSE) + 1))


def _native(call: Call) -> Pieces:
    pieces: Pieces = [OPEN, f"call:{call.name}{{"]
    # The template sorts with jinja's dictsort, which ignores case.
    for i, (key, value) in enumerate(sorted(call.arguments.items(), key=lambda item: item[0].lower())):
        pieces.append(f"{',' if i else ''}{key}:")
        pieces += [QUOTE, value, QUOTE] if isinstance(value, str) else [json.dumps(value)]
    return [*pieces, "}", CLOSE]


def _json(call: Call) -> Pieces:
    return [OPEN, f"call:{call.name}{ascii_json(dict(call.arguments))}", CLOSE]


def _survives(call: Call, pieces: Pieces) -> bool:
    """Does it come back from text, and from ids? The tokenizer writes spaces as U+2581."""
    text = "".join(pieces)
    return "\u2581" not in text and same(call, decode(text))


def _one(text: str, at: int) -> tuple[Call, int]:
    head = _HEAD.match(text, at)
    if not head:
        raise Malformed("after <|tool_call> comes call:NAME{")
    name, at = head[1], head.end()
    arguments: dict[str, object] = {}
    while not (end := _END.match(text, at)):
        key = _KEY.match(text, at)
        if not key:
            raise Malformed(
                f"{name} is not closed with }}" if not text[at:].strip() else "an argument is ARGUMENT:VALUE"
            )
        value, at = _value(text, key.end(), name, key[1])
        put(arguments, key[1], value)
        follows = _NEXT.match(text, at)
        if not follows:
            raise Malformed(f"after the argument {key[1]} of {name} comes a comma or }}")
        at = follows.end() if follows[1] == "," else at
    close = _CLOSE.match(text, end.end())
    return Call(name, arguments), close.end() if close else end.end()


def _value(text: str, at: int, name: str, key: str) -> tuple[object, int]:
    """The value that begins at `at`, and where it ends."""
    if text.startswith(QUOTE, at):
        string = _STRING.match(text, at)
        if not string:
            raise Malformed(f"the text of the argument {key} is not closed with {QUOTE}")
        return string[1], string.end()
    if text.startswith('"', at):
        try:
            return json.JSONDecoder(strict=False).raw_decode(text, at)
        except ValueError:
            raise Malformed(f'the text of the argument {key} is not closed with "') from None
    bare = _BARE.match(text, at)
    assert bare  # it matches the empty text
    return typed(name, key, bare[0].strip()), bare.end()
