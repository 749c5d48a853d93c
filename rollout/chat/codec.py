"""What both tool-call codecs share: argument types from the schemas, one error, the JSON that any value survives."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping

from envs.tools import SCHEMAS, Call

NAME = r"[\w.-]+"


class Malformed(Exception):
    """A call that cannot be read; the message says what is wrong with it."""


def decode_calls(
    text: str, start: re.Pattern[str], one: Callable[[str, int], tuple[Call, int]], form: str
) -> tuple[str, tuple[Call, ...], str]:
    """(text outside of the calls, calls, error). A malformed call makes the whole reply an error without calls.

    Args:
        start: where a call begins. `one` reads it from there: (call, where it ends), or raises Malformed.
        form: how a call is written, for the error.
    """
    outside: list[str] = []
    calls: list[Call] = []
    at = 0
    while found := start.search(text, at):
        outside.append(text[at : found.start()])
        try:
            call, at = one(text, found.end())
        except Malformed as malformed:
            return "".join(outside), (), f"the tool call is malformed: {malformed}. Write:\n{form}"
        calls.append(call)
    return "".join([*outside, text[at:]]), tuple(calls), ""


def typed(call: str, argument: str, text: str) -> object:
    """An argument that was written without quotes: raw text for a string, else JSON if it is any.

    Tools and arguments that are not in the schemas keep their text: the tool layer names them to the policy.
    """
    properties = SCHEMAS.get(call, {}).get("function", {}).get("parameters", {}).get("properties", {})
    if properties.get(argument, {}).get("type", "string") == "string":
        return text
    try:
        return json.loads(text)
    except (ValueError, RecursionError):
        return text


def put(arguments: dict[str, object], key: str, value: object) -> None:
    """Half a character (a lone surrogate, from a JSON escape) is no text: no file and no command can hold it."""
    if key in arguments:
        raise Malformed(f"the argument {key} is given twice")
    if isinstance(value, str) and any("\ud800" <= letter <= "\udfff" for letter in value):
        raise Malformed(f"the argument {key} holds half of a character (\\ud800 to \\udfff)")
    arguments[key] = value


def ascii_json(value: object) -> str:
    """JSON in plain ASCII without `<`: no normaliser changes it and no delimiter hides in it."""
    return json.dumps(value).replace("<", "\\u003c")


def same(call: Call, decoded: tuple[str, tuple[Call, ...], str]) -> bool:
    """Did this call, and nothing else, come back? Types count: True is not 1."""
    _, calls, error = decoded
    return not error and [_key(c) for c in calls] == [_key(call)]


def _key(call: Call) -> tuple[str, str]:
    return call.name, json.dumps(dict(call.arguments), sort_keys=True)


def schema_of(tool: Mapping) -> tuple[str, str, Mapping]:
    """(name, description, parameters) of a function schema."""
    function = tool["function"]
    return function["name"], function["description"], function["parameters"]
