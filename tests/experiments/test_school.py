"""The drills of the warm start: what is asked for stands above, and nothing else is asked for."""

from dataclasses import replace

import numpy as np

from envs.suites.split import content_hash
from experiments.quickstart import get_config
from experiments.school import config, drill_sequences, lesson_tasks
from experiments.study import FRESH
from ornith_jax.models import decoder
from ornith_jax.params import count
from rollout.suite import load_suite


def test_what_a_drill_asks_for_was_said_before_after_the_same_token():
    asked = 0
    for ids, mask in drill_sequences(1000, 50, seed=3):
        assert (ids.shape, mask.shape) == ((32,), (32,))
        for at in np.flatnonzero(mask):
            before = [i for i in range(1, at) if (ids[i - 1], ids[i]) == (ids[at - 1], ids[at])]
            assert before, f"token {at} was never said after {ids[at - 1]}"
            asked += 1
    assert asked > 50 * 10


def test_drills_repeat_themselves_by_seed():
    first, again, other = ([ids.tolist() for ids, _ in drill_sequences(1000, 5, seed=s)] for s in (1, 1, 2))
    assert first == again != other


def test_the_tasks_of_the_lessons_are_never_trained_on_nor_measured_on():
    suite = get_config().suite
    studied = load_suite(replace(suite, seed=suite.seed + FRESH))
    lessons = {content_hash(task) for task in lesson_tasks(suite)}
    assert len(lessons) > 200
    for part in (*load_suite(suite), *studied):
        assert not lessons & {content_hash(task) for task in part}


def test_the_model_is_as_small_as_the_docs_say_and_the_budgets_fit_it():
    assert 500_000 < count(decoder.table(config(1500))) < 700_000
    assert get_config().engine.max_len <= config(1500).max_positions
