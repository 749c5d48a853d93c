"""What happened to scaffolds from parent to child: documents as flat fields, gains, winners. Pure."""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from rollout.scaffold.library import Entry
from rollout.statistics import wilson

ENOUGH = 2  # results before the mean of a scaffold says anything
Change = tuple[str, Any, Any]
"""(field, before, after); None where there was no such field."""
ById = Mapping[str, Sequence[Entry]]
"""Scaffold id -> its entries, one for each task that it was used for."""


@dataclass(frozen=True, slots=True)
class Step:
    """A scaffold that was rewritten into another one, both with enough results."""

    parent: Entry
    child: Entry

    @property
    def gain(self) -> float:
        return (self.child.mean or 0.0) - (self.parent.mean or 0.0)


def fields(document: str) -> dict[str, Any]:
    """{"memory.keep_full": 4, "orchestration.phases[0].goal": "...", ...}; {} for what is no document."""
    try:
        found = json.loads(document)
    except ValueError:
        return {}
    return dict(_flat(found, "")) if isinstance(found, dict) else {}


def changes(before: str, after: str) -> list[Change]:
    """Field by field, in the order of the documents."""
    old, new = fields(before), fields(after)
    return [(name, old.get(name), new.get(name)) for name in {**old, **new} if old.get(name) != new.get(name)]


def kinds(found: Iterable[Change]) -> set[str]:
    """The names of changed fields, whichever phase they are of: "orchestration.phases[].goal"."""
    return {re.sub(r"\[\d+\]", "[]", name) for name, _, _ in found}


def steps(entries: Sequence[Entry]) -> list[Step]:
    """Every rewrite of which both sides have enough results. A parent of another task speaks through its own."""
    found, known = [], by_id(entries)
    for entry in entries:
        parent = _parent(entry, known)
        if parent is not None and len(entry.results) >= ENOUGH <= len(parent.results):
            found.append(Step(parent, entry))
    return found


def changed_fields(found: Sequence[Step]) -> list[tuple[str, int, int, float]]:
    """(field, rewrites that gained and changed it, rewrites that did not gain and changed it, mean gain of both).

    Most often changed among those that gained first.
    """
    gained: Counter[str] = Counter()
    others: Counter[str] = Counter()
    gains: dict[str, list[float]] = {}
    for step in found:
        for name in kinds(changes(step.parent.document, step.child.document)):
            (gained if step.gain > 0 else others)[name] += 1
            gains.setdefault(name, []).append(step.gain)
    rows = [(name, gained[name], others[name], sum(gains[name]) / len(gains[name])) for name in gains]
    return sorted(rows, key=lambda row: (-row[1], -row[3], row[0]))


def winner(entries: Sequence[Entry]) -> Entry | None:
    """Of one task's scaffolds: the one whose reward is surely high, by the lower end of Wilson's interval."""
    rated = [entry for entry in entries if len(entry.results) >= ENOUGH]
    return max(rated, key=lambda entry: (_sure(entry), -entry.order), default=None)


def path(entry: Entry, known: ById) -> list[Entry]:
    """From the oldest known ancestor to the entry; ancestors of other tasks included."""
    found = [entry]
    while (parent := _parent(found[0], known)) is not None and parent.id not in {one.id for one in found}:
        found.insert(0, parent)
    return found


def by_id(entries: Sequence[Entry]) -> ById:
    found: dict[str, list[Entry]] = {}
    for entry in entries:
        found.setdefault(entry.id, []).append(entry)
    return found


def _parent(entry: Entry, known: ById) -> Entry | None:
    """Of the same task, if it was used there."""
    found = known.get(entry.parent, ())
    return next((one for one in found if one.task_id == entry.task_id), found[0] if found else None)


def _sure(entry: Entry) -> float:
    return wilson(sum(result.reward for result in entry.results), len(entry.results)).low


def _flat(value: Any, where: str) -> Iterable[tuple[str, Any]]:
    if isinstance(value, dict):
        for name, inner in value.items():
            yield from _flat(inner, f"{where}.{name}" if where else name)
    elif isinstance(value, list) and any(isinstance(inner, dict) for inner in value):
        for place, inner in enumerate(value):
            yield from _flat(inner, f"{where}[{place}]")
    else:
        yield where, value
