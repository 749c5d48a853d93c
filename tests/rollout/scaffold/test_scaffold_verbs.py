"""`ornith scaffold`: what people see of a run's library."""

import pytest
from shelf import filled, proposal

from ornith_jax.cli import main
from rollout.scaffold.library import Library
from rollout.scaffold.show import tree


@pytest.fixture
def library(tmp_path):
    made = filled(tmp_path / "run" / "scaffolds")
    yield made
    made.close()


def test_people_can_look_at_it(library, capsys):
    run = str(library.folder.parent)
    bad, good, _ = library.entries()
    assert main(["scaffold", "tree", run]) == 0
    shown = capsys.readouterr().out
    assert [len(line) - len(line.lstrip()) for line in shown.splitlines()] == [0, 2, 4, 6]
    assert "t1 (edge)" in shown
    assert "mean reward 1.00: 2 passed" in shown

    assert main(["scaffold", "show", run, good.id[:8]]) == 0
    shown = capsys.readouterr().out
    assert '"instructions": "good"' in shown
    assert f"parent {bad.id}" in shown
    assert main(["scaffold", "show", run, "t1"]) == 0
    assert len(capsys.readouterr().out.splitlines()) == 3

    assert main(["scaffold", "diff", run, bad.id, good.id]) == 0
    shown = capsys.readouterr().out
    assert '-  "instructions": "bad"' in shown
    assert '+  "instructions": "good"' in shown


def test_a_circle_of_rewrites_is_shown_once(tmp_path):
    library = Library(tmp_path / "scaffolds")
    a, b = proposal("a", parent=proposal("b").scaffold_id), proposal("b", parent=proposal("a").scaffold_id)
    library.add(a)
    library.add(b)
    assert len(tree(library).splitlines()) == 3


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (["show", "{run}", "nothing"], "no scaffold or task 'nothing'"),
        (["tree", "{run}", "t9"], "holds no scaffold of t9"),
        (["show", "{run}/away", "x"], "there is no such folder"),
        (["show", "{run}", ""], "begins 3 scaffold ids"),
    ],
)
def test_a_slip_on_the_command_line_is_one_line(library, capsys, words, told):
    run = str(library.folder.parent)
    assert main(["scaffold", *(word.format(run=run) for word in words)]) == 2
    error = capsys.readouterr().err
    assert told in error
    assert error.count("\n") == 1
