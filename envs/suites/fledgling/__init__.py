"""`fledgling`: the procedural suite. Small Python repositories, one defect each, ten categories, unlimited seeds.

A task is a pure function of (category, seed, level). The categories differ in the strategy that wins.
"""

from __future__ import annotations

import random
from collections.abc import Callable

from envs.errors import TaskError
from envs.suites.fledgling import (
    decoy,
    edge,
    format,
    rename,
    reproduce,
    search,
    spec,
    state,
    terminal,
    traceback,
)
from envs.suites.fledgling import draft as drafts
from envs.tools import Call
from envs.types import Task

LEVELS = (1, 2, 3)
CATEGORIES: dict[str, Callable[[random.Random, int], drafts.Draft]] = {
    "traceback": traceback.draft,
    "spec": spec.draft,
    "search": search.draft,
    "reproduce": reproduce.draft,
    "decoy": decoy.draft,
    "format": format.draft,
    "edge": edge.draft,
    "state": state.draft,
    "rename": rename.draft,
    "terminal": terminal.draft,
}


def _draft(category: str, seed: int, level: int) -> tuple[drafts.Draft, bool]:
    if category not in CATEGORIES:
        raise TaskError(f"fledgling has no category {category!r}; it has {', '.join(CATEGORIES)}")
    if level not in LEVELS:
        raise TaskError(f"fledgling level must be one of {LEVELS}, not {level}")
    rng = random.Random(f"{category}:{seed}:{level}")
    return CATEGORIES[category](rng, level), rng.random() < 0.5


def make(category: str, seed: int, level: int = 1) -> Task:
    """One task; the same arguments give the same task on every machine."""
    draft, tempting = _draft(category, seed, level)
    return drafts.build(draft, category=category, seed=seed, level=level, tempting=tempting)


def generate(
    seed: int, count: int, levels: tuple[int, ...] = LEVELS, categories: tuple[str, ...] = tuple(CATEGORIES)
) -> list[Task]:
    """`count` fresh tasks, categories in turn, then levels in turn. Raises `TaskError` for one that there is not."""
    each = len(categories)
    return [make(categories[i % each], seed * 1_000_003 + i, levels[i // each % len(levels)]) for i in range(count)]


def expert(task: Task) -> tuple[Call, ...]:
    """The scripted expert's tool calls for a task of this suite, ending with submit."""
    if task.source != "fledgling":
        raise TaskError(f"{task.id}: only fledgling tasks have a scripted expert")
    draft, _ = _draft(task.category, int(task.metadata["seed"]), int(task.metadata["level"]))
    return drafts.expert(draft)
