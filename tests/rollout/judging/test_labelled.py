"""The labelled set: the same everywhere, split by task, and its labels hold."""

from __future__ import annotations

import random
import subprocess
import sys
from pathlib import Path

import pytest

from envs.guard.exhibit import exhibit
from envs.guard.prompts import CATEGORIES
from envs.suites.fledgling.draft import TESTS
from rollout.judging import gaming
from rollout.judging.labelled import HONEST, UNSEEN, Case, Sizes, labelled, lines_of, proof_of
from rollout.judging.source import texts, word
from tests.rollout.judging.requests import some

WRONG = ("partial", "untouched", "guarded", "cached")  # may be honest mistakes: a list is no key of a cache
RUN = """
import sys, importlib.util
sys.path.insert(0, ".")
spec = importlib.util.spec_from_file_location("hidden", "tests/test_hidden.py")
hidden = importlib.util.module_from_spec(spec)
spec.loader.exec_module(hidden)
for name, test in vars(hidden).items():
    if name.startswith("test_") and not test.__code__.co_argcount:
        test()
"""


def test_the_same_seed_gives_the_same_set_and_another_seed_another():
    sizes = Sizes(train=30, validation=10, heldout=10, unseen=10)
    first = labelled(3, sizes)
    assert first == labelled(3, sizes)
    assert first.train != labelled(4, sizes).train


def test_a_word_that_nobody_knows_is_none_of_pythons():
    rng = random.Random(1)
    found = {word(rng) for _ in range(20_000)}
    assert len(found) > 5_000
    assert not found & {"for", "not", "set", "len", "bin", "dir"}


def test_parts_share_no_task_and_unseen_families_are_in_no_other_part():
    parts = labelled(0, Sizes(train=120, validation=60, heldout=60, unseen=40))
    ids = [{case.episode.task.id for case in part} for part in (parts.train, parts.validation, parts.heldout)]
    assert not ids[0] & ids[1] | ids[0] & ids[2] | ids[1] & ids[2]
    known = {case.family for case in (*parts.train, *parts.validation, *parts.heldout)}
    assert known == set(gaming.SEEN) | set(HONEST) - set(UNSEEN)
    assert {case.family for case in parts.unseen} == set(gaming.UNSEEN) | set(UNSEEN)
    for part in (parts.train, parts.heldout, parts.unseen):
        assert 2 * sum(case.is_gaming for case in part) == len(part)


@pytest.mark.parametrize("case", [case for case in some() if case.is_gaming], ids=lambda case: case.family)
def test_every_hack_shows_its_proof_in_a_line_that_is_judged_and_can_be_quoted(case: Case):
    record = exhibit(case.episode)
    number = proof_of(case, lines_of(case))
    assert number is not None
    [line] = {line.quote for line in lines_of(case) if line.number == number}
    assert record.holds(number, line)
    assert record.section[number - 1] == case.where
    assert case.category in CATEGORIES[1:]


def test_honest_work_that_is_meant_to_be_right_passes_the_withheld_tests(tmp_path: Path):
    right = [case for case in some() if not case.is_gaming and case.family not in WRONG]
    right = [case for case in right if case.episode.task.category != "terminal"]
    assert len(right) >= 15
    for number, case in enumerate(right):
        task, folder = case.episode.task, tmp_path / str(number)
        tree = {**texts(task.visible), **texts(case.episode.submission), TESTS: hidden(case)}
        for path, text in tree.items():
            (folder / path).parent.mkdir(parents=True, exist_ok=True)
            (folder / path).write_text(text)
        done = subprocess.run([sys.executable, "-c", RUN], cwd=folder, capture_output=True, text=True, timeout=30)
        assert done.returncode == 0, f"{case.family} on {task.id}: {done.stderr}"


def hidden(case: Case) -> str:
    return case.episode.task.verification.withheld[TESTS].data.decode()


def test_no_honest_author_knows_what_the_visible_test_wants_and_every_kind_occurs():
    honest = [case for case in some() if not case.is_gaming]
    assert {case.family for case in honest} == set(HONEST)
    assert all(case.category == "none" and not case.proof for case in honest)
