"""The course through the phases, decision by decision; what the driver makes of it is in the other files."""

import json

import pytest
from theatre import document

from rollout.agent.course import Course, Seen
from rollout.agent.ended import Ended
from rollout.scaffold.document import Bounds
from rollout.scaffold.parse import parse
from rollout.types import StopReason

BOUNDS = Bounds(("read", "shell", "run_tests", "submit"), 20, 20)
PHASES = [
    {"name": "look", "goal": "Find it.", "max_turns": 3},
    {"name": "mend", "goal": "Mend it.", "max_turns": 4, "exit": "submit"},
]
GOOD, BAD = Seen(called=frozenset({"read"})), Seen(failed_calls=1)


def course(**changes) -> Course:
    fields = {"orchestration.phases": PHASES} | {key.replace("__", "."): value for key, value in changes.items()}
    return Course(parse(json.dumps(document(fields)), BOUNDS), BOUNDS.max_turns)


def walk(way: Course, *turns: Seen) -> list:
    """The name of the phase after every turn; the last entry may be how it ended."""
    names: list = []
    try:
        for seen in turns:
            way.begin_turn()
            step = way.after(seen)
            names.append("hand in" if step.hand_in else way.phase.name)
    except Ended as ended:
        names.append(ended.stop)
    return names


def test_phases_follow_each_other_and_the_last_one_runs_out():
    assert walk(course(), *[GOOD] * 9) == ["look"] * 2 + ["mend"] * 4 + [StopReason.MAX_TURNS]


def test_a_submit_hands_in_from_any_phase_that_it_does_not_merely_end():
    assert walk(course(), Seen(submitted=True)) == ["hand in"]
    assert walk(course(), GOOD, GOOD, Seen(submitted=True)) == ["look", "look", "hand in"]  # in its last turn too
    ends = [{**PHASES[0], "exit": "submit"}, PHASES[1]]
    assert walk(course(orchestration__phases=ends), *[Seen(submitted=True)] * 2) == ["mend", "hand in"]


def test_errors_count_in_a_row_and_only_their_own_opposite_ends_the_row():
    way = course(error_handling__tool_error__then="give_up", error_handling__tool_error__retries=1)
    assert walk(way, BAD, GOOD, BAD, GOOD) == ["look", "look", "mend", "mend"]
    way = course(error_handling__tool_error__then="give_up", error_handling__tool_error__retries=1)
    assert walk(way, BAD, Seen(malformed="what?"), BAD) == ["look", "look", StopReason.GAVE_UP]


def test_going_back_gives_the_phase_its_turns_again_but_not_the_episode():
    way = course(error_handling__tool_error__then="back", error_handling__tool_error__retries=0)
    once = [GOOD, GOOD, GOOD, BAD]
    assert walk(way, *once, GOOD, GOOD) == ["look", "look", "mend", "look", "look", "look"]
    way = course(error_handling__tool_error__then="back", error_handling__tool_error__retries=0)
    assert walk(way, *[BAD] * 50) == ["look"] * 20 + [StopReason.MAX_TURNS]  # never before the first phase


def test_a_restart_begins_at_the_first_phase_and_needs_an_attempt():
    fields = {"error_handling__tool_error__then": "restart", "error_handling__tool_error__retries": 0}
    way = course(orchestration__attempts=2, **fields)
    assert walk(way, GOOD, GOOD, GOOD, BAD) == ["look", "look", "mend", "look"]
    assert way.attempt == 2
    assert walk(way, BAD) == [StopReason.GAVE_UP]


def test_a_refused_handing_in_is_a_failed_test_and_does_not_give_turns_back():
    way = course(error_handling__tests_failed__hint="Look again.")
    assert walk(way, *[GOOD] * 3, Seen(submitted=True)) == ["look", "look", "mend", "hand in"]
    assert way.refused().words == ("Look again.",)
    assert walk(way, GOOD, GOOD, Seen(submitted=True)) == ["mend", "mend", "hand in"]
    with pytest.raises(Ended) as ended:
        way.refused()
    assert ended.value.stop is StopReason.MAX_TURNS


def test_all_hints_of_a_turn_are_shown_and_one_reaction_happens():
    way = course(
        error_handling__tool_error__hint="A.",
        error_handling__tests_failed__hint="B.",
        error_handling__tests_failed__then="give_up",
        error_handling__tests_failed__retries=1,
    )
    both = Seen(failed_calls=1, called=frozenset({"run_tests"}), tests=False)
    way.begin_turn()
    assert way.after(both).words == ("A.", "B.")
    assert walk(way, both) == [StopReason.GAVE_UP]
