"""What both tool-call codecs share: argument types from the schemas, one error, the JSON that any value survives."""

from __future__ import annotations

import json
from collections.abc import Mapping

from envs.tools import SCHEMAS, Call

NAME = r"[\w.-]+"


class Malformed(Exception):
    """A call that cannot be read; the message says what is wrong with it."""


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
