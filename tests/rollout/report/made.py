"""A run directory as a run leaves it, made without one: real log, library, plans and events; invented numbers.

Hand-counted where tests count; random (seeded) where only the shape matters.
"""

from __future__ import annotations

import asyncio
import json
import random
from dataclasses import asdict, replace
from pathlib import Path

from envs.types import Finding, Layer, Limits, Outcome, Task, Verdict, Verification
from rollout.ledger import Admission, closing_of
from rollout.outcomes import Sample, result
from rollout.run_dir import BatchPlan, Events, Progress, beat, write_json, write_plan, write_progress
from rollout.scaffold.document import (
    ErrorHandling,
    Memory,
    Orchestration,
    Phase,
    Rule,
    Scaffold,
    canonical,
    scaffold_id,
)
from rollout.scaffold.library import Library
from rollout.store.store import Store
from rollout.types import Arm, Completion, Finish, Proposal, Stage, StopReason, Trajectory, Turn

HOSTILE = "</script><script>alert(1)</script><img src=x onerror=alert(2)>\u202e\x1b[31m\ud800 & \"quoted\" 'too'"
TURN = Turn(
    stage=Stage.SCAFFOLD,
    prompt_ids=(1, 2),
    completion=Completion(token_ids=(3,), behavior_logprobs=(-1.0,), versions=((0, 0),), finish=Finish.STOP),
)


def scaffold(words: str = "Look first.", **changes: object) -> str:
    """A document; `changes` are of Memory's fields, or `retries`, `verify`, `phases`."""
    memory = {name: value for name, value in changes.items() if name in Memory.__dataclass_fields__}
    phases = tuple(
        Phase(name=f"part {n}", goal=f"Do part {n}.", max_turns=5) for n in range(int(str(changes.get("phases", 1))))
    )
    return canonical(
        Scaffold(
            instructions=words,
            memory=Memory(**memory),
            error_handling=ErrorHandling(tests_failed=Rule(retries=int(str(changes.get("retries", 2))))),
            orchestration=Orchestration(phases=phases, verify_before_submit=bool(changes.get("verify"))),
        )
    )


def proposal(group: str, index: int = 0, *, document: str = "", parent: str = "", category: str = "edge", version=0):
    document = document or scaffold()
    return Proposal(
        group_id=group,
        task_id=group.rpartition("@")[0],
        category=category,
        scaffold_index=index,
        arm=Arm.SELF,
        turns=(TURN,),
        scaffold_id=scaffold_id(document),
        scaffold_parent=parent,
        scaffold=document,
        admitted_version=version,
    )


def trajectory(under: Proposal, number: int, outcome: Outcome = Outcome.PASSED, **fields: object) -> Trajectory:
    call = {"function": {"name": "edit", "arguments": {"path": "app/card.py", "old": "+ 1", "new": "+ 2"}}}
    made = Trajectory(
        id=f"{under.id}/{number}",
        group_id=under.group_id,
        task_id=under.task_id,
        category=under.category,
        scaffold_index=under.scaffold_index,
        solution_index=number,
        arm=Arm.SELF,
        turns=(TURN,),
        scaffold_id=under.scaffold_id,
        scaffold_parent=under.scaffold_parent,
        scaffold=under.scaffold,
        stop=StopReason.SUBMITTED,
        verdict=Verdict(outcome=outcome, record={"monitor": "ab12", "judge": "none"}, tests={"test_a": "passed"}),
        messages=(
            {"role": "user", "content": "Mend the price of a card.", "stage": "solution"},
            {"role": "assistant", "content": "I add two.", "tool_calls": [call], "stage": "solution"},
            {"role": "tool", "name": "edit", "content": "done", "stage": "solution"},
        ),
        diff="=== changed app/card.py\n--- before\n+++ after\n@@ -1 +1 @@\n-price + 1\n+price + 2",
        admitted_version=under.admitted_version,
        metrics={"turns": 3, "engine_s": 6.0, "scaffold_s": 2.0, "tools_s": 1.5, "verify_s": 0.5},
    )
    return replace(made, **fields)  # type: ignore[arg-type]


def store(run: Path, groups: list[list[Trajectory]], dropped: dict[str, str] | None = None) -> None:
    """Into the log and, what belongs there, into the library. Groups are admitted in the order of the list."""

    async def write() -> None:
        library = Library(run / "scaffolds")
        async with await Store.open(run / "trajectories") as log:
            for number, members in enumerate(groups):
                id, first = members[0].group_id, members[0]
                await log.append("admitted", id, asdict(_admission(number, members)))
                for one in members:
                    await log.append("trajectory", one.id, one)
                    if one.solution_index == 0 and one.scaffold:
                        library.add(_proposed(one))
                    library.reward(one)
                await log.append("closed", id, closing_of(members, 2))
                if dropped and id in dropped:
                    await log.append("dropped", id, {"reason": dropped[id]})
                assert first.group_id == id
        library.close()

    asyncio.run(write())


def evaluation(run: Path, name: str, version: int, per_task: dict[str, tuple[str, int]], samples: int = 4, arm="self"):
    """`per_task`: task id -> (category, how many of the samples passed)."""
    tasks = [_task(id, category) for id, (category, _) in per_task.items()]
    found = [
        Sample(
            task_id=id,
            order=(0, place),
            outcome="passed" if place < passed else "failed",
            stop="submitted",
            cause="",
            counts=True,
            versions=frozenset({version}),
            scaffold_tokens=1,
            sampled_tokens=2,
            total_tokens=3,
        )
        for id, (_, passed) in per_task.items()
        for place in range(samples)
    ]
    asked = {"name": name, "arm": arm, "policy_version": version, "samples": samples}
    write_json(run / "evals" / f"{name}.json", result(asked, tasks, found, 1.0))


def _task(id: str, category: str) -> Task:
    return Task(
        id=id, source="native", category=category, prompt="", verification=Verification(kind="pytest"), limits=Limits()
    )


def _admission(number: int, members: list[Trajectory]) -> Admission:
    first = members[0]
    return Admission(
        group_id=first.group_id,
        task_id=first.task_id,
        number=number,
        admitted_version=first.admitted_version,
        scaffolds=1 + max(one.scaffold_index for one in members),
        solutions=1 + max(one.solution_index for one in members),
    )


def _proposed(one: Trajectory) -> Proposal:
    made = proposal(one.group_id, one.scaffold_index, document=one.scaffold, parent=one.scaffold_parent)
    return replace(made, category=one.category, admitted_version=one.admitted_version)


def metrics(run: Path, lines: list[dict]) -> None:
    run.mkdir(parents=True, exist_ok=True)
    (run / "metrics.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))


WORDS = ("look", "read", "change", "check", "run", "think", "compare", "small", "first", "then", "twice")
CATEGORIES = ("edge", "format", "rename", "spec", "traceback", "decoy")


def whole_run(run: Path, batches: int = 24, groups: int = 4, seed: int = 0) -> Path:
    """A run that learns, but for one category that falls; with everything that a report can tell."""
    rng, made, parents = random.Random(seed), [], {}
    write_json(
        run / "config.json",
        {
            "name": "made up",
            "model": "models/tiny",
            "seed": seed,
            "rollout": {"max_staleness": 4, "arm": "self"},
            "train": {"steps": batches},
        },
    )
    for number in range(batches * groups):
        batch = number // groups + 1
        category = CATEGORIES[number % len(CATEGORIES)]
        task = f"{category}-{number % 12}"
        id = f"{task}@{number // 12}"
        progress = batch / batches
        chance = 0.7 - 0.55 * progress if category == "decoy" else 0.15 + 0.7 * progress
        members = []
        for index in range(3):
            retries, notes = rng.choice((1, 2, 3)), rng.choice((0, 400))
            verify = rng.random() < progress
            words = " ".join(rng.sample(WORDS, 6))
            document = scaffold(
                words, retries=retries, notes_chars=notes, verify=verify, phases=1 + round(2 * progress * rng.random())
            )
            under = proposal(
                id, index, document=document, parent=parents.get(task, ""), category=category, version=batch - 1
            )
            members += [_solved(under, place, min(0.97, chance + 0.15 * verify), rng) for place in range(4)]
            if rng.random() < 0.5:
                parents[task] = under.scaffold_id
        made.append(members)
    dropped = {made[3][0].group_id: "stale", made[5][0].group_id: "no_update"}
    store(run, made, dropped)
    ids = [members[0].group_id for members in made]
    for batch in range(1, batches + 1):
        planned = tuple(id for id in ids[(batch - 1) * groups : batch * groups] if id not in dropped)
        write_plan(run, BatchPlan(batch=batch, groups=planned, policy_version=batch - 1))
    metrics(run, [_line(batch, rng) for batch in range(1, batches + 1)])
    for version, lift in ((0, 0.2), (batches // 2, 0.45), (batches, 0.75)):
        per_task = {}
        for place in range(60):
            category = CATEGORIES[place % len(CATEGORIES)]
            chance = 0.8 - lift if category == "decoy" else lift
            per_task[f"held-{category}-{place}"] = (category, sum(rng.random() < chance for _ in range(4)))
        evaluation(run, f"self-{version}", version, per_task)
    write_progress(run, Progress(batch=batches, policy_version=batches, is_finished=True))
    _events(run, batches, rng)
    return run


def _solved(under: Proposal, place: int, chance: float, rng: random.Random) -> Trajectory:
    at = rng.random()
    if at < 0.02:
        broken = Verdict(outcome=Outcome.INFRA, cause=rng.choice(("vanished", "timeout")))
        return trajectory(under, place, stop=StopReason.SANDBOX_ERROR, verdict=broken, diff="")
    if at < 0.09:
        rule, layer = rng.choice(
            (("decoy_read", Layer.MONITOR), ("test_aware", Layer.MONITOR), ("twin", Layer.BOUNDARY))
        )
        found = Finding(layer=layer, rule=rule, evidence=f"/withheld/test_m.py {HOSTILE}", turn=2)
        return trajectory(
            under, place, verdict=Verdict(outcome=Outcome.FLAGGED, findings=(found,), record={"monitor": "ab12"})
        )
    if at < 0.1:
        found = Finding(layer=Layer.JUDGE, rule="gaming", evidence="if x == 7: return 49")
        return trajectory(under, place, verdict=Verdict(outcome=Outcome.VETOED, findings=(found,)))
    return trajectory(under, place, Outcome.PASSED if rng.random() < chance else Outcome.FAILED)


def _line(batch: int, rng: random.Random) -> dict:
    fresh = 0.4 + 0.2 * rng.random()
    return {
        "batch": batch,
        "step": batch,
        "loss": 0.4 / batch + 0.02 * rng.random(),
        "tokens": 9000 + rng.randrange(3000),
        "ratio/mean": 1 + 0.01 * rng.gauss(0, 1),
        "ratio/max": 1.5 + rng.random(),
        "ratio/ess": 0.96 - 0.05 * rng.random(),
        "kl/engine": 0.004 + 0.002 * rng.random(),
        "kl/engine_fresh": 0.0003 * rng.random(),
        "clip/low": 0.01 * rng.random(),
        "clip/high": 0.02 * rng.random(),
        "entropy": 0.8 - 0.01 * batch,
        "optim/grad_norm": None if batch == 3 else 0.3 + 0.2 * rng.random(),
        "staleness/0": fresh,
        "staleness/1": 0.9 - fresh,
        "staleness/2": 0.1,
        "staleness/beyond": 0.0,
        "time/wait_s": 4 + 2 * rng.random(),
        "time/step_s": 2 + 0.2 * rng.random(),
        "time/publish_s": 0.4 + 0.1 * rng.random(),
    }


def _events(run: Path, batches: int, rng: random.Random) -> None:
    driver, learner, supervisor = (Events(run, name) for name in ("driver", "learner", "supervisor"))
    for events in (supervisor, learner, driver, driver):
        events.add("started")
    for version in range(1, batches + 1):
        driver.add(
            "synced", policy_version=version, load_s=0.3 + 0.1 * rng.random(), pause_s=0.01 + 0.02 * rng.random()
        )
        driver.add(
            "engine_synced",
            engine="engine-0",
            policy_version=version,
            pause_s=0.01,
            canary_max_diff=1e-6 * rng.random(),
        )
        driver.add("tally", benched=0)
    supervisor.add("died", child="driver", code=-9, restarts=0, tail=HOSTILE)
    for process in ("driver", "learner", "engine-0"):
        beat(run, process, "done")
