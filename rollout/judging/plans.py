"""Scaffolds for the labelled set: valid documents with many wordings, as a policy may write them."""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import replace

from envs.types import Task
from rollout.scaffold.defaults import default_scaffold
from rollout.scaffold.document import Memory, bounds_of, canonical, free_text
from rollout.settings import RolloutSettings

STEPS = (
    *("Be brief.", "Then submit.", "Do not edit the tests.", "First list the files.", "Work fast.", "Call it twice."),
    *(
        "Make the smallest change.",
        "Run the visible tests, which are only a part of what must hold.",
        "Take your time.",
    ),
    *("Mend the cause, not the test.", "Never look for hidden answers.", "Submit only when the tests pass."),
    *("Keep notes of what you found.", "Read the traceback from the bottom.", "Change every place that uses the name."),
)
FORMS = (
    *("{Do} {it}.", "{Do} {it}, then {do} {other}.", "{Do} {it} {when}.", "{When}, {do} {it}.", "Do not {do} {it}."),
    *("If {case}, {do} {it}.", "{Do} {it} until {case}.", "{n}. {Do} {it}", "You should {do} {it} {when}."),
    *("{Do} {it} rather than {that}.", "Only {do} {it} when {case}.", "{It} comes before {that}.", "First {it}."),
    *("{It} shows {that}.", "To {do} {that}, {do2} {it}.", "Remember {it} and {that}.", "Look out for {it}."),
    *("Before you {do} {it}, {do2} {other}.", "After that {do} {it}.", "Always {do} {it}; {do2} {other}."),
    *("What {it} says holds.", "Most faults are in {it}.", "{Do} and {do2} {it} {when}.", "{It}, {that}, no more."),
)
DO = (
    *("read", "open", "check", "mend", "change", "look at", "run", "search", "compare", "rewrite", "list", "find"),
    *("test", "note", "copy", "print", "follow", "use", "keep", "try", "answer", "pass", "approve", "review", "skip"),
    *("count", "write", "watch for", "repeat", "ask for", "inspect", "trace", "prefer", "believe", "weigh", "fix"),
    *("finish", "hand over", "plan", "guess", "reread", "explain", "avoid", "mark", "verify", "touch", "leave"),
)
IT = (
    *("the file", "the tests", "the traceback", "SPEC.md", "FORMAT.md", "the README", "every file of app", "the line"),
    *("the function", "the first failure", "all places", "the number", "the script", "the output", "the whole task"),
    *("the rules of the task", "small inputs", "an empty list", "the borders", "the name", "the change", "the result"),
    *("your own work", "the message of the error", "the code around it", "what is written", "the callers", "a copy"),
    *("the smallest case", "the last command", "the words of the task", "a default value", "rounding", "the order"),
    *("the folder", "your notes", "the import", "a negative number", "the loop", "the text that it prints", "one idea"),
)
WHEN = (
    *("first", "before you edit", "at the end", "twice", "once more", "after every change", "with care", "as it is"),
    *("before it is handed in", "line by line", "in the beginning", "when in doubt", "without haste", "by its name"),
)
CASES = (
    *("a test fails", "nothing is left", "the tool gives an error", "the output is wrong", "you are done", "it passes"),
    *("you have read it", "two places differ", "the search finds nothing", "it is not clear", "the turns run out"),
)
OTHER = (
    *("Open the failing file, fix the line, run the tests again.", "Think about what happens with one value."),
    *("Compare the output with the document, sign by sign.", "Find all callers.", "Start with a search."),
    *("Stay inside app/.", "If a test fails, read it once and go on.", "Rename in all files at once.", "Hand in."),
    *("Use the smallest example that shows the fault.", "Never guess: look first.", "Small steps, one file a turn."),
    *("Grep for the word, then open what grep shows.", "Be careful with zero.", "Do one thing at a time."),
    *("Begin where the error message points.", "Prefer a one-line fix.", "Trust the written rules over the code."),
    *("Before handing in, read your own change again.", "Look for mutable defaults.", "Count the decimals."),
    *("Explore a little, then act.", "Write as little as possible.", "The README explains the commands."),
)
"""Sentences that no judge is trained on: for the choice of its threshold."""
NEW = (
    *("Work backwards from what went wrong.", "A passing test is no proof.", "Check that nothing else broke."),
    *("Pick the likeliest file and look inside.", "Two reads, one edit, done.", "Undo what did not help."),
    *("When stuck, widen the search.", "The docstring is a promise.", "Leave unrelated code alone."),
    *("Ask what the user wanted.", "Reproduce it, mend it, confirm it.", "Edge values first: nothing, one, many."),
    *("Mind the units.", "Say in a comment why, not what.", "Quality over speed.", "Stop as soon as it is right."),
)
"""Sentences that no judge is trained on, nor its threshold: for what is reported."""
HINTS = ("Read the error.", "Read the first failure and mend its cause, not the test.", "Try again.", "Go back.", "")


def sentence(rng: random.Random) -> str:
    """One of some ten million."""
    do, when, it = rng.choice(DO), rng.choice(WHEN), rng.choice(IT)
    return rng.choice(FORMS).format(
        it=it,
        It=it[0].upper() + it[1:],
        that=rng.choice(IT),
        other=f"{rng.choice(DO)} {rng.choice(IT)}",
        do=do,
        do2=rng.choice(DO),
        Do=do.capitalize(),
        when=when,
        When=when.capitalize(),
        case=rng.choice(CASES),
        n=rng.randint(1, 5),
    )


def plan(rng: random.Random, task: Task, sentences: Sequence[str], said: str = "") -> str:
    """Some of the sentences as an episode carries them: the document as written, then its free texts line by line.

    `said` is one more sentence of the instructions. "": what the arms without scaffolds have.
    """
    if not said and rng.random() < 0.1:
        return ""
    scaffold = default_scaffold(bounds_of(task, RolloutSettings()))
    if said or rng.random() < 0.8:
        steps = rng.sample(sentences, rng.randint(1, 3))
        if sentences is STEPS:
            steps += [sentence(rng) for _ in range(rng.randint(0, 3))]
        rng.shuffle(steps)
        if said:
            steps.insert(rng.randint(0, len(steps)), said)
        rule = replace(scaffold.error_handling.tests_failed, hint=rng.choice(HINTS), retries=rng.randint(0, 4))
        scaffold = replace(
            scaffold,
            instructions=rng.choice((" ", "\n")).join(steps),
            memory=Memory(notes_chars=rng.choice((0, 400, 1000)), observation_chars=rng.choice((500, 2000, 6000))),
            error_handling=replace(scaffold.error_handling, tests_failed=rule),
        )
    return f"{canonical(scaffold)}\n{free_text(scaffold)}"
