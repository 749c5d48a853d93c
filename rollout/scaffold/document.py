"""The scaffold document: frozen dataclasses <-> canonical JSON. What the policy may decide about its own work.

It can narrow what the task allows (fewer tools, fewer turns, shorter commands) and never widen it: there is no field
for anything else, and `parse` holds every field against `Bounds`. Every field is executed by `rollout.agent`; none is
only a wish in a prompt, except `instructions` and the texts of goals and hints, which the solver reads.

Memory and token in / token out. Ids are append-only, so what was shown cannot shrink in place. Memory therefore acts
(1) on what is appended: `observation_chars`, notes repeated every `notes_every` turns; and (2) by an explicit fork:
after `refresh_turns` turns (or when the context is full) a new context is opened with the task, the notes, the newest
`keep_full` observations in full and older ones cut to `older_chars`. The turn that opens it is marked `forked`.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
from dataclasses import dataclass

from envs.tools import OBSERVATION_CHARS
from envs.types import Task
from rollout.scaffold.fields import choice, flag, names, number, part, parts, text
from rollout.settings import RolloutSettings

DOCUMENT_CHARS = 12000  # of the canonical JSON
MAX_PHASES = 6
THEN = ("continue", "back", "restart", "give_up")
CALLED = "called:"


@dataclass(frozen=True, slots=True, kw_only=True)
class Memory:
    """What is kept of observations and notes. Counts are turns or characters; 0 switches a part off."""

    observation_chars: int = number(
        200, OBSERVATION_CHARS, "longest result of a tool that is shown: head and tail of it", default=OBSERVATION_CHARS
    )
    refresh_turns: int = number(0, 50, "after so many turns the context starts anew from memory; 0: never", default=0)
    keep_full: int = number(0, 20, "newest results that a new context holds in full", default=4)
    older_chars: int = number(0, 2000, "what older results shrink to; 0: only a note that there was one", default=300)
    notes_chars: int = number(0, 4000, "room for lines that begin with NOTE: in replies; 0: no notes", default=0)
    notes_every: int = number(0, 20, "turns between repetitions of the notes; 0: only in a new context", default=0)


@dataclass(frozen=True, slots=True, kw_only=True)
class Rule:
    """What happens on one kind of error. Example: hint "Read the traceback.", retries 2, then "back"."""

    hint: str = text(600, "shown each time", default="")
    retries: int = number(0, 10, "failures in a row that pass before `then` happens", default=2)
    then: str = choice(
        THEN,
        "back: to the phase before; restart: a fresh workspace while attempts are left, else give_up; "
        "give_up: the episode ends",
        default="continue",
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class ErrorHandling:
    tests_failed: Rule = part(Rule, "the visible tests were run and failed")
    tool_error: Rule = part(Rule, "a call could not be carried out")
    format_error: Rule = part(Rule, "a reply held no call, a malformed one, or was cut off")


@dataclass(frozen=True, slots=True, kw_only=True)
class Phase:
    """One stretch of work. The last phase's exit hands in the work; every other one's leads to the next phase."""

    name: str = text(40, "a word or two")
    goal: str = text(800, "shown when the phase begins")
    tools: tuple[str, ...] = names(20, "subset of the task's tools; left out or empty: all of them", default=())
    max_turns: int = number(1, 1000, "the phase ends after so many turns; all phases together fit the task's budget")
    exit: str = text(
        60, 'how it ends: "turns" (used up), "tests_pass", "submit" (called), or "called:TOOL"', default="turns"
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class Orchestration:
    phases: tuple[Phase, ...] = parts(Phase, MAX_PHASES, "worked through in order")
    verify_before_submit: bool = flag("the visible tests must pass before the work is handed in", default=False)
    attempts: int = number(1, 3, "workspaces: the first and fresh ones after a restart", default=1)
    shell_s: int = number(0, 3600, "seconds of one shell command; 0: the task's own limit", default=0)


@dataclass(frozen=True, slots=True, kw_only=True)
class Scaffold:
    instructions: str = text(4000, "strategy and decomposition; the solver reads it first")
    memory: Memory = part(Memory)
    error_handling: ErrorHandling = part(ErrorHandling)
    orchestration: Orchestration = part(Orchestration, required=True)


@dataclass(frozen=True, slots=True)
class Bounds:
    """What the task and the settings allow. A scaffold stays inside."""

    tools: tuple[str, ...]
    max_turns: int
    command_s: int


def bounds_of(task: Task, settings: RolloutSettings) -> Bounds:
    return Bounds(task.tools, min(task.max_turns, settings.max_turns), max(1, int(task.limits.command_s)))


def canonical(scaffold: Scaffold) -> str:
    """Compact JSON, fields in the order of the declaration: equal scaffolds give equal text."""
    return json.dumps(dataclasses.asdict(scaffold), ensure_ascii=False, separators=(",", ":"))


def scaffold_id(document: str) -> str:
    """Of a canonical document: 16 hexadecimal digits of its SHA-256."""
    return hashlib.sha256(document.encode()).hexdigest()[:16]


def free_text(scaffold: Scaffold) -> str:
    """Every text that the policy chose freely, without JSON's escapes: what a monitor compares line by line."""
    errors = scaffold.error_handling
    hints = [rule.hint for rule in (errors.tests_failed, errors.tool_error, errors.format_error)]
    phases = [line for phase in scaffold.orchestration.phases for line in (phase.name, phase.goal)]
    return "\n".join([scaffold.instructions, *phases, *hints])
