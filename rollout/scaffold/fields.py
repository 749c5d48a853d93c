"""Fields of a frozen dataclass that know how they are read from JSON and how they are told to the policy.

One declaration serves the parser, the schema in words and the documentation. Every reader takes (value, path) and
returns the typed value, or raises `ScaffoldError` with the path, what stood there, and what is allowed.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Sequence
from functools import partial
from typing import Any

from rollout.errors import ScaffoldError


def number(low: int, high: int, says: str, **default: Any) -> Any:
    """A whole number within low..high."""
    return _field(partial(_number, low, high), f"whole number {low}..{high}", says, default)


def text(limit: int, says: str, **default: Any) -> Any:
    """A text of at most `limit` characters."""
    return _field(partial(_text, limit), f"text, at most {limit} characters", says, default)


def flag(says: str, **default: Any) -> Any:
    return _field(_flag, "true or false", says, default)


def choice(options: Sequence[str], says: str, **default: Any) -> Any:
    """One of a closed list of words."""
    return _field(partial(_choice, tuple(options)), " | ".join(f'"{option}"' for option in options), says, default)


def names(limit: int, says: str, **default: Any) -> Any:
    """A list of at most `limit` short texts, none twice."""
    return _field(partial(_names, limit), "list of names", says, default)


def part(kind: type, says: str = "", *, required: bool = False) -> Any:
    """An object; left out, it is all defaults. Without words of its own, only its fields are told."""
    return _field(partial(read, kind), "object", says, {} if required else {"default_factory": kind}, kind)


def parts(kind: type, high: int, says: str) -> Any:
    """A list of 1..high objects."""
    return _field(partial(_parts, kind, high), f"list of 1..{high} objects", says, {}, kind)


def _field(reader: Any, form: str, says: str, default: dict[str, Any], inner: type | None = None) -> Any:
    metadata = {"read": reader, "form": form, "says": says, "inner": inner}
    return dataclasses.field(metadata=metadata, **default)


def read(kind: Any, value: object, path: str = "") -> Any:
    """A value of the dataclass `kind` from a JSON object."""
    if not isinstance(value, dict):
        raise ScaffoldError(f"{path or 'the document'}: {_shown(value)} is not an object")
    known = {field.name: field for field in dataclasses.fields(kind)}
    for key in value:
        if key not in known:
            raise ScaffoldError(f"{_join(path, _cut(key))}: no such field; there are {', '.join(known)}")
    for name, field in known.items():
        has_default = field.default is not dataclasses.MISSING or field.default_factory is not dataclasses.MISSING
        if name not in value and not has_default:
            raise ScaffoldError(f"{_join(path, name)}: missing; {field.metadata['form']}")
    return kind(
        **{name: known[name].metadata["read"](value[name], _join(path, name)) for name in known if name in value}
    )


def describe(kind: Any) -> list[str]:
    """One line for every field, in the order of the declaration: path, form, meaning. A kind is told once."""
    return list(_describe(kind, "", {}))


def _describe(kind: Any, path: str, told: dict[type, str]) -> Iterator[str]:
    for field in dataclasses.fields(kind):
        here = _join(path, field.name)
        inner = field.metadata["inner"]
        form = f"object like {told[inner]}" if inner in told else field.metadata["form"]
        if field.metadata["says"]:
            yield f"{here}: {form}. {field.metadata['says']}."
        if inner and inner not in told:
            told[inner] = here
            yield from _describe(inner, f"{here}[]" if form.startswith("list") else here, told)


def _number(low: int, high: int, value: object, path: str) -> int:
    if not isinstance(value, int) or isinstance(value, bool):
        raise ScaffoldError(f"{path}: {_shown(value)} is not a whole number")
    if not low <= value <= high:
        raise ScaffoldError(f"{path}: {_shown(value)} is not within {low}..{high}")
    return value


def _text(limit: int, value: object, path: str) -> str:
    if not isinstance(value, str):
        raise ScaffoldError(f"{path}: {_shown(value)} is not a text")
    if len(value) > limit:
        raise ScaffoldError(f"{path}: {len(value)} characters; at most {limit}")
    for character in value:
        if character == "\0" or "\ud800" <= character <= "\udfff":
            raise ScaffoldError(f"{path}: holds the character U+{ord(character):04X}, which is not text")
    return value


def _flag(value: object, path: str) -> bool:
    if not isinstance(value, bool):
        raise ScaffoldError(f"{path}: {_shown(value)} is neither true nor false")
    return value


def _choice(options: tuple[str, ...], value: object, path: str) -> str:
    if not isinstance(value, str) or value not in options:
        raise ScaffoldError(f"{path}: {_shown(value)} is not one of {', '.join(options)}")
    return value


def _names(limit: int, value: object, path: str) -> tuple[str, ...]:
    found = _list(value, path, limit)
    read_names = tuple(_text(40, item, f"{path}[{index}]") for index, item in enumerate(found))
    for index, name in enumerate(read_names):
        if name in read_names[:index]:
            raise ScaffoldError(f"{path}[{index}]: {_shown(name)} stands twice")
    return read_names


def _parts(kind: type, high: int, value: object, path: str) -> tuple[Any, ...]:
    found = _list(value, path, high)
    if not found:
        raise ScaffoldError(f"{path}: empty; a list of 1..{high} objects is wanted")
    return tuple(read(kind, item, f"{path}[{index}]") for index, item in enumerate(found))


def _list(value: object, path: str, high: int) -> list[object]:
    if not isinstance(value, list):
        raise ScaffoldError(f"{path}: {_shown(value)} is not a list")
    if len(value) > high:
        raise ScaffoldError(f"{path}: {len(value)} entries; at most {high}")
    return value


def _join(path: str, name: str) -> str:
    return f"{path}.{name}" if path else name


def _shown(value: object) -> str:
    """A value in a message. Containers are only named: what is printed has a bound."""
    if isinstance(value, dict | list):
        return "an object" if isinstance(value, dict) else "a list"
    words = {None: "null", True: "true", False: "false"}
    return words[value] if value is None or isinstance(value, bool) else _cut(ascii(value))


def _cut(word: str) -> str:
    word = word.encode("ascii", "backslashreplace").decode()
    return word if len(word) <= 60 else f"{word[:60]}..."
