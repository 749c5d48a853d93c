"""Nested advantages: by hand, against the definition, and an exclusion that changes nobody else's."""

from __future__ import annotations

import itertools
import random
from dataclasses import replace

import pytest

from ornith_jax.experiment import AdvantageSettings
from ornith_jax.rl.advantage import group_advantages
from rollout.types import Arm
from tests.ornith_jax.rl.groups import group
from tests.reference import advantage as reference

P, F, X, V, I, L, BAD = "passed", "failed", "flagged", "vetoed", "infra", "late_infra", "bad_scaffold"  # noqa: E741
KINDS = (P, P, F, F, X, V, I, L)
DEFAULT = AdvantageSettings()
ALL_SETTINGS = [
    AdvantageSettings(baseline=b, scale=s, siblings=g, vetoed=v, scaffold_weight=0.5)
    for b, s, g, v in itertools.product(
        ("leave_one_out", "mean"), ("none", "std"), ("scaffold", "task"), ("included", "excluded")
    )
]


def by_name(table, settings=DEFAULT, *, K=4, arm=Arm.SELF):
    """({"n/k": A}, {n: A}, reasons)."""
    found = group_advantages(group(table, arm=arm), settings, K)
    return {name[4:]: a for name, a in found.solutions.items()}, dict(found.scaffolds), dict(found.excluded)


def test_leave_one_out_by_hand():
    """Scaffold 0 passes 2 of 4, scaffold 1 passes 1 of 2 (two are excluded), scaffold 2 none of 2."""
    solutions, scaffolds, excluded = by_name([[P, P, F, F], [P, F, X, I], [F, F]])
    assert solutions == pytest.approx(
        {"0/0": 2 / 3, "0/1": 2 / 3, "0/2": -2 / 3, "0/3": -2 / 3, "1/0": 1, "1/1": -1, "2/0": 0, "2/1": 0}
    )
    assert scaffolds == pytest.approx({0: 0.5 - 0.25, 1: 0.5 - 0.25, 2: -0.5})
    assert excluded == {"flagged": 1, "infra": 1}


def test_a_flagged_sample_does_not_lower_the_baseline():
    """Two passes, five fails and a flag: the mean is 2/7, where counting the flag as 0 gives 2/8 (peers.md 6.5)."""
    solutions, _, _ = by_name([[P, P, F, F, F, F, F, X]], AdvantageSettings(baseline="mean"), K=8)
    assert solutions == pytest.approx({f"0/{k}": (k < 2) - 2 / 7 for k in range(7)})


def test_mean_and_std_by_hand():
    solutions, scaffolds, _ = by_name([[P, F, F, F], [F, F]], AdvantageSettings(baseline="mean", scale="std"))
    std = (0.25 * 0.75) ** 0.5
    assert solutions == pytest.approx(
        {"0/0": 0.75 / std, **{f"0/{k}": -0.25 / std for k in (1, 2, 3)}, "1/0": 0, "1/1": 0}
    )
    assert scaffolds == pytest.approx({0: 1.0, 1: -1.0})


def test_a_veto_is_a_zero_in_the_baseline_or_left_out_by_name():
    included = by_name([[P, V, F], [F, F]])
    excluded = by_name([[P, V, F], [F, F]], AdvantageSettings(vetoed="excluded"))
    assert included[0]["0/1"] == -0.5
    assert included[1][0] == pytest.approx(1 / 3)
    assert "0/1" not in excluded[0]
    assert excluded[0]["0/0"] == 1
    assert excluded[1][0] == 0.5
    assert excluded[2] == {"vetoed": 1}


def test_a_scaffold_that_never_parsed_is_worth_nothing_and_has_no_solutions():
    solutions, scaffolds, excluded = by_name([[P, F], [BAD], [P, P]])
    assert sorted(solutions) == ["0/0", "0/1", "2/0", "2/1"]
    assert scaffolds == pytest.approx({0: 0.5 - 0.5, 1: 0 - 0.75, 2: 1 - 0.25})
    assert excluded == {}


def test_a_scaffold_with_only_flagged_children_trains_on_nothing():
    solutions, scaffolds, excluded = by_name([[X, X], [P, X], [F, F]])
    assert sorted(solutions) == ["2/0", "2/1"]
    assert scaffolds == {1: 1.0, 2: -1.0}
    assert excluded == {"flagged": 3, "childless_scaffold": 1, "lone_solution": 1}


def test_groups_with_fewer_than_two_members_are_dropped_and_counted():
    assert by_name([[P, X], [I, L]]) == (
        {},
        {},
        {"flagged": 1, "infra": 2, "childless_scaffold": 1, "lone_solution": 1, "lone_scaffold": 1},
    )
    assert by_name([[X, I]]) == ({}, {}, {"flagged": 1, "infra": 1, "childless_scaffold": 1})


def test_with_one_solution_per_scaffold_solutions_are_compared_across_scaffolds():
    solutions, scaffolds, _ = by_name([[P], [F], [X], [F]], K=1)
    assert solutions == pytest.approx({"0/0": 1, "1/0": -0.5, "3/0": -0.5})
    assert scaffolds == pytest.approx({0: 1, 1: -0.5, 3: -0.5})


@pytest.mark.parametrize("arm", [Arm.FIXED, Arm.NONE])
def test_a_control_arm_has_no_scaffold_and_one_group_of_siblings(arm: Arm):
    solutions, scaffolds, excluded = by_name([[P, F], [F, F]], arm=arm)
    assert solutions == pytest.approx({"0/0": 1, "0/1": -1 / 3, "1/0": -1 / 3, "1/1": -1 / 3})
    assert (scaffolds, excluded) == ({}, {})


def random_tables(count: int):
    rng = random.Random(1)
    for _ in range(count):
        rows = [[rng.choice(KINDS) for _ in range(rng.randint(1, 4))] for _ in range(rng.randint(1, 4))]
        yield [[BAD] if rng.random() < 0.15 else row for row in rows]


@pytest.mark.parametrize("settings", ALL_SETTINGS, ids=lambda s: f"{s.baseline}-{s.scale}-{s.siblings}-{s.vetoed}")
def test_uneven_groups_equal_the_definition(settings: AdvantageSettings):
    """Every kind of member, 1 to 4 scaffolds of 1 to 4 solutions, every option, K = 1 and the control arms."""
    for table, (K, arm) in itertools.product(random_tables(40), [(4, Arm.SELF), (1, Arm.SELF), (4, Arm.FIXED)]):
        rows = [(f"{n}/{k}", n, I if kind == L else kind) for n, row in enumerate(table) for k, kind in enumerate(row)]
        wanted = reference.advantages(rows, settings, K, arm is Arm.SELF)
        solutions, scaffolds, _ = by_name(table, settings, K=K, arm=arm)
        assert (solutions, scaffolds) == (pytest.approx(wanted[0], abs=1e-12), pytest.approx(wanted[1], abs=1e-12))


@pytest.mark.parametrize("settings", ALL_SETTINGS, ids=lambda s: f"{s.baseline}-{s.scale}-{s.siblings}-{s.vetoed}")
def test_removing_an_excluded_trajectory_leaves_every_other_advantage_unchanged(settings: AdvantageSettings):
    """Bit for bit, one after the other until none is left."""
    removed = 0
    for table in random_tables(60):
        whole = group(table)
        before = group_advantages(whole, settings, 4)
        out = {X, I} | ({V} if settings.vetoed == "excluded" else set())
        for trajectory in whole.trajectories:
            if trajectory.verdict.outcome in out or trajectory.stop.is_ours:
                rest = tuple(t for t in whole.trajectories if t is not trajectory)
                whole, removed = replace(whole, trajectories=rest), removed + 1
                after = group_advantages(whole, settings, 4)
                assert (after.solutions, after.scaffolds) == (before.solutions, before.scaffolds)
    assert removed > 50
