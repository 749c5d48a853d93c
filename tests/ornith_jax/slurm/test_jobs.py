"""The rendered scripts on a real Slurm (22.05 on Debian 12), around roles that are stubs: what the scripts themselves
promise. `train_on_slurm.py` runs the real roles.
"""

import re
import time

import pytest

from ornith_jax.errors import OrnithError
from tests.slurm_local.runs import Run

pytestmark = pytest.mark.slow


@pytest.fixture
def run(cluster, tmp_path):
    started = []

    def start(mode: str, edits: dict[str, str] | None = None, **how) -> Run:
        started.append(Run.of_stubs(cluster, tmp_path, mode, how, edits or {}))
        return started[-1]

    yield start
    for one in started:
        cluster.run("scancel", *one.jobs.values(), check=False)


def test_split_mode_runs_to_the_end_and_is_submitted_once(run):
    split = run("split", batches=30)
    assert set(split.jobs) == {"learner", "engine", "driver"}
    assert split.again() == split.jobs
    split.finish()
    learner = split.log("learner")
    assert set(re.findall(r"(\d): learner rank \1 of 2 on (n\d)", learner)) >= {("0", "n0"), ("1", "n1")}
    assert len(set(re.findall(r"n0:\d+", learner))) == 1, "both ranks meet at the first node"
    with pytest.raises(OrnithError, match="is finished, after batch 30"):
        split.again()


@pytest.mark.parametrize("mode", ["single", "het"])
def test_one_job_carries_all_roles(run, mode: str):
    one = run(mode, batches=10)
    assert list(one.jobs) == ["all"]
    one.finish()
    nodes = dict(re.findall(r"0: (\S+) rank 0 of \d on (n\d)", one.log("all")))
    assert set(nodes) == {"learner", "engine-0", "engine-1", "driver"}
    assert {name for name, node in nodes.items() if node in ("n0", "n1")} >= {"learner"}


def test_a_rank_that_dies_takes_the_learner_along_and_all_of_it_starts_again_at_once(run):
    one = run("split", batches=20, crash=5)
    one.finish()
    assert "learner rank 1 stops orderly" in one.log("learner")
    assert [mark for mark in one.marks() if mark.startswith("learner")] == [
        f"learner.{one.jobs['learner']}.0.1.finished"
    ]


def test_a_role_that_hangs_shows_its_stacks_and_runs_again_within_the_bound(run):
    one = run("split", batches=20, hang=5)
    one.until(lambda: one.batch == 5, "the learner hangs")
    hung = time.monotonic()
    one.until(lambda: one.batch > 5, "the learner runs again", deadline_s=30)
    assert time.monotonic() - hung < 4 + 5 + 5 + 10, "the bound: stuck_s, stacks, the pause, a start of the stub"
    assert re.search(r"File .*stub.py\", line \d+ in _fail_once", one.log("learner")), (
        "the stack of the thread that hung"
    )
    one.finish()


def test_a_wrong_setting_ends_all_tiers_and_says_why_and_a_new_submission_begins_again(run):
    one = run("split", batches=10_000, refuse="driver")
    one.until(lambda: any("FAILED" in states for states in one.states().values()), "the driver's job fails")
    with pytest.raises(OrnithError, match=r"failed, driver on n.*still end: wait, or scancel"):
        one.again()
    one.until(lambda: all(set(states) == {"FAILED"} for states in one.states().values()), "all jobs fail")
    assert "driver on n" in (one.folder / "slurm/FAILED").read_text()
    (one.folder / "stub.json").write_text('{"batches": 1}')
    before = one.jobs
    one.jobs = one.again()
    assert not set(before.values()) & set(one.jobs.values())
    one.finish()


def test_preemption_and_requeue_of_either_tier_leave_the_other_alone(run, cluster):
    one = run("split", batches=60)
    one.until(lambda: one.batch >= 3 and "engine-1" in one.log("engine-1"), "it runs")
    node = cluster.run("squeue", "-h", "-r", "-j", f"{one.jobs['engine']}_1", "-o", "%N")
    cluster.run("sbatch", "-p", "urgent", "-w", node, "--exclusive", "-o", "/dev/null", "--wrap", "sleep 1")
    one.until(lambda: "engine-1 rank 0 stops orderly" in one.log("engine-1"), "the engine is preempted")
    cluster.run("scancel", "--batch", "--signal=USR1", one.jobs["learner"])  # as before its time limit
    one.restart(one.jobs["learner"])
    one.restart(f"{one.jobs['engine']}_1")
    assert "engine-0 rank 0 stops" not in one.log("engine-0")
    assert one.copies() == [], "what was requeued was not submitted once more"
    one.finish(deadline_s=90)
    assert f"learner.{one.jobs['learner']}.1.0.finished" in one.marks(), "the learner went through the queue"
    assert any(re.fullmatch(r"engine-1\.\d+\.1\.0\.finished", mark) for mark in one.marks())


def test_where_requeue_is_forbidden_a_copy_takes_over(run):
    one = run("split", {"requeue=1": "requeue=0", "#SBATCH --requeue": "#SBATCH --no-requeue"}, batches=30)
    one.until(lambda: one.batch >= 3, "it runs")
    first = one.jobs["learner"]
    one.cluster.run("scancel", "--batch", "--signal=USR1", first)
    one.until(lambda: one.copies(), "the copy is submitted")
    assert one.again() == {**one.jobs, "learner": one.copies()[0]}, "the copy is known as the run's learner"
    one.jobs["learner"] = one.copies()[0]
    one.until(lambda: one.folder.joinpath("slurm/marks").exists() and one.batch == 30, "the copy ends the run")
