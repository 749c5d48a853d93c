"""The tasks of a run: loaded or generated, and split by category into those that train and those that never do."""

from __future__ import annotations

from collections import defaultdict
from pathlib import Path

from envs.errors import TaskError
from envs.suites import fledgling
from envs.suites.load import load_tasks
from envs.suites.places import Places
from envs.suites.split import content_hash
from envs.types import Task
from rollout.errors import RolloutError
from rollout.settings import SuiteSettings


def load_suite(settings: SuiteSettings) -> tuple[list[Task], list[Task]]:
    """(tasks to train on, tasks held out). Raises `RolloutError` that names the setting.

    Of every category the share `heldout` is kept back, chosen by the task's content: a copy under another name stays
    on its side.
    """
    if settings.path == "fledgling":
        categories = settings.categories or tuple(fledgling.CATEGORIES)
        try:
            tasks = fledgling.generate(settings.seed, settings.count, settings.levels, categories)
        except TaskError as error:
            raise RolloutError(f"suite.categories, suite.levels: {error}") from None
    else:
        try:
            tasks = load_tasks(Path(settings.path), Places())
        except TaskError as error:
            raise RolloutError(f"suite.path: {error}") from None
    known = {task.category for task in tasks}
    if unknown := sorted(set(settings.categories) - known):
        raise RolloutError(f"suite.categories: no task is of {unknown[0]!r}; there are {', '.join(sorted(known))}")
    chosen = set(settings.categories) or known
    return split([task for task in tasks if task.category in chosen], settings.heldout)


def split(tasks: list[Task], heldout: float) -> tuple[list[Task], list[Task]]:
    """(train, held out), each in the order of `tasks`."""
    by_category: dict[str, list[str]] = defaultdict(list)
    hashes = {task.id: content_hash(task) for task in tasks}
    for task in tasks:
        by_category[task.category].append(hashes[task.id])
    kept_back = {found for same in by_category.values() for found in sorted(same)[: round(heldout * len(same))]}
    return (
        [task for task in tasks if hashes[task.id] not in kept_back],
        [task for task in tasks if hashes[task.id] in kept_back],
    )
