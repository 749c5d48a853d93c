"""The demonstrations: strategies that win where they say so, choices that are no better than they are meant to be."""

import asyncio
import functools
from collections import Counter

import pytest

from envs.guard.boundary import grader
from envs.sandbox.open import open_sandbox
from envs.suites import fledgling
from envs.suites.play import play
from envs.types import Outcome
from rollout.chat import train_tokenizer
from rollout.chat.chat import load_chat
from rollout.demonstrate import TURNS, Habits, demonstrator
from rollout.scaffold.document import bounds_of, canonical
from rollout.scaffold.parse import parse
from rollout.scaffold.prompt import proposal_prompt
from rollout.settings import RolloutSettings
from rollout.strategies import CATEGORIES, STRATEGIES, calls_under, scaffold_of, strategy_in
from tests.envs.conftest import base_image  # noqa: F401

SETTINGS = RolloutSettings()
WINS = [(name, category) for name, strategy in STRATEGIES.items() for category in strategy.wins]


@pytest.fixture(scope="module")
def chat(tmp_path_factory):
    folder = tmp_path_factory.mktemp("tokenizer") / "made"
    train_tokenizer.save(train_tokenizer.train(tasks=20), folder)
    return load_chat(folder, "qwen3_5")


@pytest.mark.parametrize(("name", "category"), WINS)
def test_a_strategy_wins_with_its_own_tools_where_it_says_so(base_image, name, category):  # noqa: F811
    task = fledgling.make(category, 11)
    calls = calls_under(name, task)
    assert {call.name for call in calls} <= set(STRATEGIES[name].tools)

    async def outcome() -> Outcome:
        open_one = functools.partial(open_sandbox, backend="bubblewrap")
        return (await grader(open_one)(await play(task, calls, open_one))).outcome

    assert asyncio.run(outcome()) is Outcome.PASSED


def test_elsewhere_it_changes_nothing_and_hands_in():
    for name, strategy in STRATEGIES.items():
        for category in set(CATEGORIES) - set(strategy.wins):
            calls = calls_under(name, fledgling.make(category, 3))
            assert not {"edit", "write", "shell"} & {call.name for call in calls}
            assert calls[-1].name == "submit"
            assert {call.name for call in calls} <= set(strategy.tools)


def test_every_category_has_one_strategy_and_its_scaffold_is_valid_and_told_apart():
    assert Counter(category for _, category in WINS) == dict.fromkeys(CATEGORIES, 1)
    bounds = bounds_of(fledgling.make("decoy", 1), SETTINGS)
    for name in STRATEGIES:
        document = canonical(scaffold_of(name, bounds, 99))
        assert strategy_in(document) == name
        assert canonical(parse(document, bounds)) == document


def test_proposals_are_valid_differ_for_one_task_and_know_little(chat):
    tasks = [fledgling.make(category, seed) for category in ("state", "decoy") for seed in range(150)]
    say, twin = (demonstrator(chat, tasks, SETTINGS, Habits(insight=0.3)) for _ in range(2))
    hits, turns, changed = 0, Counter(), 0
    for task in tasks:
        bounds = bounds_of(task, SETTINGS)
        prompt = chat.open(*proposal_prompt(task, bounds, None))
        text = say(prompt).reply.text
        assert twin(prompt).reply.text == text
        changed += say(prompt).reply.text != text
        scaffold = parse(text, bounds)
        turns[scaffold.orchestration.phases[0].max_turns] += 1
        hits += task.category in STRATEGIES[strategy_in(text)].wins
    expected = 0.3 + 0.7 / len(STRATEGIES)
    assert abs(hits / len(tasks) - expected) < 4 * (expected * (1 - expected) / len(tasks)) ** 0.5
    assert set(turns) == set(TURNS)
    assert changed > 0.8 * len(tasks)


def test_with_full_insight_every_scaffold_fits_and_allows_the_turns_that_the_habits_name(chat):
    tasks = [fledgling.make(category, seed) for category in ("traceback", "decoy", "state") for seed in range(20)]
    say, turns = demonstrator(chat, tasks, SETTINGS, Habits(insight=1.0, turns=(4, 6))), set()
    for task in tasks:
        bounds = bounds_of(task, SETTINGS)
        text = say(chat.open(*proposal_prompt(task, bounds, None))).reply.text
        assert task.category in STRATEGIES[strategy_in(text)].wins
        turns.add(parse(text, bounds).orchestration.phases[0].max_turns)
    assert turns == {4, 6}


def test_fixed_lines_become_one_token_each_and_the_text_stays_the_same(tmp_path, chat):
    tasks = [fledgling.make("state", seed) for seed in range(20)]
    openings = [[*proposal_prompt(task, bounds_of(task, SETTINGS), None)] for task in tasks]
    lines = train_tokenizer.fixed_lines(openings)
    assert len(lines) > 20
    assert not any(task.prompt in line for task in tasks for line in lines)
    tokenizer = train_tokenizer.train(tasks=20, split=train_tokenizer.PLAIN_SPLIT, phrases=lines)
    train_tokenizer.save(tokenizer, tmp_path / "tokenizer")
    short = load_chat(tmp_path / "tokenizer", "qwen3_5")
    for opening in openings[:3]:
        ids, long_ids = short.open(*opening), chat.open(*opening)
        assert short.decode(ids) == chat.decode(long_ids)
        assert len(ids) < 0.4 * len(long_ids)
