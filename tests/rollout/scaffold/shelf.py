"""Proposals and trajectories for tests of the library, made without an episode."""

import json
from pathlib import Path

from envs.types import Outcome, Verdict
from rollout.scaffold.document import scaffold_id
from rollout.scaffold.library import Library
from rollout.types import Arm, Completion, Finish, Proposal, Stage, StopReason, Trajectory, Turn

TURN = Turn(
    stage=Stage.SCAFFOLD,
    prompt_ids=(1,),
    completion=Completion(token_ids=(2,), behavior_logprobs=(-1.0,), versions=((0, 0),), finish=Finish.STOP),
)


def proposal(
    name: str, *, parent: str = "", task: str = "t1", category: str = "edge", turns=(TURN,), version: int = 0
) -> Proposal:
    """A scaffold whose document is the JSON text of its name, of a group admitted at `version`."""
    document = json.dumps({"instructions": name})
    return Proposal(
        group_id=f"{task}@0",
        task_id=task,
        category=category,
        scaffold_index=0,
        arm=Arm.SELF,
        turns=turns,
        scaffold_id=scaffold_id(document),
        scaffold_parent=parent,
        scaffold=document,
        admitted_version=version,
    )


def solved(under: Proposal, number: int, outcome: Outcome, stop=StopReason.SUBMITTED) -> Trajectory:
    return Trajectory(
        id=f"{under.scaffold_id}/{number}",
        group_id=under.group_id,
        task_id=under.task_id,
        category=under.category,
        scaffold_index=0,
        solution_index=number,
        arm=Arm.SELF,
        turns=(),
        scaffold_id=under.scaffold_id,
        stop=stop,
        verdict=Verdict(outcome=outcome),
        admitted_version=under.admitted_version,
    )


PASSED, FAILED = Outcome.PASSED, Outcome.FAILED


def filled(folder: Path) -> Library:
    """Three scaffolds of one task: one that fails, one that passes, a last one in between."""
    made = Library(folder)
    parent = ""
    for name, outcomes in (("bad", (FAILED, FAILED)), ("good", (PASSED, PASSED)), ("fair", (PASSED, FAILED))):
        written = proposal(name, parent=parent)
        made.add(written)
        parent = written.scaffold_id
        for number, outcome in enumerate(outcomes):
            made.reward(solved(written, number, outcome))
    return made


def named(entry) -> str:
    return json.loads(entry.document)["instructions"]
