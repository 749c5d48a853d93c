"""The library: lineage, records, selection, several writers, and what survives a kill."""

import json
import random
import signal
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path

import pytest
from shelf import FAILED, PASSED, filled, named, proposal, solved

from envs.types import Outcome
from rollout.errors import RolloutError
from rollout.scaffold.library import Library
from rollout.types import StopReason, Trajectory

ROOT = Path(__file__).resolve().parents[3]


@pytest.fixture
def library(tmp_path):
    made = filled(tmp_path / "run" / "scaffolds")
    yield made
    made.close()


def test_lineage_and_records(library):
    bad, good, fair = library.entries("t1")
    assert [bad.parent, good.parent, fair.parent] == ["", bad.id, good.id]
    assert [bad.mean, good.mean, fair.mean] == [0.0, 1.0, 0.5]
    assert {result.outcome for result in fair.results} == {"passed", "failed"}


def test_failures_of_ours_are_not_results_and_flagged_counts_as_nothing(library):
    written = proposal("new")
    library.add(written)
    library.reward(solved(written, 0, Outcome.INFRA, StopReason.ENGINE_ERROR))
    library.reward(solved(written, 1, FAILED, StopReason.CANCELLED))
    assert library.entries("t1")[-1].mean is None
    library.reward(solved(written, 2, Outcome.FLAGGED))
    library.reward(solved(written, 3, PASSED))
    assert library.entries("t1")[-1].mean == 0.5


def test_what_nobody_learned_is_not_kept(library):
    library.add(proposal("fixed", turns=()))
    assert len(library.entries()) == 3


def test_selection(library):
    select = library.select
    assert named(select("t1", "edge", "last", 1.0, random.Random(0))) == "fair"
    assert named(select("t1", "edge", "best", 1.0, random.Random(0))) == "good"
    assert select("t1", "edge", "fresh", 1.0, random.Random(0)) is None
    assert select("t9", "other", "best", 1.0, random.Random(0)) is None
    assert named(select("t9", "edge", "best", 1.0, random.Random(0))) == "good"  # of the category
    with pytest.raises(RolloutError, match="'worst' is not one of last, best, softmax, fresh"):
        select("t1", "edge", "worst", 1.0, random.Random(0))


def test_softmax_over_mean_rewards(library):
    rng = random.Random(5)
    counts = Counter(named(library.select("t1", "edge", "softmax", 0.5, rng)) for _ in range(4000))
    total = sum(2.718281828 ** (mean / 0.5) for mean in (0.0, 1.0, 0.5))
    for name, mean in (("bad", 0.0), ("good", 1.0), ("fair", 0.5)):
        assert counts[name] / 4000 == pytest.approx(2.718281828 ** (mean / 0.5) / total, abs=0.03)
    cold = {named(library.select("t1", "edge", "softmax", 0.0, rng)) for _ in range(50)}
    assert cold == {"good"}
    library.add(proposal("unrated"))
    assert "unrated" not in {named(library.select("t1", "edge", "softmax", 9.0, rng)) for _ in range(200)}


def test_selection_is_a_function_of_the_records_and_the_rng(library):
    picks = [
        [named(lib.select("t1", "edge", "softmax", 1.0, random.Random(i))) for i in range(30)]
        for lib in (library, Library(library.folder))
    ]
    assert picks[0] == picks[1]


def test_a_category_joins_the_records_of_its_tasks(library):
    for task, outcome in (("t2", PASSED), ("t3", FAILED), ("t4", FAILED)):
        library.add(written := proposal("everywhere", task=task))
        library.reward(Trajectory(**{**_fields(solved(written, 0, outcome)), "id": f"{task}/0"}))
    joined = [e for e in [library.select("t9", "edge", "last", 1.0, random.Random(0))] if e]
    assert named(joined[0]) == "everywhere"
    assert joined[0].mean == pytest.approx(1 / 3)


def _fields(trajectory: Trajectory) -> dict:
    return {name: getattr(trajectory, name) for name in Trajectory.__dataclass_fields__}


def test_saying_it_again_changes_nothing_but_what_is_newest(library):
    before = library.entries("t1")
    library.reward(solved(proposal("bad"), 0, PASSED))  # a resumed run, another outcome: the first stands
    library.add(proposal("bad", parent="elsewhere"))
    after = library.entries("t1")
    assert {(e.id, e.parent, e.mean) for e in after} == {(e.id, e.parent, e.mean) for e in before}
    assert named(after[-1]) == "bad"


HISTORY = [  # (scaffold, policy version of its group, outcomes)
    *[("a", 0, (FAILED, PASSED)), ("b", 0, (PASSED,)), ("a", 1, (PASSED, PASSED)), ("c", 1, (FAILED,))],
    *[("d", 1, (PASSED,)), ("b", 2, (FAILED, FAILED)), ("e", 2, (PASSED,))],
]


def written(folder: Path, history: list) -> Library:
    library, number = Library(folder), 0
    for name, version, outcomes in history:
        made = proposal(name, version=version)
        library.add(made)
        for outcome in outcomes:
            number += 1
            library.reward(Trajectory(**{**_fields(solved(made, 0, outcome)), "id": f"{name}/{version}/{number}"}))
    return library


@pytest.mark.parametrize("selection", ["last", "best", "softmax"])
def test_a_group_sees_only_what_earlier_versions_left_whatever_ran_beside_it(tmp_path, selection):
    """Records of version 2 change nothing for a group of version 2, nor does the order of those before it."""
    first = [entry for entry in HISTORY if entry[1] == 0]
    second = [entry for entry in HISTORY if entry[1] == 1]
    orders = {
        "past": [*first, *second],
        "with the present": HISTORY,
        "another order": [*reversed(first), *reversed(second), *HISTORY[-2:]],
    }
    picks = {}
    for name, history in orders.items():
        library = written(tmp_path / name, history)
        picks[name] = [
            named(library.select("t1", "edge", selection, 0.7, random.Random(n), before=2)) for n in range(40)
        ]
        assert library.select("t1", "edge", selection, 0.7, random.Random(0), before=0) is None
        means = {named(entry): entry.mean for entry in library.entries("t1", before=2)}
        assert means == {"a": 0.75, "b": 1.0, "c": 0.0, "d": 1.0}
        library.close()
    assert picks["past"] == picks["with the present"] == picks["another order"]
    if selection == "softmax":
        assert len(set(picks["past"])) > 1


def test_other_writers_are_seen_after_a_refresh(library):
    other = Library(library.folder)
    other.add(proposal("theirs", task="t7"))
    assert library.entries("t7") == []
    library.refresh()
    assert named(library.entries("t7")[0]) == "theirs"
    library.add(proposal("ours", task="t7"))
    assert [named(e) for e in library.entries("t7")] == ["theirs", "ours"]


def test_a_position_opens_the_library_as_it_was(library):
    position = json.loads(json.dumps(library.position))
    Library(library.folder).add(proposal("later"))
    library.add(proposal("latest"))
    then = Library(library.folder, upto=position)
    assert [named(e) for e in then.entries()] == ["bad", "good", "fair"]
    then.refresh()
    assert {named(e) for e in then.entries()} == {"bad", "good", "fair", "later", "latest"}


def test_a_torn_tail_is_waited_for_and_a_changed_line_is_named_and_left_out(library):
    [path] = library.folder.glob("*.log")
    data = path.read_bytes()
    for cut in range(len(data) - 60, len(data)):
        path.write_bytes(data[:cut])
        reader = Library(library.folder)
        assert reader.damaged == []
        assert len(reader.entries()) == 3
        path.write_bytes(data)
        reader.refresh()
        assert reader.entries() == library.entries()
    middle = len(data) // 2
    path.write_bytes(data[:middle] + bytes([data[middle] ^ 1]) + data[middle + 1 :])
    broken = Library(library.folder)
    assert len(broken.damaged) == 1
    assert broken.damaged[0].startswith(f"{path.name}: byte ")
    assert len(broken.entries()) + sum(len(e.results) for e in broken.entries()) >= 7


WRITER = """
import sys
from pathlib import Path
sys.path.insert(0, {tests!r})
from shelf import *
name, folder = sys.argv[1], Path(sys.argv[2])
library = Library(folder)
for number in range(10**6):
    written = proposal(f"{{name}} {{number}}", task=name)
    library.add(written)
    library.reward(solved(written, 0, PASSED if number % 2 else FAILED))
    print(number, flush=True)  # the acknowledgement
"""


def test_four_writers_that_are_killed_lose_nothing_that_was_acknowledged(tmp_path):
    code = WRITER.format(tests=str(Path(__file__).parent))
    writers = {
        name: subprocess.Popen(
            [sys.executable, "-c", code, name, tmp_path], cwd=ROOT, stdout=subprocess.PIPE, text=True
        )
        for name in ("w0", "w1", "w2", "w3")
    }
    try:
        for process in writers.values():
            assert process.stdout.readline()  # all of them write
        for process in writers.values():
            time.sleep(0.05)
            process.send_signal(signal.SIGKILL)
        acknowledged = {name: int(process.communicate(timeout=60)[0].split()[-1]) for name, process in writers.items()}
    finally:
        for process in writers.values():
            process.kill()
            process.wait(60)
    library = Library(tmp_path)
    assert library.damaged == []
    for name, last in acknowledged.items():
        entries = library.entries(name)
        assert [named(e) for e in entries[: last + 1]] == [f"{name} {number}" for number in range(last + 1)]
        assert [e.mean for e in entries[: last + 1]] == [float(number % 2) for number in range(last + 1)]
        assert len(entries) <= last + 2  # at most the one that was on its way
    Library(tmp_path).add(proposal("next"))
    assert named(Library(tmp_path).entries()[-1]) == "next"


def test_a_disk_that_refuses_is_told(tmp_path):
    (tmp_path / "scaffolds").write_text("a file where the folder should be")
    with pytest.raises(RolloutError, match="the library cannot be written"):
        Library(tmp_path / "scaffolds").add(proposal("x"))
