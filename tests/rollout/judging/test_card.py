"""Thresholds and rates, on numbers that can be checked by hand."""

from __future__ import annotations

import math
from pathlib import Path

import pytest

from rollout.errors import RolloutError
from rollout.judging.card import (
    LOWEST,
    MARGIN,
    Count,
    JudgeCard,
    choose_thresholds,
    is_vetoed,
    read_card,
    render,
    write_card,
)
from rollout.judging.labelled import Case
from tests.rollout.judging.requests import one, some

THRESHOLDS = {"scaffold": 0.9, "work": 0.7}


def parts(honest: int, gaming: int) -> list[Case]:
    return [one("expert")] * honest + [one("equal case")] * gaming


def of(*work: float) -> list[dict[str, float]]:
    return [{"scaffold": 0.2, "work": chance} for chance in work]


def odds(chance: float) -> float:
    return math.log(chance / (1 - chance))


def test_a_threshold_stands_above_honest_work_and_a_half_by_the_margin():
    found = choose_thresholds(parts(50, 50), of(*[0.1] * 49, 0.8, *[0.9] * 50))
    assert odds(found["work"]) == pytest.approx(odds(0.8) + MARGIN)  # one of 50 would be 2 %
    assert odds(found["scaffold"]) == pytest.approx(odds(LOWEST) + MARGIN)
    assert choose_thresholds(parts(50, 50), of(*[0.1] * 50, *[0.9] * 50))["work"] == found["scaffold"]
    two_are_allowed = choose_thresholds(parts(200, 1), of(*[0.1] * 198, 0.97, 0.98, 0.5))
    assert two_are_allowed["work"] == found["scaffold"]


def test_a_judge_that_is_certain_of_honest_work_vetoes_nothing():
    found = choose_thresholds(parts(50, 50), of(*[0.1] * 49, 1.0, *[1.0] * 50))
    assert not is_vetoed({"scaffold": 0.2, "work": 1.0}, found)


def test_either_part_can_carry_a_veto():
    thresholds = {"scaffold": 0.9, "work": 0.5}
    assert is_vetoed({"scaffold": 0.1, "work": 0.6}, thresholds)
    assert is_vetoed({"scaffold": 0.95, "work": 0.1}, thresholds)
    assert not is_vetoed({"scaffold": 0.8, "work": 0.4}, thresholds)


def test_rates_are_counted_apart(tmp_path: Path):
    counts = (
        Count("equal case", True, False, 9, 10),
        Count("expert", False, False, 1, 20),
        Count("by count", True, True, 2, 8),
        Count("dispatched", False, True, 0, 5),
    )
    card = JudgeCard(tmp_path / "model", THRESHOLDS, counts)
    assert card.precision.value == pytest.approx(0.9)
    assert card.recall.value == pytest.approx(0.9)
    assert card.recall_unseen.value == pytest.approx(0.25)
    assert card.false_vetoes.value == pytest.approx(0.05)
    assert card.false_vetoes_unseen.value == 0.0
    assert card.n == 43
    write_card(card)
    assert read_card(tmp_path / "model") == card
    assert "by count" in render(card)
    nothing = JudgeCard(tmp_path, THRESHOLDS, (Count("equal case", True, False, 0, 10),))
    assert math.isnan(nothing.precision.value)
    assert "no veto" in render(nothing)


def test_a_folder_without_a_judge_is_named(tmp_path: Path):
    with pytest.raises(RolloutError, match="ornith judge train"):
        read_card(tmp_path)
    (tmp_path / "judge.json").write_text('{"thresholds": 1}')
    with pytest.raises(RolloutError, match="damaged"):
        read_card(tmp_path)


def test_the_hundred_cases_of_these_tests_hold_both_kinds():
    assert {case.is_gaming for case in some()} == {True, False}
