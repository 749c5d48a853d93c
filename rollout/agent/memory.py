"""What the policy is shown again: notes, and what stands in a new context for the turns before it. Pure."""

from __future__ import annotations

import json
from collections.abc import Sequence

from envs.tools import bounded
from envs.types import Action
from rollout.scaffold.document import Memory

NOTE = "NOTE:"
ARGUMENT_CHARS = 200  # of a call's arguments in the digest


def take_notes(notes: tuple[str, ...], text: str, room: int) -> tuple[str, ...]:
    """The notes with those of a reply: its lines that begin with NOTE:. The oldest give way when the room is full."""
    new = [line.strip().removeprefix(NOTE).strip() for line in text.splitlines() if line.strip().startswith(NOTE)]
    kept = [*notes, *(note[:room] for note in new if note)] if room else []
    while sum(map(len, kept)) > room:
        kept.pop(0)
    return tuple(kept)


def notes_words(notes: Sequence[str]) -> str:
    return "Your notes:\n" + "\n".join(f"- {note}" for note in notes)


def digest(actions: Sequence[Action], notes: Sequence[str], memory: Memory) -> str:
    """What a new context says about the turns before it: the calls, the newest results in full, older ones short."""
    lines = ["What was done so far:"]
    for age, action in zip(range(len(actions), 0, -1), actions, strict=True):
        arguments = json.dumps(dict(action.arguments), ensure_ascii=False)
        lines.append(f"[{action.turn + 1}] {action.tool} {bounded(arguments, ARGUMENT_CHARS)}")
        lines.append(_result(action.observation, memory, is_new=age <= memory.keep_full))
    return "\n".join(lines) + (f"\n\n{notes_words(notes)}" if notes else "")


def _result(text: str, memory: Memory, *, is_new: bool) -> str:
    if is_new:
        return bounded(text, memory.observation_chars)
    return bounded(text, memory.older_chars) if memory.older_chars else f"({len(text)} characters, not kept)"
