"""From what the policy wrote to a Scaffold inside the bounds, or one exact error. Nothing in the text is executed."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

from rollout.errors import ScaffoldError
from rollout.scaffold.document import CALLED, DOCUMENT_CHARS, Bounds, Phase, Scaffold, canonical
from rollout.scaffold.fields import read

REPLY_CHARS = 50_000  # of the whole reply, prose included
_TRIES = 32  # opening braces that are tried as the start of the document
_EXITS = ("turns", "tests_pass", "submit")


def parse(text: str, bounds: Bounds) -> Scaffold:
    """The scaffold in a reply: bare JSON, or in a fenced block, with prose around it. Raises only `ScaffoldError`.

    Example of an error: "orchestration.phases[1].tools[0]: 'rm' is not one of read, write, edit".
    """
    if len(text) > REPLY_CHARS:
        raise ScaffoldError(f"the reply has {len(text)} characters; at most {REPLY_CHARS}")
    scaffold = _within(read(Scaffold, _find_document(text)), bounds)
    if len(canonical(scaffold)) > DOCUMENT_CHARS:
        raise ScaffoldError(f"the document has {len(canonical(scaffold))} characters; at most {DOCUMENT_CHARS}")
    return scaffold


def from_document(document: str) -> Scaffold:
    """A scaffold from its own canonical JSON, which was inside its bounds when it was written."""
    return read(Scaffold, _find_document(document))


def _find_document(text: str) -> object:
    """The last JSON object of the text that looks like a scaffold; else the first one, whose error is then told."""
    decoder = json.JSONDecoder(object_pairs_hook=_no_twins, parse_constant=_no_constant, parse_int=_short_int)
    position, found, problem = 0, [], ""
    for _ in range(_TRIES):
        start = text.find("{", position)
        if start < 0:
            break
        try:
            value, position = decoder.raw_decode(text, start)
            found.append(value)
        except (ValueError, RecursionError) as error:
            position = start + 1
            problem = problem or _told(error)
    likely = [value for value in found if "orchestration" in value or "instructions" in value]
    if likely:
        return likely[-1]
    if problem:
        raise ScaffoldError(f"the JSON document cannot be read: {problem}")
    if not found:
        raise ScaffoldError("the reply holds no JSON object: write the scaffold as one JSON document")
    return found[0]


def _told(error: Exception) -> str:
    if isinstance(error, RecursionError):
        return "it is nested too deeply"
    if isinstance(error, json.JSONDecodeError):
        return f"{error.msg} at line {error.lineno}, column {error.colno}"
    return str(error)[:200]


def _no_twins(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    value = dict(pairs)
    if len(value) < len(pairs):
        names = [name for name, _ in pairs]
        twin = next(name for index, name in enumerate(names) if name in names[:index])
        raise ValueError(f"the field {ascii(twin)[:60]} stands twice in one object")
    return value


def _short_int(digits: str) -> int:
    if len(digits) > 20:
        raise ValueError(f"a number of {len(digits)} digits")
    return int(digits)


def _no_constant(word: str) -> None:
    raise ValueError(f"{word} is not a JSON value")


def _within(scaffold: Scaffold, bounds: Bounds) -> Scaffold:
    """The same scaffold with the tools of every phase written out. Raises when it leaves the bounds."""
    plan = scaffold.orchestration
    phases = tuple(_phase(phase, f"orchestration.phases[{i}]", bounds) for i, phase in enumerate(plan.phases))
    turns = sum(phase.max_turns for phase in phases)
    if turns > bounds.max_turns:
        raise ScaffoldError(f"orchestration.phases: {turns} turns in all; the task allows {bounds.max_turns}")
    if plan.shell_s > bounds.command_s:
        raise ScaffoldError(f"orchestration.shell_s: {plan.shell_s} is more than the task's {bounds.command_s}")
    if plan.verify_before_submit and "run_tests" not in bounds.tools:
        raise ScaffoldError("orchestration.verify_before_submit: the task has no tool run_tests; write false")
    return replace(scaffold, orchestration=replace(plan, phases=phases))


def _phase(phase: Phase, path: str, bounds: Bounds) -> Phase:
    for index, tool in enumerate(phase.tools):
        if tool not in bounds.tools:
            raise ScaffoldError(f"{path}.tools[{index}]: {tool!a} is not one of {', '.join(bounds.tools)}")
    tools = phase.tools or bounds.tools
    if not phase.exit.startswith(CALLED) and phase.exit not in _EXITS:
        raise ScaffoldError(f"{path}.exit: {phase.exit!a} is not one of {', '.join(_EXITS)}, {CALLED}TOOL")
    needed = {"turns": "", "tests_pass": "run_tests", "submit": "submit"}.get(phase.exit)
    needed = phase.exit.removeprefix(CALLED) if needed is None else needed
    if needed and needed not in tools:
        raise ScaffoldError(f"{path}.exit: {phase.exit!a} needs a tool of the phase: one of {', '.join(tools)}")
    return replace(phase, tools=tools)
