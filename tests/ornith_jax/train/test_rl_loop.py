"""The loop as a whole: learner, driver and a real engine against the plain synchronous loop, and against kills."""

import json
import shutil

import pytest

from ornith_jax.errors import OrnithError
from ornith_jax.train import rl_loop
from ornith_jax.train.metrics import read
from ornith_jax.train.versions import Versions
from rollout.planned import read_groups
from rollout.published import newest
from rollout.run_dir import plans, read_events, read_progress
from rollout.store.index import Index
from tests.ornith_jax.train.pipeline import one_device, plain, relaxed, same_weights, small, together

STEPS = 6


@pytest.fixture(autouse=True)
def alone(monkeypatch):
    one_device(monkeypatch)


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """A run that nobody disturbed: (its folder, its experiment, the last state)."""
    folder = tmp_path_factory.mktemp("whole")
    with pytest.MonkeyPatch.context() as patch:
        one_device(patch)
        experiment = small(folder, steps=STEPS, staleness=2)
        return folder / "run", experiment, together(folder / "run", experiment)


@pytest.mark.slow
def test_at_lag_0_the_asynchronous_run_is_the_plain_synchronous_loop_number_for_number(tmp_path):
    experiment = small(tmp_path, steps=5, staleness=0)
    expected, state = plain(tmp_path / "plain", experiment)
    found = together(tmp_path / "run", experiment)
    same_weights(state, found)
    records = read(tmp_path / "run" / "metrics.jsonl")
    assert len(records) == len(expected) == 5
    for record, wanted in zip(records, expected, strict=True):
        assert {name: record[name] for name in wanted} == wanted
    assert len({record["reward/mean"] for record in records}) > 1, "nothing happened"
    assert all(record["staleness/max"] == 0 for record in records)
    assert all(abs(record["kl/engine_fresh"]) < 1e-5 for record in records)


@pytest.mark.slow
def test_no_token_that_is_trained_on_is_older_than_the_bound(whole):
    run, experiment, state = whole
    records, index = read(run / "metrics.jsonl"), Index(run / "trajectories")
    assert [record["batch"] for record in records] == list(range(1, STEPS + 1))
    assert max(record["staleness/max"] for record in records) > 0, "nothing was asynchronous"
    for plan in plans(run):
        groups, _ = read_groups(index, plan)
        turns = [turn for group in groups for member in group.trajectories for turn in member.turns]
        ages = {plan.policy_version - version for turn in turns for _, version in turn.completion.versions}
        assert ages <= {0, 1, 2}
    assert read_progress(run).is_finished
    assert newest(run / "weights")[0] == int(state.step) == STEPS
    synced = [event for event in read_events(run) if event["event"] == "engine_synced"]
    assert [event["policy_version"] for event in synced] == list(range(STEPS + 1))
    assert all(event["canary_max_diff"] < 1e-4 for event in synced)
    assert len(list((run / "weights").iterdir())) == experiment.train.keep_versions


class Killed(Exception):
    pass


POINTS = {
    "before the first version": (Versions, "publish", 1, "before"),
    "after the first version": (Versions, "publish", 1, "after"),
    "before a step": (rl_loop, "make_samples", 3, "before"),
    "between step and publication": (Versions, "publish", 4, "before"),
    "between publication and metrics": (Versions, "publish", 4, "after"),
    "between metrics and progress": (rl_loop.Learner, "_say", 4, "before"),
    "after progress": (rl_loop.Learner, "_say", 4, "after"),
    "before a checkpoint": (rl_loop.Checkpoints, "save", 2, "before"),
    "before the end": (rl_loop.Learner, "_say", STEPS + 2, "before"),
}


@pytest.mark.slow
@pytest.mark.parametrize("point", POINTS)
def test_a_learner_that_is_killed_anywhere_comes_by_the_same_numbers(whole, tmp_path, point):
    run, experiment, state = whole
    again = tmp_path / "run"
    again.mkdir()
    for name in ("batches", "trajectories"):  # what the driver left: the plans are for ever
        shutil.copytree(run / name, again / name)
    place, name, count, when = POINTS[point]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(place, name, killing(getattr(place, name), count, when))
        with pytest.raises(Killed):
            rl_loop.train_rl(experiment, again)
    published = {folder.name: (folder / "READY").read_text() for folder in (again / "weights").glob("v*")}
    same_weights(rl_loop.train_rl(experiment, again), state)
    assert numbers(again) == numbers(run)
    assert read_progress(again) == read_progress(run)
    for folder, ready in published.items():  # what was published once is never written again
        left = again / "weights" / folder / "READY"
        assert not left.exists() or left.read_text() == ready
    for folder in (again / "weights").iterdir():
        assert (folder / "READY").read_text() == (run / "weights" / folder.name / "READY").read_text()


def killing(function, count: int, when: str):
    """The function, which dies at its call of that number, before or after it has worked."""
    calls = []

    def wrapped(*args, **options):
        calls.append(1)
        if len(calls) == count and when == "before":
            raise Killed
        found = function(*args, **options)
        if len(calls) == count:
            raise Killed
        return found

    return wrapped


def numbers(run) -> list[dict]:
    records = read(run / "metrics.jsonl")
    return [{name: value for name, value in record.items() if not name.startswith("time/")} for record in records]


@pytest.mark.slow
def test_a_longer_run_goes_on_and_a_stopped_one_too(whole, tmp_path):
    run, experiment, _ = whole
    shutil.copytree(run, tmp_path / "run")
    shutil.copytree(run.parent / "model", tmp_path / "model")
    together(tmp_path / "run", relaxed(experiment, steps=STEPS + 2))
    assert read_progress(tmp_path / "run").batch == STEPS + 2
    assert numbers(tmp_path / "run")[:STEPS] == numbers(run)
    again = tmp_path / "again"
    again.mkdir()
    for name in ("batches", "trajectories"):
        shutil.copytree(run / name, again / name)
    asked = iter([False] * 5 + [True] * 100)
    stopped = rl_loop.train_rl(experiment, again, stop=lambda: next(asked))
    assert 0 < int(stopped.step) < STEPS
    assert not read_progress(again).is_finished
    rl_loop.train_rl(experiment, again)
    assert numbers(again) == numbers(run)


def test_plans_of_another_run_are_refused(whole, tmp_path):
    run, experiment, _ = whole
    again = tmp_path / "run"
    again.mkdir()
    for name in ("batches", "trajectories"):
        shutil.copytree(run / name, again / name)
    plan = again / "batches" / "00000002.json"
    plan.write_text(json.dumps(json.loads(plan.read_text()) | {"policy_version": 9}))
    with pytest.raises(OrnithError, match="batch 2 was planned at policy version 9, but the learner is at 1"):
        rl_loop.train_rl(experiment, again)
