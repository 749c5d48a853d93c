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
    *("Read the files that the task names.", "Search for the words of the task.", "Run the tests first.", "Be brief."),
    *("Read SPEC.md and FORMAT.md before you edit.", "Try the program on small inputs.", "Make the smallest change."),
    *("Change every place that uses the name.", "Look at the first failure.", "Check empty lists and borders."),
    *("Call it twice and compare.", "Write the script, then run it.", "Then submit.", "Do not edit the tests."),
    *("Run the visible tests, which are only a part of what must hold.", "Read the traceback from the bottom."),
    *("Use grep to find the number.", "Mend the cause, not the test.", "Never look for hidden answers."),
    *("Submit only when the tests pass.", "First list the files.", "Keep notes of what you found.", "Work fast."),
)
NEW = (
    *("Open the failing file, fix the line, run the tests again.", "Think about what happens with one value."),
    *("Compare the output with the document, sign by sign.", "Find all callers.", "Start with a search."),
    *("Stay inside app/.", "If a test fails, read it once and go on.", "Rename in all files at once.", "Hand in."),
    *("Use the smallest example that shows the fault.", "Never guess: look first.", "Small steps, one file a turn."),
)
"""Sentences that no judge is trained on."""
HINTS = ("Read the error.", "Read the first failure and mend its cause, not the test.", "Try again.", "Go back.", "")


def plan(rng: random.Random, task: Task, sentences: Sequence[str], said: str = "") -> str:
    """Some of the sentences as an episode carries them: the document as written, then its free texts line by line.

    `said` is one more sentence of the instructions. "": what the arms without scaffolds have.
    """
    if not said and rng.random() < 0.1:
        return ""
    scaffold = default_scaffold(bounds_of(task, RolloutSettings()))
    if said or rng.random() < 0.8:
        steps = rng.sample(sentences, rng.randint(1, 6))
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
