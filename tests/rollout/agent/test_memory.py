"""What is remembered, and what a new context says of the turns before it."""

from envs.types import Action
from rollout.agent.memory import digest, take_notes
from rollout.scaffold.document import Memory


def actions(count: int) -> list[Action]:
    return [
        Action(turn=i, tool="read", arguments={"path": f"f{i}"}, observation=f"result {i} " * 60) for i in range(count)
    ]


def test_notes_are_lines_that_say_so_and_the_oldest_give_way():
    assert take_notes((), "I think.\n  NOTE: a b \nNOTE:\nnote: no\nNOTE: c", 100) == ("a b", "c")
    assert take_notes(("one", "two"), "NOTE: three", 7) == ("three",)
    assert take_notes(("one", "two"), "NOTE: six", 6) == ("two", "six")
    assert take_notes((), "NOTE: " + "x" * 50, 20) == ("x" * 20,)
    assert take_notes((), "NOTE: a", 0) == ()


def test_the_newest_results_are_kept_in_full_and_older_ones_shrink():
    text = digest(actions(4), (), Memory(keep_full=2, older_chars=40))
    assert [text.count(f"result {i} ") for i in range(4)] == [4, 4, 60, 60]
    assert text.index("f0") < text.index("f3")
    gone = digest(actions(4), ("mind",), Memory(keep_full=0, older_chars=0))
    assert "result" not in gone
    assert gone.count("(540 characters, not kept)") == 4
    assert gone.endswith("Your notes:\n- mind")


def test_even_a_full_result_and_the_arguments_are_bounded():
    long = [Action(turn=0, tool="write", arguments={"content": "y" * 9000}, observation="z" * 6000)]
    assert len(digest(long, (), Memory(observation_chars=300))) < 900
