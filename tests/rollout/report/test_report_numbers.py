"""The numbers of the report equal those counted by hand, from the log to the cell of a table."""

import json
import math
from dataclasses import replace

import pytest
from made import evaluation, metrics, proposal, scaffold, store, trajectory
from reading import read, section

from envs.types import Finding, Layer, Outcome, Verdict
from rollout.report import filtering, happened, learning, policy, review, seconds
from rollout.report.curves import curve, group_rates, together, trained_outcomes
from rollout.report.gather import Reader
from rollout.report.page import render
from rollout.run_dir import BatchPlan, Events, Progress, write_plan, write_progress
from rollout.statistics import mean_over_tasks, wilson
from rollout.types import StopReason

PASSED, FAILED, FLAGGED, VETOED, INFRA = Outcome
DECOY = Finding(layer=Layer.MONITOR, rule="decoy_read", evidence="/withheld/test_m.py", turn=2)
TWIN = Finding(layer=Layer.BOUNDARY, rule="twin", evidence="test_a passes where nothing can")


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """Batch 1: edge-1 (1 of 2 valid, beside a flagged and a lost one) and spec-1 (2 of 4). Batch 2: edge-1, all."""
    folder = tmp_path_factory.mktemp("run")
    first, second = proposal("edge-1@0"), proposal("edge-1@0", 1, document=scaffold("Other."))
    lost = Verdict(outcome=INFRA, cause="vanished")
    one = [
        trajectory(first, 0, PASSED),
        trajectory(first, 1, FAILED),
        trajectory(second, 0, verdict=Verdict(outcome=FLAGGED, findings=(DECOY, TWIN))),
        trajectory(second, 1, stop=StopReason.SANDBOX_ERROR, verdict=lost),
    ]
    under = proposal("spec-1@0", category="spec", version=1)
    two = [trajectory(under, place, outcome) for place, outcome in enumerate((PASSED, PASSED, VETOED, FAILED))]
    three = [trajectory(proposal("edge-1@1", version=1), place) for place in range(2)]
    four = [trajectory(proposal("spec-1@1", category="spec", version=1), place) for place in range(2)]
    store(folder, [one, two, three, four], {"spec-1@1": "stale"})
    write_plan(folder, BatchPlan(batch=1, groups=("edge-1@0", "spec-1@0"), policy_version=0))
    write_plan(folder, BatchPlan(batch=2, groups=("edge-1@1",), policy_version=1))
    lines = [
        {"batch": 1, "step": 1, "tokens": 100, "staleness/0": 1.0, "staleness/1": 0.0, "staleness/beyond": 0.0},
        {"batch": 2, "step": 2, "tokens": 300, "staleness/0": 0.5, "staleness/1": 0.25, "staleness/beyond": 0.25},
    ]
    times = [(3.0, 2.0, 1.0), (5.0, 2.0, 0.5)]
    named = [dict(zip(("time/wait_s", "time/step_s", "time/publish_s"), found, strict=True)) for found in times]
    more = [{"kl/engine": 0.5, "dropped/short": 2.0}, {"kl/engine": None, "dropped/short": 1.0}]
    metrics(folder, [{**line, **time, **other} for line, time, other in zip(lines, named, more, strict=True)])
    write_progress(folder, Progress(batch=2, policy_version=2))
    supervisor = Events(folder, "supervisor")
    for child in ("driver", "driver", "engine-0"):
        supervisor.add("died", child=child, code=-9, restarts=0)
    return Reader(folder).read()


@pytest.fixture(scope="module")
def page(run):
    return read(render(Reader(run.folder), run))


def test_reward_is_the_mean_over_groups_of_their_valid_members(run, page):
    rates = group_rates(run)
    assert rates == {"edge": {1: [0.5], 2: [1.0]}, "spec": {1: [0.5]}}
    assert together(rates) == {1: [0.5, 0.5], 2: [1.0]}
    rows = section(page, "learning").tables()["In training"]
    both = [(wilson(1.0, 2), "50.0 %"), (wilson(1.0, 1), "100.0 %")]  # groups that agree: Wilson with a trial each
    shown = [f"{told} [{100 * rate.low:.1f}, {100 * rate.high:.1f}]" for rate, told in both]
    assert rows == [["1 to 1", "2", shown[0]], ["2 to 2", "1", shown[1]]]


def test_windows_hold_every_batch_once_and_their_interval_is_over_groups():
    rates = {batch: [0.0, 1.0] if batch % 2 else [1.0] for batch in range(1, 12)}
    points = curve(rates, 4)
    assert [(point.first, point.last) for point in points] == [(1, 2), (3, 5), (6, 8), (9, 11)]
    assert [point.groups for point in points] == [3, 5, 4, 5]
    assert points[0].rate == mean_over_tasks([0.0, 1.0, 1.0])
    assert curve({}, 4) == []


def test_what_the_drift_statistics_get_of_training_is_counted_by_task(run):
    assert trained_outcomes(run, 1, 1) == {"edge": {"edge-1": [1, 2]}, "spec": {"spec-1": [2, 4]}}
    assert trained_outcomes(run, 1, 2)["edge"] == {"edge-1": [3, 4]}


def test_filter_counts_by_layer_and_rule_and_by_outcome(run, page):
    tables = section(page, "filter").tables()
    assert tables["Findings by layer and rule"] == [  # group 0 of four is in the first half, 2 and 3 in the second
        ["boundary", "twin", "1", "1", "12.5 %", "0.0 %"],
        ["monitor", "decoy_read", "1", "1", "12.5 %", "0.0 %"],
    ]
    assert tables["groups, passed, failed, flagged, vetoed, infra"] == [
        ["0", "1", "1", "1", "0", "1"],
        ["1", "2", "1", "0", "1", "0"],
        ["2", "2", "0", "0", "0", "0"],
        ["3", "2", "0", "0", "0", "0"],
        ["all", "7", "2", "1", "1", "1"],
    ]
    assert "edge-1@0/1/0 turn 2, flagged: /withheld/test_m.py" in section(page, "filter").text
    assert [key[1] for key in filtering.findings(run)] == ["twin", "decoy_read"]
    cut_off = replace(run.trajectories[0], stop=StopReason.CANCELLED)
    assert [filtering.outcome(one) for one in (run.trajectories[0], cut_off)] == ["passed", "infra"]


def test_ages_are_weighed_by_tokens(run, page):
    assert policy.ages(run) == pytest.approx({"0": 0.625, "1": 0.1875, "beyond": 0.1875})
    assert section(page, "policy").tables()["age, share"] == [["0", "62.5 %"], ["1", "18.8 %"], ["beyond", "18.8 %"]]


def test_a_null_among_metrics_is_no_point_and_counts_are_summed(run, page):
    assert policy.series_of(run.metrics, "kl/engine").x == [1]
    tables = section(page, "policy").tables()
    assert tables["metric, first, last, mean, least, most"] == [["kl/engine", "0.5", "0.5", "0.5", "0.5", "0.5"]]
    assert tables["what, over all batches"] == [["dropped/short", "3"]]


def test_seconds_of_a_shared_scaffold_count_once(run, page):
    solutions, scaffolds = 12, 5  # edge-1@0 has two, the others one each
    expected = {"generating": 6.0 * solutions + 2.0 * scaffolds, "using tools": 18.0, "verifying": 6.0}
    assert seconds.episode_seconds(run) == pytest.approx(expected)
    assert seconds.learner_seconds(run) == {"waiting for episodes": 8.0, "training": 4.0, "publishing": 1.5}
    told = section(page, "time").text
    assert "The learner spent 59.3 % of its time waiting for episodes." in told
    assert "spend 77.4 % of their own time generating" in told
    assert ["training", "4 s", "29.6 %", "2 s"] in section(page, "time").tables()["kind, time, share, per batch"]


def test_failures_of_ours_dropped_groups_and_restarts_are_counted(run, page):
    assert happened.infra(run) == {("sandbox_error", "vanished"): 1}
    assert happened.restarts(run) == {"driver": 2, "engine-0": 1}
    tables = section(page, "happened").tables()
    assert tables["Failures of ours: never a lesson for the policy"] == [["sandbox_error", "vanished", "1", "8.3 %"]]
    assert tables["Groups that were not trained on, of 4"] == [["stale", "1"]]
    tiles = [(tile.all("dt")[0].text, tile.all("dd")[0].text) for tile in page.all("dl")[0].all("div")]
    assert dict(tiles)["restarts"] == "3of processes"
    assert dict(tiles)["episodes"] == "1264 % passed"  # 7 of the 11 that were judged


def test_the_result_is_one_sentence_with_both_intervals_and_the_paired_change(tmp_path):
    evaluation(tmp_path, "before", 0, {f"t{n}": ("edge", n % 2) for n in range(10)})
    evaluation(tmp_path, "after", 8, {f"t{n}": ("edge", 3 + n % 2) for n in range(10)})
    run = Reader(tmp_path).read()
    before, after = run.evals[0]["pass@1"], run.evals[1]["pass@1"]
    assert (before["value"], after["value"]) == (0.125, 0.875)
    told = learning.result(run)
    assert told.startswith(f"The held-out pass rate (arm self) rose from 12.5 % [{100 * before['low']:.1f}, ")
    assert "to 87.5 % [" in told
    assert "at version 8: +75.0 [" in told
    assert told.endswith("paired over 10 tasks.")
    evaluation(tmp_path, "again", 9, {f"t{n}": ("edge", 4 * (n in (0, 1, 2, 3, 7, 9))) for n in range(10)})
    evaluation(tmp_path, "before", 0, {f"t{n}": ("edge", 4 * (n // 5)) for n in range(10)})
    assert "did not clearly change: it went from 50.0 %" in learning.result(Reader(tmp_path).read())


def test_evaluations_of_other_tasks_are_another_line(tmp_path):
    for version in (0, 5):
        evaluation(tmp_path, f"held-{version}", version, {f"t{n}": ("edge", version % 4) for n in range(8)})
        evaluation(tmp_path, f"train-{version}", version, {f"u{n}": ("edge", 4) for n in range(9)})
    evaluation(tmp_path, "fixed", 5, {f"t{n}": ("edge", 1) for n in range(8)}, arm="fixed")
    found = learning.arms(Reader(tmp_path).read())
    assert {name: [one["name"] for one in same] for name, same in found.items()} == {
        "self (held-0)": ["held-0", "held-5"],
        "self (train-0)": ["train-0", "train-5"],
        "fixed": ["fixed"],
    }
    assert "paired over 8 tasks" in learning.result(Reader(tmp_path).read())


def test_a_category_that_falls_while_the_mean_rises_is_an_alarm_with_its_statistic(tmp_path):
    def held(low, high):
        rising = {f"e{n}": ("edge", high) for n in range(30)}
        return {**rising, **{f"d{n}": ("decoy", low) for n in range(12)}}

    evaluation(tmp_path, "first", 0, held(low=4, high=1))
    evaluation(tmp_path, "last", 5, held(low=1, high=4))
    page = read(render(Reader(tmp_path), Reader(tmp_path).read()))
    found = section(page, "categories")
    alarm = next(one for one in found.all("div") if one.attributes.get("class") == "alarm")
    assert "decoy (held out, arm self): 75 points below evaluation 0 (q = 0.00" in alarm.text
    assert "while the mean rose by 32.1 points" in alarm.text  # (30 * 75 - 12 * 75) / 42
    (decoy, edge) = found.tables()["Held out, arm self"]
    assert decoy[3].startswith("-75.0 [")
    assert (edge[0], edge[-1]) == ("edge", "none")
    assert "Drift alarm: decoy" in page.all("header")[0].text

    evaluation(tmp_path, "last", 5, held(low=4, high=4))
    assert "alarm" not in read(render(Reader(tmp_path), Reader(tmp_path).read())).all("header")[0].text


def test_the_sample_is_seeded_even_over_categories_and_stays_as_the_run_grows(run):
    grown = [
        trajectory(proposal(f"{name}-{n}@0", category=name), 0)
        for name in ("edge", "spec", "rename")
        for n in range(40)
    ]
    run = replace(run, trajectories=tuple(grown), experiment={"seed": 1})
    found = review.sample(run, 12)
    assert sorted(t.category for t in found) == ["edge"] * 4 + ["rename"] * 4 + ["spec"] * 4
    assert review.sample(replace(run, trajectories=tuple(reversed(grown))), 12) == found
    assert review.sample(replace(run, experiment={"seed": 2}), 12) != found
    fewer = review.sample(replace(run, trajectories=tuple(grown[:-1])), 12)
    assert len({t.id for t in fewer} & {t.id for t in found}) >= 11
    failed = [replace(t, verdict=Verdict(outcome=FAILED)) for t in grown]
    assert review.sample(replace(run, trajectories=tuple(failed)), 12) == []


def test_a_metric_of_the_learner_that_is_not_finite_does_not_spread(tmp_path):
    metrics(
        tmp_path, [{"batch": 1, "time/step_s": math.inf, "loss": 1e400}, {"batch": 2, "time/step_s": 2.0, "loss": 1.0}]
    )
    run = Reader(tmp_path).read()
    assert seconds.learner_seconds(run)["training"] == 2.0
    assert policy.series_of(run.metrics, "loss").y == [1.0]
    assert json.dumps(run.metrics[0]["loss"]) == "Infinity"
