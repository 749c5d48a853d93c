"""The scaffold document: what is accepted, what is refused and in which words, and that nothing else can happen."""

import json
import random
from dataclasses import replace

import pytest

from envs.suites import fledgling
from rollout.errors import ScaffoldError
from rollout.scaffold.defaults import bare_scaffold, default_scaffold
from rollout.scaffold.document import (
    DOCUMENT_CHARS,
    Bounds,
    Memory,
    bounds_of,
    canonical,
    free_text,
    scaffold_id,
)
from rollout.scaffold.parse import REPLY_CHARS, from_document, parse
from rollout.scaffold.prompt import proposal_prompt
from rollout.settings import RolloutSettings

BOUNDS = Bounds(("read", "edit", "run_tests", "submit"), 12, 20)
PHASE = {"name": "work", "goal": "Do it.", "max_turns": 4}


def made(**changes) -> dict:
    """A valid document; a keyword is a top-level field, or a phase's, memory's or a rule's by its prefix."""
    document = {"instructions": "Go.", "orchestration": {"phases": [dict(PHASE)]}}
    for name, value in changes.items():
        where, _, field = name.partition("__")
        if where == "phase":
            document["orchestration"]["phases"][0][field] = value
        elif field:
            document.setdefault(where, {})[field] = value
        else:
            document[name] = value
    return document


def test_a_short_document_takes_the_defaults_and_names_its_tools():
    scaffold = parse(json.dumps(made()), BOUNDS)
    assert scaffold.memory == Memory()
    assert scaffold.orchestration.phases[0].tools == BOUNDS.tools
    assert scaffold.orchestration.phases[0].exit == "turns"


@pytest.mark.parametrize("make", [default_scaffold, bare_scaffold])
@pytest.mark.parametrize("bounds", [BOUNDS, Bounds(("shell",), 1, 1)])
def test_our_own_scaffolds_are_valid_under_any_bounds(make, bounds):
    document = canonical(make(bounds))
    assert canonical(parse(document, bounds)) == document


@pytest.mark.parametrize("wrap", ["{}", "Here it is:\n\n```json\n{}\n```\nDone.", "I {{think}} so: {}", "```\n{}"])
def test_the_document_is_found_with_words_around_it(wrap):
    text = json.dumps(made(instructions='Keep {braces}, ``` fences ``` and "quotes".\n'), indent=1)
    assert parse(wrap.format(text), BOUNDS).instructions.startswith("Keep {braces}")


def test_the_last_document_counts():
    texts = [json.dumps(made(instructions=word)) for word in ("first", "second")]
    assert parse("\nNo, better:\n".join(texts), BOUNDS).instructions == "second"


def test_the_id_is_of_the_content_whatever_the_order_of_keys():
    document = made(memory__keep_full=4, instructions="Über 𝄞")
    turned = json.dumps(dict(reversed(document.items())), indent=3)
    a, b = (canonical(parse(text, BOUNDS)) for text in (json.dumps(document), turned))
    assert scaffold_id(a) == scaffold_id(b)
    assert from_document(a) == parse(a, BOUNDS)
    assert scaffold_id(a) != scaffold_id(canonical(parse(json.dumps(made()), BOUNDS)))


REFUSED = {
    "missing": (
        {"orchestration": {"phases": [PHASE]}},
        "instructions: missing; text, at most 4000 characters",
    ),
    "no phases": (made(orchestration={"phases": []}), "orchestration.phases: empty"),
    "unknown field": (made(tools=["rm"]), "tools: no such field; there are instructions, memory"),
    "unknown inner field": (made(memory__secret=1), "memory.secret: no such field; there are observation_chars"),
    "not an object": (made(memory=[]), "memory: a list is not an object"),
    "wrong type": (made(instructions=3), "instructions: 3 is not a text"),
    "bool is no number": (made(memory__keep_full=True), "memory.keep_full: true is not a whole number"),
    "float is no number": (made(memory__keep_full=3.0), "memory.keep_full: 3.0 is not a whole number"),
    "out of range": (made(memory__keep_full=99), "memory.keep_full: 99 is not within 0..20"),
    "too long": (made(phase__goal="x" * 801), "orchestration.phases[0].goal: 801 characters; at most 800"),
    "surrogate": (made(instructions="\ud800"), "instructions: holds the character U+D800"),
    "nul": (made(instructions="a\0b"), "instructions: holds the character U+0000"),
    "no tool of the task": (
        made(phase__tools=["read", "rm"]),
        "orchestration.phases[0].tools[1]: 'rm' is not one of read, edit, run_tests, submit",
    ),
    "a tool of the world that the task leaves out": (
        made(phase__tools=["shell"]),
        "orchestration.phases[0].tools[0]: 'shell' is not one of read, edit, run_tests, submit",
    ),
    "twice": (made(phase__tools=["read", "read"]), "orchestration.phases[0].tools[1]: 'read' stands twice"),
    "too many turns": (made(phase__max_turns=13), "orchestration.phases: 13 turns in all; the task allows 12"),
    "too many turns together": (
        made(orchestration={"phases": [{**PHASE, "max_turns": 7}] * 2}),
        "orchestration.phases: 14 turns in all; the task allows 12",
    ),
    "too much time": (
        made(orchestration={"phases": [PHASE], "shell_s": 21}),
        "orchestration.shell_s: 21 is more than the task's 20",
    ),
    "unknown exit": (made(phase__exit="when bored"), "orchestration.phases[0].exit: 'when bored' is not one of turns"),
    "exit without its tool": (
        made(phase__exit="submit", phase__tools=["read"]),
        "orchestration.phases[0].exit: 'submit' needs a tool of the phase: one of read",
    ),
    "unknown reaction": (
        made(error_handling={"tool_error": {"then": "panic"}}),
        "error_handling.tool_error.then: 'panic' is not one of continue, back, restart, give_up",
    ),
    "nan": ('{"instructions": NaN}', "the JSON document cannot be read: NaN is not a JSON value"),
    "twin keys": ('{"instructions": "a", "instructions": "b"}', "the field 'instructions' stands twice"),
    "endless number": ('{"instructions": ' + "9" * 5000 + "}", "a number of 5000 digits"),
    "cut": (json.dumps(made())[:-9], "the JSON document cannot be read: "),
    "prose": ("I would rather not.", "the reply holds no JSON object"),
    "a list": ("[1, 2]", "the reply holds no JSON object"),
    "another object": ('{"a": {"b": 1}}', "a: no such field"),
    "too deep": ('{"a":' * 8000, "it is nested too deeply"),
    "huge": ("x" * (REPLY_CHARS + 1), f"the reply has {REPLY_CHARS + 1} characters; at most {REPLY_CHARS}"),
    "huge document": (
        made(
            instructions="x" * 4000,
            orchestration={"phases": [{**PHASE, "goal": "é" * 800, "max_turns": 2}] * 6},
            error_handling={kind: {"hint": '"' * 600} for kind in ("tests_failed", "tool_error", "format_error")},
        ),
        f"at most {DOCUMENT_CHARS}",
    ),
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_is_refused_is_told_exactly(name):
    document, words = REFUSED[name]
    text = document if isinstance(document, str) else json.dumps(document)
    with pytest.raises(ScaffoldError) as caught:
        parse(text, BOUNDS)
    assert words in str(caught.value)
    assert len(str(caught.value)) < 500


def test_verifying_needs_tests_to_run():
    document = made(orchestration={"phases": [PHASE], "verify_before_submit": True})
    assert parse(json.dumps(document), BOUNDS).orchestration.verify_before_submit
    with pytest.raises(ScaffoldError, match="the task has no tool run_tests"):
        parse(json.dumps(document), replace(BOUNDS, tools=("read", "submit")))


def any_json(rng: random.Random, depth: int):
    """A random JSON value that likes the names of the schema."""
    words = [
        "instructions",
        "memory",
        "orchestration",
        "phases",
        "tools",
        "then",
        "exit",
        "\ud83d",
        "é",
        "{",
        "x" * 700,
    ]
    kind = rng.randrange(9 if depth else 6)
    if kind < 6:
        return [None, True, rng.randint(-5, 10 ** rng.randint(0, 30)), rng.random(), rng.choice(words), ""][kind]
    if kind < 8:
        return {rng.choice(words): any_json(rng, depth - 1) for _ in range(rng.randrange(5))}
    return [any_json(rng, depth - 1) for _ in range(rng.randrange(5))]


def mutated(rng: random.Random, value):
    """One random place of a valid document replaced by nonsense."""
    if not isinstance(value, dict | list) or not value or rng.random() < 0.15:
        return any_json(rng, 2)
    key = rng.choice(list(value)) if isinstance(value, dict) else rng.randrange(len(value))
    value = value.copy()
    value[key] = mutated(rng, value[key])
    return value


def test_nothing_that_a_policy_writes_raises_anything_but_a_scaffold_error():
    """6,000 replies: random JSON, mutated and truncated documents, bytes. What is accepted is inside the bounds."""
    rng = random.Random(11)
    base = json.loads(canonical(default_scaffold(BOUNDS)))
    accepted, told = 0, []
    for turn in range(6000):
        match turn % 4:
            case 0:
                text = json.dumps(any_json(rng, 4))
            case 1:
                text = json.dumps(mutated(rng, base))
            case 2:
                text = json.dumps(base)[: rng.randrange(900)] + rng.choice(["", "}", '"}', "]}}}", "\0", "```"])
            case _:
                text = rng.randbytes(rng.randrange(200)).decode("utf-8", "replace") + rng.choice(['{"', "[[{", "{}"])
        try:
            scaffold = parse(text, BOUNDS)
        except ScaffoldError as error:
            told.append(str(error))
            continue
        accepted += 1
        assert sum(phase.max_turns for phase in scaffold.orchestration.phases) <= BOUNDS.max_turns
        assert all(set(phase.tools) <= set(BOUNDS.tools) for phase in scaffold.orchestration.phases)
        assert scaffold.orchestration.shell_s <= BOUNDS.command_s
        assert parse(canonical(scaffold), BOUNDS) == scaffold
        canonical(scaffold).encode()
    assert all(words and words.isprintable() for words in told)
    assert accepted > 50  # some mutations are harmless: the loop above looked at real ones


@pytest.mark.parametrize(
    "text", ["{" * 40_000, '{"a":[' * 7_000, "[" * 49_000, '"' * 49_000, "{}" * 24_000, "\\" * 49_000]
)
def test_hostile_text_is_refused_quickly(text):
    with pytest.raises(ScaffoldError):
        parse(text, BOUNDS)


def test_the_example_in_the_prompt_is_valid_and_every_field_is_told():
    task = fledgling.make("edge", 1)
    bounds = bounds_of(task, RolloutSettings())
    system, user = proposal_prompt(task, bounds, None)
    assert parse(system, bounds).orchestration.phases[1].name == "mend"
    for path in ("memory.refresh_turns", "error_handling.tests_failed.then", "orchestration.phases[].exit"):
        assert f"- {path}: " in system
    assert f"Turns in all: {task.max_turns}" in user
    assert all(path in user for path in task.visible)


def test_bounds_are_the_smaller_of_task_and_settings():
    task = fledgling.make("edge", 1)
    assert bounds_of(task, RolloutSettings(max_turns=3)).max_turns == 3
    assert bounds_of(task, RolloutSettings(max_turns=300)).max_turns == task.max_turns


def test_free_text_holds_what_was_written_without_escapes():
    hint = 'say "no"\n\tonce'
    scaffold = parse(json.dumps(made(error_handling={"tool_error": {"hint": hint}})), BOUNDS)
    assert hint not in canonical(scaffold)
    assert hint in free_text(scaffold)
