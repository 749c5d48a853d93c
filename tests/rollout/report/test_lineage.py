"""From parent to child: what changed, what it gained, who won."""

import itertools
import json
from dataclasses import replace

import pytest
from made import HOSTILE, proposal, scaffold, trajectory
from reading import read

from envs.types import Outcome
from rollout.report import scaffolds
from rollout.report.gather import Reader
from rollout.report.lineage import by_id, changed_fields, changes, fields, kinds, path, steps, winner
from rollout.report.svg import Frame
from rollout.scaffold.library import Library

PASSED, FAILED = Outcome.PASSED, Outcome.FAILED
ROOT = scaffold("Look.", retries=1)
MORE = scaffold("Look.", retries=3)  # one field
BEST = scaffold("Look, then think.", retries=3, verify=True)  # two fields more
WORSE = scaffold("Look.", retries=1, notes_chars=400)


@pytest.fixture
def library(tmp_path):
    """t1: ROOT (0 of 4) -> MORE (2 of 4) -> BEST (4 of 4), ROOT -> WORSE (0 of 2). t2 begins with MORE of t1."""
    made = Library(tmp_path / "scaffolds")
    numbers = itertools.count()

    def add(task: str, document: str, parent: str, outcomes: list[Outcome]) -> str:
        under = proposal(f"{task}@{next(numbers)}", document=document, parent=parent, version=next(numbers))
        made.add(under)
        for place, outcome in enumerate(outcomes):
            made.reward(trajectory(under, place, outcome))
        return under.scaffold_id

    root = add("t1", ROOT, "", [FAILED] * 4)
    more = add("t1", MORE, root, [PASSED, FAILED] * 2)
    add("t1", BEST, more, [PASSED] * 4)
    add("t1", WORSE, root, [FAILED] * 2)
    add("t1", scaffold("Never tried."), root, [])
    add("t1", scaffold("Lucky."), root, [PASSED])
    add("t2", scaffold("Elsewhere."), more, [PASSED] * 2)
    yield made
    made.close()


def test_documents_become_flat_fields_and_changes_name_them():
    assert fields(ROOT)["error_handling.tests_failed.retries"] == 1
    assert fields(ROOT)["orchestration.phases[0].name"] == "part 0"
    assert changes(ROOT, MORE) == [("error_handling.tests_failed.retries", 1, 3)]
    assert changes(MORE, BEST) == [
        ("instructions", "Look.", "Look, then think."),
        ("orchestration.verify_before_submit", False, True),
    ]
    added = changes(ROOT, scaffold("Look.", retries=1, phases=2))
    assert {(name, old) for name, old, _ in added} == {
        (f"orchestration.phases[1].{name}", None) for name in ("name", "goal", "tools", "max_turns", "exit")
    }
    assert "orchestration.phases[].goal" in kinds(added)
    assert changes("not a document", "[1]") == []


def test_gains_are_counted_where_both_sides_have_results(library):
    found = steps(library.entries())
    gains = {fields(step.child.document)["instructions"]: step.gain for step in found if step.child.task_id == "t1"}
    assert gains == {"Look.": 0.0, "Look, then think.": 0.5}  # WORSE stands last in the dict; MORE gained 0.5 as well
    assert sorted(step.gain for step in found) == [0.0, 0.5, 0.5, 0.5]
    rows = {name: (won, others, gain) for name, won, others, gain in changed_fields(found)}
    assert rows["error_handling.tests_failed.retries"] == (2, 0, 0.5)  # ROOT -> MORE, and MORE -> Elsewhere
    assert rows["orchestration.verify_before_submit"] == (1, 0, 0.5)
    assert rows["memory.notes_chars"] == (0, 1, 0.0)


def test_the_winner_is_surely_good_not_lucky_once_and_its_line_crosses_tasks(library):
    entries = library.entries()
    best = winner([entry for entry in entries if entry.task_id == "t1"])
    assert best.document == BEST
    assert [entry.document for entry in path(best, by_id(entries))] == [ROOT, MORE, BEST]
    other = winner([entry for entry in entries if entry.task_id == "t2"])
    assert [entry.task_id for entry in path(other, by_id(entries))] == ["t1", "t1", "t2"]
    assert winner([entry for entry in entries if not entry.results]) is None
    twice = replace(best, id="twice", results=best.results[:2])
    nearly = replace(best, id="nearly", results=(*best.results * 2, replace(best.results[0], reward=0.0)))
    assert winner([twice, nearly]) == nearly, "8 of 9 is surer than 2 of 2"


def test_a_circle_of_rewrites_ends(tmp_path):
    one, two = scaffold("one"), scaffold("two")
    a, b = proposal("t@0", document=one), proposal("t@0", document=two)
    library = Library(tmp_path / "scaffolds")
    library.add(proposal("t@0", document=one, parent=b.scaffold_id))
    library.add(proposal("t@0", document=two, parent=a.scaffold_id))
    for under in (a, b):
        for place in range(2):
            library.reward(trajectory(under, place))
    library.close()
    assert len(path(winner(library.entries()), by_id(library.entries()))) == 2
    (tmp_path / "config.json").write_text("{}")
    assert "in 1 rewrites" in read(f"<div>{scaffolds.section(Reader(tmp_path).read())}</div>").text


def test_the_page_shows_the_line_the_differences_and_the_table(library):
    (library.folder.parent / "config.json").write_text(json.dumps({"name": "x"}))
    run = Reader(library.folder.parent).read()
    shown = read(f"<div>{scaffolds.section(run)}</div>")
    assert "7 different scaffolds for 2 tasks. Of 4 rewrites with at least 2 results" in shown.text
    assert "3 gained, 0 lost and 1 stayed" in shown.text
    card = next(one for one in shown.all("details") if one.attributes.get("class") == "card")
    assert card.all("summary")[0].text == "t1 (edge): 0.00 (of 4) → 1.00 (of 4) in 2 rewrites"
    assert (card.all("del")[0].text, card.all("ins")[0].text) == ("1", "3")
    table = shown.tables()
    heads = next(name for name in table if name.startswith("field, changed in"))
    assert heads == "field, changed in the 3 that gained, in the 1 that did not, mean gain when changed"
    assert table[heads][0] == ["error_handling.tests_failed.retries", "2 (66.7 %)", "0 (0.0 %)", "+0.500"]
    lines = [one for one in card.all("line") if "tie" in (one.attributes["class"] or "")]
    assert len([one for one in lines if "marked" in one.attributes["class"]]) == 2
    assert len(lines) == 5


def test_places_of_a_chart_are_where_the_values_are():
    frame = Frame((0, 10), (0, 1), (300, 200))
    assert frame.at(0, 0) == (46, 166)
    assert frame.at(10, 1) == (288, 10)
    assert frame.at(5, 0.5) == (167, 88)


def test_hostile_words_of_a_scaffold_stay_words(tmp_path):
    library = Library(tmp_path / "scaffolds")
    before, after = scaffold("a"), scaffold(HOSTILE.replace("\ud800", ""))
    first = proposal("t@0", document=before)
    second = proposal("t@0", document=after, parent=first.scaffold_id)
    for under, outcome in ((first, FAILED), (second, PASSED)):
        library.add(under)
        for place in range(2):
            library.reward(trajectory(under, place, outcome))
    library.close()
    (tmp_path / "config.json").write_text("{}")
    shown = read(f"<div>{scaffolds.section(Reader(tmp_path).read())}</div>")
    assert shown.all("script") == shown.all("img") == []
    assert "<script>alert(1)</script>" in shown.text
