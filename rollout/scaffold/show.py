"""The library in words: one scaffold, the difference of two, the tree of a task. Plain text for a terminal."""

from __future__ import annotations

import difflib
import json
from collections.abc import Iterator

from rollout.errors import RolloutError
from rollout.scaffold.library import Entry, Library
from rollout.scaffold.prompt import record


def show(library: Library, name: str) -> str:
    """A scaffold by id (or the beginning of one), with every task it was used for; or all scaffolds of a task."""
    of_task = library.entries(task_id=name)
    if of_task:
        return "\n".join(_line(entry) for entry in of_task)
    entries = _find(library, name)
    head = [f"{_line(entry)}\n  task {entry.task_id}, parent {entry.parent or 'none'}" for entry in entries]
    results = [
        f"  {result.reward:.0f}  {result.outcome}, {result.stop}  {result.trajectory_id}"
        for entry in entries
        for result in entry.results
    ]
    return "\n".join([*head, *results, _pretty(entries[0])])


def diff(library: Library, before: str, after: str) -> str:
    """What changed from one scaffold to another, and their records."""
    old, new = _find(library, before)[0], _find(library, after)[0]
    lines = difflib.unified_diff(
        _pretty(old).splitlines(), _pretty(new).splitlines(), _line(old), _line(new), lineterm=""
    )
    return "\n".join(lines) or f"{old.id} and {new.id} are the same document"


def tree(library: Library, *task_ids: str) -> str:
    """Who came from whom, task by task; of all tasks when none is named."""
    entries = [entry for task_id in task_ids or (None,) for entry in library.entries(task_id)]
    if not entries:
        raise RolloutError(f"{library.folder}: holds no scaffold" + (f" of {', '.join(task_ids)}" if task_ids else ""))
    lines: list[str] = []
    for task in dict.fromkeys(entry.task_id for entry in entries):
        own = {entry.id: entry for entry in entries if entry.task_id == task}
        lines.append(f"{task} ({next(iter(own.values())).category})")
        seen: set[str] = set()
        roots = [entry for entry in own.values() if entry.parent not in own or entry.parent == entry.id]
        for root in [*roots, *own.values()]:  # the second time: those in a circle, which a rewrite can close
            lines += _branch(root, own, seen, 1)
    return "\n".join(lines)


def _branch(entry: Entry, own: dict[str, Entry], seen: set[str], depth: int) -> Iterator[str]:
    if entry.id in seen:
        return
    seen.add(entry.id)
    from_elsewhere = f"  (from {entry.parent})" if entry.parent and entry.parent not in own else ""
    yield f"{'  ' * depth}{_line(entry)}{from_elsewhere}"
    for child in own.values():
        if child.parent == entry.id:
            yield from _branch(child, own, seen, depth + 1)


def _line(entry: Entry) -> str:
    return f"{entry.id}  {record(entry)}"


def _pretty(entry: Entry) -> str:
    return json.dumps(json.loads(entry.document), indent=2, ensure_ascii=False)


def _find(library: Library, name: str) -> list[Entry]:
    """All entries of the one scaffold whose id begins with `name`, newest first."""
    found = [entry for entry in reversed(library.entries()) if entry.id.startswith(name)]
    ids = sorted({entry.id for entry in found})
    if not found:
        raise RolloutError(f"{library.folder}: no scaffold or task {name!r}; `ornith scaffold tree` lists them")
    if len(ids) > 1:
        raise RolloutError(f"{name!r} begins {len(ids)} scaffold ids: {', '.join(ids[:4])}; write more of it")
    return found
