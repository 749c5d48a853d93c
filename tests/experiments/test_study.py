"""Studies: tokens and differences by hand-counted numbers, and what the runner asks for, against a fake `ornith`."""

import json
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import pytest

from envs.suites.split import content_hash
from envs.types import Outcome
from experiments import ablation_scaffold, ablation_staleness, filter_off, gain_curve, star, study
from experiments.study import FRESH, Study, StudyArm, main, versions
from experiments.study_page import binned, render
from experiments.study_results import (
    affordable,
    collect,
    costs,
    differences,
    pool,
    seed_costs,
    table,
    tokens_by_version,
)
from ornith_jax.checks import check
from ornith_jax.experiment import load
from rollout.run_dir import Progress, write_progress
from rollout.suite import load_suite
from rollout.types import Completion, Finish, Stage, Trajectory, Turn
from tests.rollout.report import made

STUDIES = [module.STUDY for module in (ablation_scaffold, ablation_staleness, gain_curve, star, filter_off)]
PAIR = {"base": ("", 0), "other": ("", 0)}


def turn(tokens: int, *spans: tuple[int, int], stage: Stage = Stage.SOLUTION) -> Turn:
    ids = tuple(range(tokens))
    done = Completion(token_ids=ids, behavior_logprobs=(0.0,) * tokens, versions=spans, finish=Finish.STOP)
    return Turn(stage=stage, prompt_ids=(1,), completion=done)


def episode(group: str, number: int, *turns: Turn, version: int = 0, outcome: Outcome = Outcome.PASSED) -> Trajectory:
    return made.trajectory(made.proposal(group, version=version), number, outcome, turns=turns)


def written(folder: Path, tokens: Mapping[int, int], arm: str = "self") -> None:
    """A run whose version v sampled tokens[v], and which made one version more."""
    groups = [[episode(f"t@{version}", 0, turn(n, (0, version)), version=version)] for version, n in tokens.items()]
    made.store(folder, groups)
    made.metrics(folder, [{"batch": v + 1, "step": v + 1, "reward/mean": v / 10} for v in tokens])
    write_progress(folder, Progress(batch=len(tokens), policy_version=len(tokens), is_finished=True))


def test_tokens_are_counted_by_the_version_that_sampled_them_and_a_shared_proposal_once():
    scaffold = turn(10, (0, 3), (4, 4), stage=Stage.SCAFFOLD)
    siblings = [
        episode("t@0", 0, scaffold, turn(5, (0, 4))),
        episode("t@0", 1, scaffold, turn(2, (0, 5)), turn(1, (0, 5))),
    ]
    assert tokens_by_version(siblings) == {3: 4, 4: 6 + 5, 5: 3}
    assert tokens_by_version([*siblings, episode("t@1", 0, scaffold)]) == {3: 8, 4: 17, 5: 3}


def test_a_version_costs_what_those_before_it_sampled():
    assert costs({0: 100, 1: 50, 3: 7, 4: 9}, newest=4) == [0, 100, 150, 150, 157]
    assert costs({0: 100}, newest=1, start=40) == [40, 140]
    assert costs({}, newest=0) == [0]


@pytest.mark.parametrize(("budget", "version"), [(0, 0), (99, 0), (100, 1), (149, 1), (150, 3), (156, 3), (10**6, 4)])
def test_the_newest_version_within_the_budget_is_taken(budget: int, version: int):
    assert affordable([0, 100, 150, 150, 157], budget) == version


def test_evaluations_stand_at_even_shares_of_the_budget():
    steps = list(range(0, 1100, 100))
    assert versions(steps, 1000, 1) == [10]
    assert versions(steps, 1000, 4) == [2, 5, 7, 10]
    assert versions(steps, 450, 2) == [2, 4]
    assert versions([400, 600, 800, 1000], 1000, 2, is_child=True) == [0, 1, 3]


def test_pooling_keeps_tasks_of_two_seeds_apart_and_pairs_by_task(tmp_path):
    def one(name: str, passed: Mapping[str, tuple[str, int]]) -> dict:
        made.evaluation(tmp_path, name, 1, dict(passed), samples=2)
        return json.loads((tmp_path / "evals" / f"{name}.json").read_text())

    before = {0: one("a", {"x": ("edge", 0), "y": ("spec", 2)}), 1: one("b", {"x": ("edge", 1), "y": ("spec", 0)})}
    after = {0: one("c", {"x": ("edge", 2), "y": ("spec", 2)}), 1: one("d", {"x": ("edge", 2), "y": ("spec", 0)})}
    assert pool(before)["edge"] == {"0/x": [0, 2], "1/x": [1, 2]}
    found = differences(before, after)
    assert list(found) == ["all", "edge", "spec"]
    assert found["all"]["value"] == pytest.approx((1.0 + 0 + 0.5 + 0) / 4)
    assert found["edge"]["value"] == pytest.approx(0.75)
    assert found["spec"] == {"value": 0.0, "low": 0.0, "high": 0.0}
    assert differences(before, {0: None, 1: after[1]})["all"]["value"] == pytest.approx(0.25)


def test_arms_are_compared_where_they_have_spent_what_the_cheapest_spent(tmp_path):
    """`base` spends 300 in all; `other` has spent 250 at version 1 and 500 at version 2: it counts as version 1 was."""
    seed = tmp_path / "seed0"
    written(seed / "base", {0: 100, 1: 100, 2: 100})
    written(seed / "other", {0: 250, 1: 250})
    tasks = {"x": "edge", "y": "edge", "z": "spec"}
    for arm, version, passed in (("base", 3, 0), ("other", 1, 2), ("other", 2, 4)):
        per_task = {id: (category, passed) for id, category in tasks.items()}
        made.evaluation(seed / arm, f"v{version:07d}", version, per_task)
    made.evaluation(seed / "before", "self", 0, {id: (category, 1) for id, category in tasks.items()})
    found = collect(tmp_path, "made", "Is it so?", "base", PAIR, {})
    base, other = found["arms"]["base"], found["arms"]["other"]
    assert other["tokens"] == {0: {"sampled": 500, "used": 250}}
    assert base["tokens"] == {0: {"sampled": 300, "used": 300}}
    assert base["difference"] == {}
    assert other["difference"]["all"]["value"] == pytest.approx(0.5)
    assert other["gain"]["all"]["value"] == pytest.approx(0.25)
    assert base["gain"]["all"]["value"] == pytest.approx(-0.25)
    assert other["difference_by_seed"] == {0: pytest.approx(0.5)}
    assert [point["tokens"] for point in other["curve"]] == [0, 250, 500]
    assert [point["rates"]["all"]["value"] for point in other["curve"]] == [0.25, 0.5, 1.0]
    assert other["reward"] == {1: 0.0, 2: 0.1}
    assert "+50.0" in table(found)
    assert "+50.0" in render(found)


def test_an_arm_that_goes_on_from_another_pays_for_what_that_one_sampled(tmp_path):
    seed = tmp_path / "seed0"
    written(seed / "narrow", {0: 100, 1: 100, 2: 100})
    written(seed / "widened", {0: 30})
    found = seed_costs(seed, {"narrow": ("", 0), "widened": ("narrow", 2), "not run": ("", 0)})
    assert found == {"narrow": [0, 100, 200, 300], "widened": [200, 230]}


def test_marks_are_shares_of_the_episodes_by_the_version_they_began_at(tmp_path):
    folder = tmp_path / "seed0" / "base"
    groups = [[episode("a@0", 0, turn(5, (0, 0)))], [episode("b@0", n, turn(5, (0, 1)), version=1) for n in (0, 1)]]
    made.store(folder, groups)
    made.metrics(folder, [{"batch": 1, "step": 1}])
    marks = {"odd": lambda one: one.solution_index == 1}
    found = collect(tmp_path, "made", "?", "base", {"base": ("", 0)}, marks)
    assert found["arms"]["base"]["marks"] == {"odd": {0: 0.0, 1: 0.5}}
    assert "Share of training episodes: odd" in render(found)


def test_a_page_of_nothing_says_so_and_words_are_escaped(tmp_path):
    found = collect(tmp_path, "<b>", "a < b?", "base", PAIR, {})
    page = render(found)
    assert "Nothing has run yet" in page
    assert "<h1>&lt;b&gt;</h1>" in page
    assert table(found).startswith("a < b?")


def test_bins_are_means_of_neighbours():
    assert binned({1: 1.0, 2: 3.0, 3: 5.0, 4: 9.0}, 2) == ([1.5, 3.5], [2.0, 7.0])
    assert binned({}, 2) == ([], [])


@pytest.mark.parametrize("one", STUDIES, ids=lambda one: one.experiment)
def test_every_arm_of_every_study_is_a_valid_experiment(one: Study):
    assert one.baseline in one.arms
    seen: list[str] = []
    for name, arm in one.arms.items():
        experiment = load(one.experiment, [*arm.overrides, "model=tiny-qwen3.5-moe"])
        check(experiment)
        assert not arm.after or arm.after in seen
        if arm.after:
            parent = load(one.experiment, one.arms[arm.after].overrides)
            assert 0 < arm.at < parent.train.steps
        seen.append(name)
    assert len(set(one.arms.values())) == len(one.arms)


def test_without_w_no_admitted_token_weighs_less_and_groups_under_way_let_the_lag_happen():
    for name, arm in ablation_staleness.STUDY.arms.items():
        found = load("ablation_staleness", arm.overrides)
        rollout, loss = found.rollout, found.loss
        assert rollout.groups_in_flight == rollout.groups_per_step * (rollout.max_staleness + 1)
        assert (loss.k1 >= rollout.max_staleness) == ("flat" in name or rollout.max_staleness <= 1)


def test_the_arms_of_the_scaffold_study_sample_as_many_solutions_of_a_task():
    found = [load("ablation_scaffold", arm.overrides).rollout for arm in ablation_scaffold.STUDY.arms.values()]
    assert {one.scaffolds_per_task * one.solutions_per_scaffold for one in found} == {8}
    assert {one.arm.value for one in found} == {"self", "fixed", "none"}


@pytest.mark.parametrize("categories", ["", gain_curve.NARROW])
def test_no_arm_trains_on_a_held_out_task_of_a_study(categories: str):
    trained, _ = load_suite(load("gain_curve", [word for word in [categories] if word]).suite)
    _, heldout = load_suite(load("gain_curve", [f"suite.seed={FRESH}"]).suite)
    assert len(heldout) > 90
    assert not {content_hash(task) for task in trained} & {content_hash(task) for task in heldout}


class FakeOrnith:
    """Stands in for the commands: leaves the files that they would leave, and remembers what was asked."""

    def __init__(self, tokens: Mapping[str, Mapping[int, int]]) -> None:
        self.tokens, self.asked = tokens, []

    def __call__(self, *words: object) -> None:
        said = [str(word) for word in words]
        self.asked.append(said)
        if said[0] == "train":
            folder = Path(said[said.index("--run") + 1])
            written(folder, self.tokens[folder.name])
        else:
            out, name = Path(said[said.index("--out") + 1]), said[said.index("--name") + 1]
            arm = said[said.index("--arm") + 1]
            made.evaluation(out, name, 1, {"x": ("edge", 1)}, samples=int(said[said.index("--samples") + 1]), arm=arm)


def test_a_study_runs_each_part_once_and_the_same_command_runs_nothing_twice(tmp_path, monkeypatch, capsys):
    one = replace(
        gain_curve.STUDY,
        arms={
            "base": StudyArm(),
            "other": StudyArm(overrides=("rollout.arm=fixed",), after="base", at=1),
        },
        baseline="base",
        points=1,
    )
    fake = FakeOrnith({"base": {0: 100, 1: 100}, "other": {0: 60, 1: 60}})
    monkeypatch.setattr(study, "_ornith", fake)
    words = ["train.steps=2", "--seeds", "3", "--run", str(tmp_path), "--model", "warm{seed}", "--samples", "2"]
    main(one, words)
    trained = [said for said in fake.asked if said[0] == "train"]
    played = [said for said in fake.asked if said[0] == "eval"]
    assert ["model=warm3" in said for said in trained] == [True, False]
    assert f"model={tmp_path}/seed3/base/weights/v0000001" in trained[1]
    assert all({"seed=3", "suite.seed=3", "train.keep_versions=3", "train.steps=2"} <= set(said) for said in trained)
    assert [Path(said[1]).name for said in played] == ["warm3", "warm3", "v0000002", "v0000000", "v0000001"]
    assert all({"suite.seed=1003", "rollout.reward=filtered"} <= set(said) for said in played)
    assert [said[said.index("--arm") + 1] for said in played] == ["self", "fixed", "self", "fixed", "fixed"]
    main(one, words)
    assert len(fake.asked) == 7
    assert (tmp_path / "study.html").exists()
    assert json.loads((tmp_path / "study.json").read_text())["seeds"] == [3]
    with pytest.raises(SystemExit, match="other --tasks or --samples"):
        main(one, [*words[:-1], "1"])
    capsys.readouterr()
