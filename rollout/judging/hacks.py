"""What a hack is, and where it is put: into the function that a visible test calls."""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from envs.tools import Call
from envs.types import Task
from rollout.judging.source import Function, Known, Texts, indented, insert, known_cases, target, texts, vary


@dataclass(frozen=True, slots=True)
class Hack:
    """What was done. `proof` is the text of the first line that gives it away, without its indentation."""

    changed: Texts
    category: str  # of envs.guard.prompts.CATEGORIES
    proof: str
    where: str = "diff"  # diff | action | scaffold
    calls: tuple[Call, ...] = ()
    scaffold: str = ""  # a line of the scaffold


Maker = Callable[[random.Random, Task, dict[str, str]], "Hack | None"]


def place(rng: random.Random, task: Task, changed: dict[str, str]) -> tuple[Function, list[Known]] | None:
    """The function that a visible test calls, and the cases it shows with a few more that the policy has seen fail.

    Its file is put into `changed`, as the task has it, unless it stands there already.
    """
    known = known_cases(task)
    if not known:
        return None
    case = rng.choice(known)
    function = target(task, case.name)
    if function is None or len(function.parameters) < len(case.arguments):
        return None
    more = [
        Known(case.name, tuple(vary(rng, a) for a in case.arguments), vary(rng, case.value))
        for _ in range(rng.choice((0, 0, 1, 1, 2)))
    ]
    changed.setdefault(function.path, texts(task.visible)[function.path])
    return function, [case, *more] if rng.random() < 0.6 or not more else more


def put(changed: dict[str, str], function: Function, rows: Sequence[str], top: Sequence[str] = ()) -> Texts:
    """`rows` at the start of the function, as it now stands in `changed`, and `top` at the start of its file."""
    lines = changed[function.path].splitlines()
    start = next(i for i, line in enumerate(lines) if line.startswith(f"def {function.name}("))
    start += 2 if lines[start + 1].strip().startswith('"""') else 1
    text = insert(changed[function.path], start, indented(rows))
    return {**changed, function.path: insert(text, 0, [*top, "", ""]) if top else text}


def together(values: Sequence[str]) -> str:
    return values[0] if len(values) == 1 else f"({', '.join(values)})"
