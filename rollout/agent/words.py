"""What the solver is told: the world in a few sentences, then what the scaffold says."""

from __future__ import annotations

from envs.types import Task
from rollout.scaffold.document import Bounds, Scaffold

SYSTEM = """You work on a software task with tools, in a sandbox without a network. The workspace is {workdir}. \
Every reply holds a tool call. The work is graded by tests that you cannot see, and only after it is handed in. \
You have {turns} turns."""
NOTES = "A line of a reply that begins with NOTE: is remembered and shown again."
NO_CALL = "The reply holds no tool call. Call a tool."
CUT = "The reply was cut off before its end; nothing of it was carried out. Write less."
NOT_NOW = "error: {tool} is not a tool of this phase; it has {tools}"
NOT_GREEN = "Not handed in: the visible tests must pass first.\n{output}"
GOES_ON = "Heard; the episode goes on."
AFTER_SUBMIT = "Not carried out: the call came after submit."
EXIT_0 = "[exit 0]"  # how `envs.tools` ends the observation of a command that went well


def system_words(task: Task, bounds: Bounds, scaffold: Scaffold) -> str:
    parts = [SYSTEM.format(workdir=task.workdir, turns=bounds.max_turns), scaffold.instructions]
    parts += [NOTES] * (scaffold.memory.notes_chars > 0)
    phases = scaffold.orchestration.phases
    if len(phases) > 1:
        parts.append("The work has these phases: " + ", ".join(phase.name for phase in phases) + ".")
    return joined(*parts)


def joined(*parts: str) -> str:
    """Those parts that are there, as paragraphs."""
    return "\n\n".join(part for part in parts if part)
