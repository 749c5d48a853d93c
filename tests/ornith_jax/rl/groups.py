"""Groups for tests: a table of outcomes becomes trajectories with real turns."""

from __future__ import annotations

from collections.abc import Sequence

from envs.types import Outcome, Verdict
from rollout.types import Arm, Completion, Finish, Group, Stage, StopReason, Trajectory, Turn


def turn(stage: Stage, prompt: Sequence[int], written: Sequence[int], version: int = 0) -> Turn:
    completion = Completion(
        token_ids=tuple(written),
        behavior_logprobs=tuple(-0.5 for _ in written),
        versions=((0, version),) if written else (),
        finish=Finish.STOP,
    )
    return Turn(stage=stage, prompt_ids=tuple(prompt), completion=completion)


def trajectory(n: int, k: int, kind: str, *, arm: Arm = Arm.SELF, version: int = 0) -> Trajectory:
    """One with two scaffold tokens and a solution of 3 + k tokens in two turns. `kind`: an outcome, or bad_scaffold,
    or late_infra (a verdict of failed, and a stop that was our fault)."""
    stops = {"bad_scaffold": StopReason.BAD_SCAFFOLD, "late_infra": StopReason.SANDBOX_ERROR}
    outcomes = {"bad_scaffold": Outcome.FAILED, "late_infra": Outcome.FAILED}
    proposal = (turn(Stage.SCAFFOLD, [1, 10 + n], [2, 20 + n], version),) if arm is Arm.SELF else ()
    first = turn(Stage.SOLUTION, [3, 30 + n], [4, *([50] * k)], version)
    second = turn(Stage.SOLUTION, [*first.prompt_ids, *first.completion.token_ids, 60], [5, 70 + k], version)
    return Trajectory(
        id=f"t@0/{n}/{k}",
        group_id="t@0",
        task_id="t",
        category="c",
        scaffold_index=n,
        solution_index=k,
        arm=arm,
        turns=proposal if kind == "bad_scaffold" else (*proposal, first, second),
        stop=stops.get(kind, StopReason.SUBMITTED),
        verdict=Verdict(outcome=outcomes.get(kind) or Outcome(kind)),
    )


def group(table: Sequence[Sequence[str]], *, arm: Arm = Arm.SELF, version: int = 0) -> Group:
    """table[n][k] is the kind of solution k under scaffold n; rows may be uneven."""
    trajectories = tuple(
        trajectory(n, k, kind, arm=arm, version=version) for n, row in enumerate(table) for k, kind in enumerate(row)
    )
    return Group(id="t@0", task_id="t", category="c", trajectories=trajectories)
