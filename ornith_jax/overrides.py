"""Frozen dataclasses from text: `loss.k1=2` on a command line, or the JSON of a run directory.

One rule for both: a field that does not exist, or a value that is not of the field's type, is refused by name.
"""

from __future__ import annotations

import difflib
from collections.abc import Mapping, Sequence
from dataclasses import MISSING, fields, is_dataclass, replace
from enum import StrEnum
from typing import Any, TypeVar, get_args, get_origin, get_type_hints

from ornith_jax.errors import OrnithError

T = TypeVar("T")

WORDS = {bool: "true or false", int: "a whole number", float: "a number"}


def override(value: T, assignments: Sequence[str]) -> T:
    """A copy of a nested dataclass with fields set: `override(experiment, ["loss.k1=2", "mesh.fsdp=8"])`.

    Numbers and booleans as Python or JSON writes them; the items of a tuple are separated by commas.
    Raises OrnithError naming the field.
    """
    for assignment in assignments:
        path, equals, text = assignment.partition("=")
        if not equals:
            raise OrnithError(f"{assignment!r}: write field=value, such as loss.k1=2")
        value = _set(value, path.strip().split("."), text.strip(), "")
    return value


def build(cls: type[T], values: Mapping[str, Any], where: str = "") -> T:
    """The dataclass `cls` of JSON values. A missing field takes its default. Raises OrnithError naming the field."""
    if not isinstance(values, Mapping):
        raise OrnithError(f"{where.rstrip('.')}: is {values!r}; it must be an object of fields")
    for name in values:
        _check_name(cls, name, where)
    hints = get_type_hints(cls)
    for field in fields(cls):  # type: ignore[arg-type]
        if field.name not in values and field.default is MISSING and field.default_factory is MISSING:
            raise OrnithError(f"{where}{field.name}: is missing")
    return cls(**{name: _from_json(hints[name], value, where + name) for name, value in values.items()})


def _set(value: Any, path: list[str], text: str, where: str) -> Any:
    name, rest = path[0], path[1:]
    _check_name(type(value), name, where)
    kind, full = get_type_hints(type(value))[name], where + name
    if is_dataclass(kind):
        if not rest:
            inner = ", ".join(field.name for field in fields(kind))
            raise OrnithError(f"{full}: is a group of settings; set one of its fields: {inner}")
        return replace(value, **{name: _set(getattr(value, name), rest, text, full + ".")})
    if rest:
        raise OrnithError(f"{full}: has no fields; write {full}=value")
    return replace(value, **{name: _parse(kind, text, full)})


def _check_name(cls: Any, name: str, where: str) -> None:
    known = [field.name for field in fields(cls)]
    if name not in known:
        near = difflib.get_close_matches(name, known, 1)
        hint = f"did you mean {where}{near[0]}?" if near else f"the fields are {', '.join(known)}"
        raise OrnithError(f"{where}{name}: no such field; {hint}")


def _parse(kind: Any, text: str, where: str) -> Any:
    if get_origin(kind) is tuple:
        return tuple(_parse(get_args(kind)[0], item.strip(), where) for item in text.split(",") if item.strip())
    if issubclass(kind, StrEnum):
        return _member(kind, text, where)
    if kind is bool and text.lower() in ("true", "false"):
        return text.lower() == "true"
    if kind in (int, float):
        try:
            return kind(text)
        except ValueError:
            pass
    if kind is str:
        return text
    raise OrnithError(f"{where}: {text!r} is not {WORDS[kind]}")


def _from_json(kind: Any, value: Any, where: str) -> Any:
    if is_dataclass(kind):
        return build(kind, value, where + ".")  # type: ignore[arg-type]
    if get_origin(kind) is tuple and isinstance(value, list | tuple):
        return tuple(_from_json(get_args(kind)[0], item, where) for item in value)
    if isinstance(value, str) and isinstance(kind, type) and issubclass(kind, StrEnum):
        return _member(kind, value, where)
    if kind is float and type(value) is int:
        return float(value)
    if type(value) is not kind:
        raise OrnithError(f"{where}: is {value!r}; it must be {WORDS.get(kind, 'text' if kind is str else 'a list')}")
    return value


def _member(kind: type[StrEnum], text: str, where: str) -> StrEnum:
    if text not in {member.value for member in kind}:
        raise OrnithError(f"{where}: {text!r} is none of {', '.join(kind)}")
    return kind(text)
