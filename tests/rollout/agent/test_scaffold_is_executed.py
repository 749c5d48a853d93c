"""Changing one field of a scaffold, and nothing else, changes what the driver does: a case for every field."""

from collections.abc import Callable
from dataclasses import dataclass, field

import pytest
from theatre import BREAK, MISSING, PATH, READ, RUN_TESTS, SUBMIT, TASK, Played, document, play

from envs.tools import Call
from rollout.chat.types import Reply
from rollout.scaffold.document import Scaffold
from rollout.scaffold.fields import describe
from rollout.types import StopReason

SOURCE = TASK.visible[PATH].data.decode()
MARK = "Price of cards"  # stands in SOURCE and nowhere else
NOTED = Reply("NOTE: mind the gap", "", (READ,), "")
RESTART = {"error_handling.tool_error.then": "restart", "error_handling.tool_error.retries": 0}
SHORT = {"memory.refresh_turns": 1, "memory.keep_full": 0, "memory.older_chars": 0}
TWO_PHASES = {
    "orchestration.phases": [
        {"name": "look", "goal": "Find it.", "max_turns": 3},
        {"name": "mend", "goal": "Mend it.", "max_turns": 5, "exit": "submit"},
    ]
}
LONG = Call("shell", {"command": "head -c 3000 /dev/zero | tr '\\0' x"})


@dataclass(frozen=True)
class Case:
    """The same turns under two documents that differ in `path` alone. `sees` is true of the second only."""

    path: str
    value: object
    turns: list
    sees: Callable[[Played], bool]
    base: dict = field(default_factory=dict)


def told(*words: str) -> Callable[[Played], bool]:
    return lambda played: all(any(word in text for text in played.told) for word in words)


def stopped(reason: StopReason) -> Callable[[Played], bool]:
    return lambda played: played.trajectory.stop is reason


def told_again(words: str) -> Callable[[Played], bool]:
    return lambda played: sum(words in text for text in played.told) > 1


def last_context(words: str) -> Callable[[Played], bool]:
    """The words stand in the prompt of the last turn."""
    return lambda played: words in played.prompts[-1]


ERRORS = {"tests_failed": [BREAK, RUN_TESTS], "tool_error": [MISSING], "format_error": "no call"}
GAVE_UP = stopped(StopReason.GAVE_UP)

CASES = [
    Case("instructions", "Read the tea leaves.", [[SUBMIT]], lambda played: "tea leaves" in played.system),
    Case("memory.observation_chars", 200, [[LONG], [READ]], told("characters left out")),
    Case("memory.refresh_turns", 1, [[READ], [READ]], lambda played: played.forks == [False, True]),
    Case("memory.keep_full", 1, [[READ], [READ]], last_context(MARK), SHORT),
    Case("memory.older_chars", 2000, [[READ], [READ]], last_context(MARK), SHORT),
    Case("memory.notes_chars", 100, [NOTED, [READ]], told("Your notes:\n- mind the gap"), {"memory.notes_every": 1}),
    Case("memory.notes_every", 1, [NOTED, [READ]], told("Your notes:\n- mind the gap"), {"memory.notes_chars": 100}),
    *(
        Case(f"error_handling.{kind}.hint", "Breathe.", [turn, [READ]], told("Breathe."))
        for kind, turn in ERRORS.items()
    ),
    *(
        Case(
            f"error_handling.{kind}.retries",
            1,
            [turn, turn],
            GAVE_UP,
            {
                f"error_handling.{kind}.then": "give_up",
                f"error_handling.{kind}.retries": 2,
            },
        )
        for kind, turn in ERRORS.items()
    ),
    *(
        Case(f"error_handling.{kind}.then", "give_up", [turn], GAVE_UP, {f"error_handling.{kind}.retries": 0})
        for kind, turn in ERRORS.items()
    ),
    Case(
        "error_handling.tool_error.then",
        "back",
        [[READ], [READ], [READ], [MISSING]],
        told_again("Phase 1 of 2"),
        {
            **TWO_PHASES,
            "error_handling.tool_error.retries": 0,
        },
    ),
    Case(
        "error_handling.tool_error.then",
        "restart",
        [[BREAK, MISSING], [READ]],
        told(SOURCE),
        {
            "error_handling.tool_error.retries": 0,
            "orchestration.attempts": 2,
        },
    ),
    Case("orchestration.phases.0.name", "dig", [[READ]], told("Phase 1 of 1, dig: Do it.")),
    Case("orchestration.phases.0.goal", "Dig deep.", [[READ]], told("Phase 1 of 1, work: Dig deep.")),
    Case(
        "orchestration.phases.0.tools", ["read", "submit"], [[LONG]], told("error: shell is not a tool of this phase")
    ),
    Case("orchestration.phases.0.max_turns", 1, [[READ], [READ]], told("Phase 2 of 2"), TWO_PHASES),
    Case("orchestration.phases.0.exit", "tests_pass", [[RUN_TESTS], [READ]], told("Phase 2 of 2"), TWO_PHASES),
    Case("orchestration.phases.0.exit", "submit", [[SUBMIT], [READ]], told("Phase 2 of 2"), TWO_PHASES),
    Case("orchestration.phases.0.exit", "called:read", [[READ], [READ]], told("Phase 2 of 2"), TWO_PHASES),
    Case(
        "orchestration.phases.0.exit",
        "turns",
        [[READ]],
        stopped(StopReason.SUBMITTED),
        {"orchestration.phases.0.max_turns": 1},
    ),
    Case("orchestration.verify_before_submit", True, [[BREAK, SUBMIT], [READ]], told("Not handed in", "ValueError")),
    Case("orchestration.attempts", 2, [[MISSING], [READ]], told("Attempt 2 of 2"), RESTART),
    Case("orchestration.attempts", 2, [[MISSING], [READ]], lambda played: played.opened == 2, RESTART),
    Case(
        "orchestration.shell_s",
        1,
        [[Call("shell", {"command": "sleep 2; echo awake"})]],
        told("[killed: timeout limit]"),
    ),
]


@pytest.mark.parametrize("case", CASES, ids=lambda case: f"{case.path}={str(case.value)[:12]}")
def test_one_field_changes_what_the_driver_does(case: Case):
    settings = {"max_turns": TASK.max_turns, "format_errors": 5}
    before = play(document(case.base), *case.turns, **settings)
    after = play(document({**case.base, case.path: case.value}), *case.turns, **settings)
    assert not case.sees(before), before.told
    assert case.sees(after), (after.trajectory.stop, after.trajectory.verdict, after.told)


def test_every_field_of_the_schema_has_a_case():
    fields = {line.split(":")[0].replace("[]", ".0") for line in describe(Scaffold)}
    rules = {f"error_handling.{kind}" for kind in ERRORS}
    leaves = fields - {"orchestration.phases"} - rules | {
        f"{rule}.{leaf}" for rule in rules for leaf in ("hint", "retries", "then")
    }
    assert leaves == {case.path for case in CASES}
