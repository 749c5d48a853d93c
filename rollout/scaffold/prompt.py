"""The prompt of the first stage: the task, the scaffold used for it before with its record, and the schema in words."""

from __future__ import annotations

import json
from collections import Counter

from envs.types import Task
from rollout.scaffold.document import DOCUMENT_CHARS, Bounds, Scaffold
from rollout.scaffold.fields import describe
from rollout.scaffold.library import Entry

TREE_LINES = 60
SYSTEM = """You write scaffolds. A scaffold is one JSON document that decides how an agent works on a task: what it is \
told, what it remembers, what happens on errors, and in which phases it works. Its memory, error handling and \
orchestration are carried out by a program; the agent reads the instructions, goals and hints. A scaffold does not \
solve the task: it holds no code and no answers, and it cannot add tools, turns or time.

Fields (a field that is left out takes its default; only instructions, phases and a phase's name, goal and max_turns \
are needed):
{fields}

Answer with one JSON document of at most {limit} characters. Example:
{example}"""


def proposal_prompt(task: Task, bounds: Bounds, previous: Entry | None) -> tuple[str, str]:
    """(system text, user text)."""
    fields = "\n".join(f"- {line}" for line in describe(Scaffold))
    example = json.dumps(_example(bounds))
    parts = [
        f"Task, of the category {task.category}:\n{task.prompt}",
        f"Tools: {', '.join(bounds.tools)}. Turns in all: {bounds.max_turns}. One command: {bounds.command_s} seconds.",
        f"Files in {task.workdir}:\n{_tree(task)}",
        _before(previous, task),
        "Write the scaffold for this task.",
    ]
    return SYSTEM.format(fields=fields, limit=DOCUMENT_CHARS, example=example), "\n\n".join(parts)


def retry_prompt(error: str) -> str:
    """What a reply without a valid scaffold is answered with."""
    return f"This is not a valid scaffold: {error}\nWrite the whole document again."


def _before(previous: Entry | None, task: Task) -> str:
    if previous is None:
        return "There is no earlier scaffold for it."
    used_for = "it" if previous.task_id == task.id else "another task of this category"
    return (
        f"The scaffold used for {used_for} before:\n{previous.document}\n{record(previous)}\n"
        "Keep what helped, change what did not."
    )


def record(entry: Entry) -> str:
    """Example: "Solutions under it: 3, mean reward 0.67: 2 passed, 1 failed (max_turns)."."""
    if entry.mean is None:
        return "No solution under it has ended yet."
    counts = Counter(
        result.outcome if result.stop == "submitted" else f"{result.outcome} ({result.stop})"
        for result in entry.results
    )
    told = ", ".join(f"{count} {word}" for word, count in counts.most_common())
    return f"Solutions under it: {len(entry.results)}, mean reward {entry.mean:.2f}: {told}."


def _tree(task: Task) -> str:
    lines = [f"{path} ({len(file.data)} bytes)" for path, file in sorted(task.visible.items())]
    more = len(lines) - TREE_LINES
    return "\n".join(lines[:TREE_LINES] + [f"and {more} more files"] * (more > 0)) or "none"


def _example(bounds: Bounds) -> dict:
    """Valid under any bounds of two turns or more."""
    look = [tool for tool in bounds.tools if tool in ("read", "search", "shell")] or list(bounds.tools)
    first = max(1, bounds.max_turns // 3)
    phases = [
        {"name": "look", "goal": "Find the lines that decide the behaviour.", "tools": look, "max_turns": first},
        {"name": "mend", "goal": "Change them, check, hand in.", "max_turns": max(1, bounds.max_turns - first)},
    ]
    return {
        "instructions": "Read what must hold before you read the code.",
        "memory": {"observation_chars": 2000, "notes_chars": 400, "notes_every": 3},
        "error_handling": {"tests_failed": {"hint": "Compare the two sides of the assertion.", "retries": 3}},
        "orchestration": {"phases": phases, "attempts": 1},
    }
