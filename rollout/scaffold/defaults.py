"""The scaffold that nobody learned: the one of the arm `fixed`, and the empty one under which the arm `none` runs."""

from __future__ import annotations

from dataclasses import replace

from rollout.scaffold.document import Bounds, ErrorHandling, Memory, Orchestration, Phase, Rule, Scaffold

INSTRUCTIONS = """Work in small steps. First find the place: read the files that the task names and search for the
words in it. Then make the smallest change that does what the task asks, everywhere it asks for it. Then run the
visible tests, which are only a part of what must hold, and check the cases that they leave out. Then submit."""


def default_scaffold(bounds: Bounds) -> Scaffold:
    """One phase of work with notes and hints. Valid under any bounds."""
    bare = bare_scaffold(bounds).orchestration
    work = replace(bare.phases[0], name="work", goal="Find the cause, mend it, check it, hand it in.")
    return Scaffold(
        instructions=INSTRUCTIONS.replace("\n", " "),
        memory=Memory(notes_chars=1000),
        error_handling=ErrorHandling(
            tests_failed=Rule(hint="Read the first failure and mend its cause, not the test."),
            tool_error=Rule(hint="Read the error and correct the call."),
            format_error=Rule(hint="Write exactly one well-formed tool call."),
        ),
        orchestration=replace(bare, phases=(work,)),
    )


def bare_scaffold(bounds: Bounds) -> Scaffold:
    """The neutral element: one phase with every tool and turn, no texts, no rules, full observations."""
    phase = Phase(
        name="",
        goal="",
        tools=bounds.tools,
        max_turns=bounds.max_turns,
        exit="submit" if "submit" in bounds.tools else "turns",
    )
    return Scaffold(instructions="", orchestration=Orchestration(phases=(phase,)))
