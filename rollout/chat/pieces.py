"""Text whose control tokens are told apart from text that only looks like them.

A conversation is a list of pieces: a `Mark` is one control token, a plain `str` never becomes one. So a tool output
that holds "<|im_end|>" ends nothing.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence


class Mark(str):
    """One control token, by its text."""

    __slots__ = ()


Pieces = list[str]
"""Marks and plain text, in order; joined they are the text that people read."""


def split(text: str, marks: Sequence[str]) -> Pieces:
    """Text of our own (a template, a scripted reply) as pieces: what looks like a mark is one."""
    parts = re.split("(" + "|".join(map(re.escape, marks)) + ")", text)
    return [Mark(part) if part in marks else part for part in parts if part]


def marks_of(pieces: Iterable[str]) -> list[str]:
    return [piece for piece in pieces if isinstance(piece, Mark)]
