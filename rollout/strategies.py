"""Ways to go at a `fledgling` task, each as a scaffold and as what a scripted worker does under it.

A strategy finds the place in some categories and not in others: `tests` needs a traceback, `documents` a text that
fixes the behaviour, and so on. A scaffold offers only its strategy's tools, so choosing it well decides the outcome.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from envs.suites import fledgling
from envs.tools import Call
from envs.types import Task
from rollout.scaffold.document import Bounds, Orchestration, Phase, Scaffold

SUBMIT = Call("submit", {})


@dataclass(frozen=True, slots=True)
class Strategy:
    """`wins`: the categories in which it leads to the place."""

    instructions: str
    goal: str
    tools: tuple[str, ...]
    wins: tuple[str, ...]


STRATEGIES: Mapping[str, Strategy] = {
    "tests": Strategy(
        "Run the tests first. The traceback names the file and the line. Read that file and mend the line.",
        "Follow the traceback.",
        ("run_tests", "read", "edit", "submit"),
        ("traceback",),
    ),
    "documents": Strategy(
        "Read the document that the task names before the code. Then make the code do what it says.",
        "Compare the document with the code.",
        ("read", "edit", "submit"),
        ("spec", "format"),
    ),
    "search": Strategy(
        "Search for the words of the task. Read the file that fits, and mend it there and nowhere else.",
        "Find the place by its words.",
        ("search", "read", "edit", "submit"),
        ("search", "decoy"),
    ),
    "file": Strategy(
        "Read the file that the task names and mend it.",
        "Look at the named file.",
        ("read", "edit", "submit"),
        ("state",),
    ),
    "everywhere": Strategy(
        "Search for every place that uses the name. Mend them one after the other, until none is left.",
        "Change all places.",
        ("search", "edit", "submit"),
        ("rename",),
    ),
}
CATEGORIES = tuple(sorted({category for strategy in STRATEGIES.values() for category in strategy.wins}))


def scaffold_of(name: str, bounds: Bounds, max_turns: int) -> Scaffold:
    """The strategy as a scaffold of one phase."""
    return scaffold_with(STRATEGIES[name], bounds, max_turns)


def scaffold_with(chosen: Strategy, bounds: Bounds, max_turns: int) -> Scaffold:
    """Any strategy, of this table or another."""
    phase = Phase(
        name="work",
        goal=chosen.goal,
        tools=tuple(tool for tool in chosen.tools if tool in bounds.tools),
        max_turns=min(max_turns, bounds.max_turns),
        exit="submit",
    )
    return Scaffold(instructions=chosen.instructions, orchestration=Orchestration(phases=(phase,)))


def strategy_in(text: str) -> str | None:
    """The strategy whose instructions stand in a text, if any."""
    return next((name for name, strategy in STRATEGIES.items() if strategy.instructions in text), None)


def calls_under(name: str, task: Task) -> tuple[Call, ...]:
    """What a worker does who follows the strategy to the letter: the expert's way where it wins; else it looks, finds
    nothing that it could mend, and hands in what was there."""
    if task.category in STRATEGIES[name].wins:
        tools = STRATEGIES[name].tools
        expert = [call for call in fledgling.expert(task) if call.name in tools]
        return _without_last_check(expert) if name == "tests" else tuple(expert)
    return (*_look(name, task), SUBMIT)


def _without_last_check(calls: Sequence[Call]) -> tuple[Call, ...]:
    """The tests are run to find the place; once it is mended there is nothing to be learned from them."""
    return (calls[0], *(call for call in calls[1:] if call.name != "run_tests"))


def _look(name: str, task: Task) -> tuple[Call, ...]:
    if name == "tests":
        return (Call("run_tests", {}),)
    if name in ("search", "everywhere"):
        return (Call("search", {"pattern": _word(task)}),)
    named = re.findall(r"\b[\w/]+\.(?:py|md)\b", task.prompt)
    wanted = [path for path in named if path.endswith(".md") == (name == "documents")]
    return (Call("read", {"path": wanted[0] if wanted else "README.md"}),)


def _word(task: Task) -> str:
    """The first word of the task that looks like one of its names."""
    quoted = re.findall(r"`(\w+)`", task.prompt)
    if quoted:
        return quoted[0]
    known = [word for word in re.findall(r"[A-Za-z_]+", task.prompt) if any(word in path for path in task.visible)]
    return known[0] if known else "return"
