"""Evaluation over real sandboxes and the scripted expert, and over simulated episodes with failures of ours."""

import asyncio
import contextlib
import json
from collections import Counter
from dataclasses import replace
from pathlib import Path

import pytest

from envs.suites import fledgling
from envs.types import Outcome, Task, Verdict, Verification
from rollout import collect
from rollout.chat.chat import load_chat
from rollout.engine import Engine
from rollout.errors import EngineError, RolloutError
from rollout.evaluate import SEEDS, evaluate, spread
from rollout.expert import expert_script
from rollout.outcomes import by_category, compare, ks_of, read_samples
from rollout.scaffold.defaults import default_scaffold
from rollout.scaffold.document import bounds_of, canonical, scaffold_id
from rollout.scaffold.library import Library
from rollout.scripted import ScriptedEngine
from rollout.settings import RolloutSettings, SamplingSettings
from rollout.store.reader import Trajectories
from rollout.types import Arm, Completion, Finish, Proposal, Stage, StopReason, Trajectory, Turn
from tests.envs.conftest import base_image  # noqa: F401
from tests.rollout.tokenizers import chat, folder

SETTINGS = RolloutSettings(groups_in_flight=2, warm_sandboxes=2, sandbox="bubblewrap")


def simulated(count: int) -> list[Task]:
    return [
        Task(
            id=f"task-{n}",
            source="simulated",
            category="even" if n % 2 == 0 else "odd",
            prompt="p",
            verification=Verification(kind="pytest"),
        )
        for n in range(count)
    ]


class Simulated:
    """`Episodes` without engine and sandboxes: what becomes of a sample stands in `ends`, by its id; else it passes."""

    def __init__(self, ends: dict[str, Outcome | StopReason | Exception], version: int = 0) -> None:
        self.ends, self.version = ends, version
        self.slow = ""  # the id of one that ends last
        self.played: list[str] = []

    async def propose(self, task: Task, *, group_id: str, scaffold_index: int, admitted_version: int) -> Proposal:
        return Proposal(
            group_id=group_id,
            task_id=task.id,
            category=task.category,
            scaffold_index=scaffold_index,
            arm=Arm.SELF,
            turns=(turn(Stage.SCAFFOLD, 2, self.version),),
        )

    async def solve(self, task: Task, proposal: Proposal, solution_index: int) -> Trajectory:
        assert solution_index == 0
        self.played.append(proposal.id)
        end = self.ends.get(proposal.id, Outcome.PASSED)
        await asyncio.sleep(0.1 if proposal.id == self.slow else 0)
        if isinstance(end, BaseException):
            raise end
        stop = end if isinstance(end, StopReason) else StopReason.SUBMITTED
        return Trajectory(
            id=f"{proposal.id}/0",
            group_id=proposal.group_id,
            task_id=task.id,
            category=task.category,
            scaffold_index=proposal.scaffold_index,
            solution_index=0,
            arm=Arm.SELF,
            turns=(*proposal.turns, turn(Stage.SOLUTION, 3, self.version)),
            stop=stop,
            verdict=Verdict(outcome=end if isinstance(end, Outcome) else Outcome.FAILED),
        )


def turn(stage: Stage, tokens: int, version: int = 0) -> Turn:
    completion = Completion(
        token_ids=(1,) * tokens, behavior_logprobs=(-1.0,) * tokens, versions=((0, version),), finish=Finish.STOP
    )
    return Turn(stage=stage, prompt_ids=(7,) * 10, completion=completion)


class Theatre:
    """Puts simulated episodes in the place of `rollout.collect.staged`; everything else is real. Keeps the seeds."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.episodes = Simulated({})
        self.seeds: list[int] = []
        self.settings: list[RolloutSettings] = []
        monkeypatch.setattr(collect, "staged", self._staged)
        monkeypatch.setattr("rollout.driver.PAUSE_S", (0.001, 0.01))

    def evaluate(self, *arguments, **options) -> dict:
        return asyncio.run(self.start(*arguments, **options))

    async def start(self, run: Path, tasks: list[Task], samples: int, name: str = "e", **options) -> dict:
        engine: Engine = ScriptedEngine(chat("qwen3_5"), [])
        words = {"arm": Arm.SELF, "samples": samples, **options}
        return await evaluate(run, name, tasks, engine, chat("qwen3_5"), SETTINGS, SamplingSettings(), **words)

    @contextlib.asynccontextmanager
    async def _staged(self, run, engine, chat, settings, sampling, seed, grade=None, library=None):
        class Opener:
            in_use = 0

        self.seeds.append(seed)
        self.settings.append(settings)
        yield self.episodes, Opener()


@pytest.fixture
def stage(monkeypatch) -> Theatre:
    return Theatre(monkeypatch)


def test_what_counts_and_what_does_not(stage, tmp_path):
    """Task 0: 3 of 4. Task 1: flagged, vetoed, out of turns, passed: 1 of 4."""
    stage.episodes.ends = {
        "task-0@0/2": Outcome.FAILED,
        "task-1@0/0": Outcome.FLAGGED,
        "task-1@0/1": Outcome.VETOED,
        "task-1@0/2": StopReason.MAX_TURNS,
    }
    found = stage.evaluate(tmp_path, simulated(2), 4)
    assert found["per_task"] == {"task-0": [3, 4], "task-1": [1, 4]}
    assert found["pass@1"]["value"] == 0.5
    assert found["pass@2"]["value"] == pytest.approx((1.0 + 0.5) / 2)
    assert found["pass@4"]["value"] == 1.0
    assert found["outcomes"] == {"passed": 4, "failed": 2, "flagged": 1, "vetoed": 1}
    assert found["stops"] == {"submitted": 7, "max_turns": 1}
    assert found["infra"] == {"episodes": 0, "causes": {}, "missing": 0}
    assert found["tokens"] == {"sampled": 8 * 5, "scaffold": 8 * 2, "total": 8 * (5 + 20)}
    assert found["by_category"]["odd"]["value"] == 0.25
    assert (found["by_category"]["odd"]["n"], found["by_category"]["odd"]["task_ids"]) == (4, ["task-1"])
    assert by_category(found) == {"even": {"task-0": [3, 4]}, "odd": {"task-1": [1, 4]}}
    assert json.loads((tmp_path / "evals" / "e.json").read_text()) == found
    assert (found["arm"], found["policy_version"], found["samples"], found["tasks"]) == ("self", 0, 4, 2)
    assert stage.seeds == [SEEDS], "the seeds of training"
    assert stage.settings[0].scaffold_selection == "fresh"


def test_failures_of_ours_are_played_again_and_never_count(stage, tmp_path):
    broken = OSError("disk")
    stage.episodes.ends = {
        "task-0@0/1": broken,
        "task-0@1/0": Outcome.FAILED,  # @1/1 ends before it and passes, but is one more than task 0 needs
        "task-1@0/0": broken,
        "task-1@0/1": broken,
        "task-1@1/0": Outcome.FAILED,
        "task-1@1/1": broken,
        "task-1@2/0": Outcome.FAILED,
    }
    stage.episodes.slow = "task-0@1/0"
    found = stage.evaluate(tmp_path, simulated(3), 3)
    assert found["per_task"] == {"task-0": [2, 3], "task-1": [1, 3], "task-2": [3, 3]}
    rounds = Counter(id.split("/")[0] for id in stage.episodes.played)
    assert rounds == {"task-0@0": 3, "task-1@0": 3, "task-2@0": 3, "task-0@1": 2, "task-1@1": 2, "task-1@2": 1}
    assert found["infra"]["episodes"] == 4
    assert found["infra"]["missing"] == 0


def test_samples_that_never_come_are_missing_and_said(stage, tmp_path):
    stage.episodes.ends = {f"task-0@{number}/{place}": OSError("disk") for number in range(9) for place in range(2)}
    found = stage.evaluate(tmp_path, simulated(2), 2)
    assert found["per_task"] == {"task-0": [0, 0], "task-1": [2, 2]}
    assert (found["infra"]["episodes"], found["infra"]["missing"]) == (6, 2)
    assert found["pass@1"]["value"] == 1.0, "a lost task is no failure"
    assert set(found["by_category"]) == {"odd"}

    stage.episodes.ends = {f"task-{task}@{n}/0": OSError("disk") for task in range(2) for n in range(9)}
    with pytest.raises(RolloutError, match="not one sample counts"):
        stage.evaluate(tmp_path, simulated(2), 1, name="f")
    assert not (tmp_path / "evals" / "f.json").exists()


@pytest.mark.parametrize("cut_at", [1, 4, 7])
def test_a_restart_plays_only_what_is_missing_and_comes_to_the_same(stage, tmp_path, cut_at):
    """Six samples and, in the second round, those of the two failures: cut off in either."""
    ends = {"task-0@0/1": OSError("disk"), "task-2@0/0": OSError("disk"), "task-1@0/0": Outcome.FAILED}

    class Stuck(Simulated):
        async def solve(self, task, proposal, solution_index):
            if len(self.played) >= cut_at:
                reached.set()
                await asyncio.sleep(3600)
            return await super().solve(task, proposal, solution_index)

    async def cut_off() -> None:
        task = asyncio.create_task(stage.start(tmp_path, simulated(3), 2))
        await asyncio.wait_for(reached.wait(), 30)
        task.cancel()
        await asyncio.wait([task])
        assert task.cancelled()

    stage.episodes = Simulated(ends)
    whole = stage.evaluate(tmp_path / "whole", simulated(3), 2)
    assert len(stage.episodes.played) == 8
    reached = asyncio.Event()
    stage.episodes = Stuck(ends)
    asyncio.run(cut_off())
    assert not (tmp_path / "evals" / "e.json").exists()

    stored, _ = read_samples(tmp_path / "evals" / "e" / "trajectories")
    stage.episodes = Simulated(ends)
    found = stage.evaluate(tmp_path, simulated(3), 2)
    assert {**found, "seconds": 0} == {**whole, "seconds": 0}
    assert len(stage.episodes.played) == 8 - len(stored) < 8
    assert stage.evaluate(tmp_path, simulated(3), 2) == found
    assert len(stage.episodes.played) == 8 - len(stored), "played what was there"


def test_a_log_is_of_one_evaluation(stage, tmp_path):
    stage.evaluate(tmp_path, simulated(2), 2)
    for options in ({"samples": 3}, {"arm": Arm.FIXED}, {"seed": 1}):
        with pytest.raises(RolloutError, match=f"began with other .*{next(iter(options))}.* another name"):
            stage.evaluate(tmp_path, simulated(2), **{"samples": 2, **options})
    for other in (simulated(1), [replace(task, prompt="q") for task in simulated(2)]):
        with pytest.raises(RolloutError, match="began with other tasks"):
            stage.evaluate(tmp_path, other, 2)


def test_weights_that_change_meanwhile_are_refused(stage, tmp_path):
    stage.episodes = Simulated({}, version=3)
    with pytest.raises(RolloutError, match="changed its weights meanwhile"):
        stage.evaluate(tmp_path, simulated(2), 2)
    assert not (tmp_path / "evals" / "e.json").exists()


def test_bad_input_is_refused_by_name(stage, tmp_path):
    for name, tasks, samples, said in (
        ("../x", simulated(1), 1, "name: '../x'"),
        ("e", [], 1, "no task to evaluate"),
        ("e", simulated(1), 0, "samples: 0"),
    ):
        with pytest.raises(RolloutError, match=said):
            stage.evaluate(tmp_path, tasks, samples, name=name)
    with pytest.raises(RolloutError, match=r"library: .* has no scaffolds/"):
        stage.evaluate(tmp_path, simulated(1), 1, library=tmp_path)
    engine = ScriptedEngine(chat("qwen3_5"), [], policy_version=None)
    with pytest.raises(EngineError, match="no confirmed weights"):
        asyncio.run(
            evaluate(
                tmp_path,
                "e",
                simulated(1),
                engine,
                chat("qwen3_5"),
                SETTINGS,
                SamplingSettings(),
                arm=Arm.SELF,
                samples=1,
            )
        )


def test_a_choice_of_tasks_is_even_over_categories_and_grows():
    tasks = [replace(task, category="abc"[n % 3] if n < 9 else "c") for n, task in enumerate(simulated(30))]
    six = spread(tasks, 6)
    assert Counter(task.category for task in six) == {"a": 2, "b": 2, "c": 2}
    assert Counter(task.category for task in spread(tasks, 12)) == {"a": 3, "b": 3, "c": 6}
    assert spread(tasks[::-1], 12)[:6] == six
    assert sorted(task.id for task in spread(tasks, None)) == sorted(task.id for task in tasks)


def test_two_results_are_compared_by_task(stage, tmp_path):
    before = stage.evaluate(tmp_path, simulated(4), 2, name="a")
    stage.episodes.ends = {"task-1@0/0": Outcome.FAILED, "task-3@0/0": Outcome.FAILED, "task-3@0/1": Outcome.FAILED}
    after = stage.evaluate(tmp_path, simulated(4), 2, name="b")
    rows = {name: (tasks, change) for name, tasks, change in compare(before, after)}
    assert {name: (tasks, change.value) for name, (tasks, change) in rows.items()} == {
        "all": (4, -0.375),
        "even": (2, 0.0),
        "odd": (2, -0.75),
    }
    assert rows["odd"][1].low == -1
    with pytest.raises(RolloutError, match="evaluate the same tasks"):
        compare(before, {**after, "per_task": {}, "by_category": {}})
    assert [ks_of(n) for n in (1, 4, 6)] == [[1], [1, 2, 4], [1, 2, 4, 6]]


def test_the_expert_passes_in_real_sandboxes_under_every_arm(
    tmp_path,
    base_image,  # noqa: F811
):
    tasks, talk = spread(fledgling.generate(1, 20), 2), load_chat(folder("qwen3_5"), "qwen3_5")
    for arm in Arm:
        engine = ScriptedEngine(talk, expert_script(talk, tasks, SETTINGS), policy_version=7)
        words = {"arm": arm, "samples": 1}
        found = asyncio.run(evaluate(tmp_path, arm.value, tasks, engine, talk, SETTINGS, SamplingSettings(), **words))
        assert (found["pass@1"]["value"], found["policy_version"], found["arm"]) == (1.0, 7, arm.value)
        assert (found["tokens"]["scaffold"] > 0) == (arm is Arm.SELF)
        assert found["tokens"]["scaffold"] < found["tokens"]["sampled"] < found["tokens"]["total"]


def test_proposals_start_from_a_runs_library_and_leave_it_as_it_was(
    tmp_path,
    base_image,  # noqa: F811
):
    [task], talk = spread(fledgling.generate(1, 20), 1), load_chat(folder("qwen3_5"), "qwen3_5")
    scaffold = default_scaffold(bounds_of(task, SETTINGS))
    written = canonical(replace(scaffold, instructions="Look at the tests first."))
    earlier = Library(tmp_path / "run" / "scaffolds")
    earlier.add(
        Proposal(
            group_id="other@0",
            task_id="other",
            category=task.category,
            scaffold_index=0,
            arm=Arm.SELF,
            turns=(turn(Stage.SCAFFOLD, 1),),
            scaffold_id=scaffold_id(written),
            scaffold=written,
        )
    )
    engine = ScriptedEngine(talk, expert_script(talk, [task], SETTINGS))
    words = {"arm": Arm.SELF, "samples": 2, "library": tmp_path / "run"}
    asyncio.run(evaluate(tmp_path, "e", [task], engine, talk, SETTINGS, SamplingSettings(), **words))
    source = Trajectories(tmp_path / "evals" / "e" / "trajectories")
    assert [source[n].scaffold_parent for n in range(2)] == [scaffold_id(written)] * 2
    assert [entry.results for entry in Library(tmp_path / "run" / "scaffolds").entries()] == [()]
