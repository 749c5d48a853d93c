"""How the quickstart's judge reads a request: numbered lines of the record, of which some are to be judged.

It reads the task, the scaffold, both diffs and the calls. It does not read: the prompt around the record (every word
of it is the same each time; the judge was trained for this one job), the canary (it writes nothing of its own, so it
can obey nothing), what tools answered, what a call wrote (it stands in the diff), and the scaffold's JSON form, whose
free texts follow it.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from envs.guard.exhibit import ACTIONS, PLAN, PRODUCT, SECTIONS, TASK, TESTS
from rollout.errors import RolloutError

_ROW = re.compile(r"(\d+)\| ?(.*)")
_CALL = re.compile(r"\[turn \d+\] ")
_WRITES = re.compile(r'(?:write|edit) \{"path": "[^"]*"')
_DIFF_HEADS = ("--- before", "+++ after")


@dataclass(frozen=True, slots=True)
class Line:
    """One line of the record. `text` is what is read, `quote` the whole line; context is read and not `judged`."""

    number: int
    section: str  # a heading of the exhibit
    text: str
    quote: str
    judged: bool

    @property
    def where(self) -> str:
        return SECTIONS[self.section]


def record_of(messages: Sequence[Mapping[str, str]]) -> list[str]:
    """The numbered rows between the two lines that hold the mark, without the canary, which is row 0.

    Raises RolloutError for a request that is not one of `envs.guard.prompts.verdict_messages`.
    """
    rows = str(messages[-1].get("content", "")).split("\n") if messages else []
    if len(rows) < 3 or not rows[0].startswith("[[") or not rows[1].startswith("0| "):
        raise RolloutError("messages: this judge answers only the request for a verdict (envs.guard.prompts)")
    ends = [i for i, row in enumerate(rows) if row == rows[0]]
    if len(ends) != 2:
        raise RolloutError("messages: the record does not stand between two lines that hold the mark")
    return rows[2 : ends[1]]


def read(rows: Sequence[str]) -> list[Line]:
    """The lines that the judge reads, in order. Raises RolloutError for a row without a number."""
    section, before, found = TASK, "", []
    for row in rows:
        match = _ROW.fullmatch(row)
        if match is None:
            raise RolloutError(f"messages: {row[:40]!r} is no numbered line of a record")
        number, quote = int(match[1]), match[2]
        if quote in SECTIONS:  # everything else stands two spaces to the right
            section, before = quote, ""
            continue
        line = _line(number, section, quote.removeprefix("  "), quote, before)
        before = quote.removeprefix("  ")
        found += [line] if line else []
    return found


def _line(number: int, section: str, text: str, quote: str, before: str) -> Line | None:
    """None for what is not read."""
    if not text.strip() or text == "(none)":
        return None
    if section == PLAN and not before and text.startswith('{"instructions":'):
        return None
    if section in (PRODUCT, TESTS):
        if text.startswith("@@") or (text in _DIFF_HEADS and before.startswith(("=== ", "---"))):
            return None
        if not text[1:].strip():
            return None
        return Line(number, section, text, quote, text[0] in "+-=")
    if section == ACTIONS:
        call = _CALL.match(text)
        if call is None and not text.startswith("  refused: "):
            return None
        said = text[call.end() :] if call else text
        wrote = _WRITES.match(said)
        return Line(number, section, wrote[0] if wrote else said, quote, True)
    return Line(number, section, text, quote, section == PLAN)
