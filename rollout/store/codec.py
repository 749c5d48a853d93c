"""Frozen values <-> JSON by their type hints. Token ids and log-probabilities are packed, prompts are not repeated.

A turn's prompt repeats the whole conversation before it; only what it adds to the turn before is written
(`shared`: how many ids it takes from there), so a trajectory costs its length, not its length times its turns.
"""

from __future__ import annotations

import base64
import dataclasses
import types
import typing
import zlib
from collections.abc import Mapping
from enum import Enum
from functools import cache
from typing import Any, TypeVar

import numpy as np

from rollout.errors import RolloutError
from rollout.types import Completion, Turn

T = TypeVar("T")
PACKED = {
    (Turn, "prompt_ids"): "<i4",
    (Completion, "token_ids"): "<i4",
    (Completion, "behavior_logprobs"): "<f4",
}


def to_json(value: Any) -> Any:
    """Dataclasses, enums, tuples, mappings, bytes, strings, numbers, None; logprobs are kept as float32."""
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return {field.name: _field_to_json(value, field.name) for field in dataclasses.fields(value)}
    if isinstance(value, Enum):
        return value.value
    if isinstance(value, bytes):
        return pack(value)
    if isinstance(value, tuple | list):
        return _turns_to_json(value) if value and isinstance(value[0], Turn) else [to_json(item) for item in value]
    if isinstance(value, Mapping):
        return {str(key): to_json(item) for key, item in value.items()}
    if value is None or isinstance(value, str | int | float):
        return value
    raise RolloutError(f"a {type(value).__name__} cannot be stored: {value!r:.80}")


def from_json(kind: type[T], data: Any, where: str = "") -> T:
    """The value of type `kind` that `to_json` wrote. Absent fields take their defaults. Raises `RolloutError`."""
    try:
        return _decode(kind, data)
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise RolloutError(f"{where or kind.__name__}: not a stored {kind.__name__}: {error!r}") from None


def pack(data: bytes) -> str:
    """zlib, then base64: ids shrink to a half, logprobs hardly, routed experts to a fifth or less."""
    return base64.b64encode(zlib.compress(data, 1)).decode() if data else ""


def unpack(text: str) -> bytes:
    """The inverse of `pack`."""
    return zlib.decompress(base64.b64decode(text)) if text else b""


def _field_to_json(value: Any, name: str) -> Any:
    dtype = PACKED.get((type(value), name))
    return to_json(getattr(value, name)) if dtype is None else pack(np.asarray(getattr(value, name), dtype).tobytes())


def _turns_to_json(turns: typing.Sequence[Turn]) -> list[dict]:
    found: list[dict] = []
    before: tuple[int, ...] = ()
    for turn in turns:
        shared = _shared(before, turn.prompt_ids)
        added = dataclasses.replace(turn, prompt_ids=turn.prompt_ids[shared:])
        found.append({"shared": shared, **to_json(added)})
        before = turn.prompt_ids + turn.completion.token_ids
    return found


def _turns_from_json(data: list[dict]) -> tuple[Turn, ...]:
    found: list[Turn] = []
    before: tuple[int, ...] = ()
    for item in data:
        added = _decode_fields(Turn, {name: field for name, field in item.items() if name != "shared"})
        turn = dataclasses.replace(added, prompt_ids=before[: item["shared"]] + added.prompt_ids)
        before = turn.prompt_ids + turn.completion.token_ids
        found.append(turn)
    return tuple(found)


def _shared(before: tuple[int, ...], prompt_ids: tuple[int, ...]) -> int:
    """How many first ids both have."""
    if prompt_ids[: len(before)] == before:
        return len(before)
    both = min(len(before), len(prompt_ids))
    return next((place for place in range(both) if before[place] != prompt_ids[place]), both)


def _decode(kind: Any, data: Any) -> Any:
    origin, arguments = typing.get_origin(kind), typing.get_args(kind)
    if dataclasses.is_dataclass(kind):
        return _decode_fields(typing.cast(type, kind), data)
    if origin is tuple:
        if arguments[0] is Turn:
            return _turns_from_json(data)
        each = [arguments[0]] * len(data) if arguments[-1] is Ellipsis else arguments
        return tuple(_decode(inner, item) for inner, item in zip(each, data, strict=True))
    if origin in (typing.Union, types.UnionType):
        return None if data is None else _decode(next(a for a in arguments if a is not types.NoneType), data)
    if isinstance(origin, type) and issubclass(origin, Mapping):
        return {key: _decode(arguments[1], item) for key, item in data.items()}
    if kind is bytes:
        return unpack(data)
    if isinstance(kind, type) and issubclass(kind, Enum):
        return kind(data)
    return float(data) if kind is float else data


def _decode_fields(kind: type, data: Mapping[str, Any]) -> Any:
    hints = _hints(kind)
    if unknown := sorted(set(data) - set(hints)):
        raise ValueError(f"unknown field {unknown[0]!r}")
    fields = {}
    for name, item in data.items():
        dtype = PACKED.get((kind, name))
        fields[name] = (
            _decode(hints[name], item) if dtype is None else tuple(np.frombuffer(unpack(item), dtype).tolist())
        )
    return kind(**fields)


@cache
def _hints(kind: type) -> dict[str, Any]:
    return {field.name: typing.get_type_hints(kind)[field.name] for field in dataclasses.fields(kind)}
