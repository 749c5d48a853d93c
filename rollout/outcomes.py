"""What an evaluation's log comes to: its samples, and the result that `RUN/evals/NAME.json` holds.

    {"name", "arm", "policy_version", "samples", "seed", "sampling", "rollout", "library",   what was asked
     "tasks": 40, "pass@1": {"value", "low", "high"}, "pass@2": ..., "pass@4": ...,
     "by_category": {"fix": {"value", "low", "high", "n": 32, "task_ids": [...], "pass@2": ..., "pass@4": ...}},
     "outcomes": {"passed": 90, "failed": 68, "flagged": 2},          of the samples that count
     "stops": {"submitted": 120, "max_turns": 40},
     "infra": {"episodes": 3, "causes": {"sandbox": 3}, "missing": 0},  tried again; what is missing in the end
     "per_task": {"fix-7": [2, 4]},                                   passed, counted
     "tokens": {"sampled", "scaffold", "total"}, "seconds"}

Flagged and vetoed samples count, as not passed. Failures of ours never do. `value` of a category is its pass@1.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from envs.types import Outcome, Task
from rollout.errors import RolloutError
from rollout.statistics import Estimate, Outcomes, difference, mean_pass_at_k
from rollout.store.codec import from_json
from rollout.store.index import Index
from rollout.types import Stage, Trajectory


@dataclass(frozen=True, slots=True, kw_only=True)
class Sample:
    """One episode of the log, without its text."""

    task_id: str
    order: tuple[int, int]  # round of its group, place in it: samples count in this order, not in that of their ends
    outcome: str
    stop: str
    cause: str
    counts: bool  # False: a failure of ours
    versions: frozenset[int]  # that wrote tokens of it
    scaffold_tokens: int
    sampled_tokens: int  # of both stages
    total_tokens: int  # prompts too, each as often as it was sent


def read_samples(folder: Path) -> tuple[list[Sample], set[str]]:
    """(every episode in the log, the ids of the groups that have ended). Damaged records are left out."""
    index = Index(folder)
    index.refresh()
    found = []
    for entry in index.of_kind("trajectory"):
        found.append(_sample(from_json(Trajectory, index.read("trajectory", entry.id), f"trajectory {entry.id}")))
    return found, {entry.id for entry in index.of_kind("closed")}


def round_of(group_id: str) -> int:
    """ "fix-7@2" -> 2"""
    return int(group_id.rpartition("@")[2])


def counted(samples: Iterable[Sample], wanted: int) -> dict[str, list[Sample]]:
    """Task id -> the first `wanted` samples that count, in the order in which they were asked for."""
    by_task: dict[str, list[Sample]] = defaultdict(list)
    for sample in sorted(samples, key=lambda sample: sample.order):
        if sample.counts and len(by_task[sample.task_id]) < wanted:
            by_task[sample.task_id].append(sample)
    return dict(by_task)


def result(
    asked: Mapping[str, Any], tasks: Sequence[Task], samples: Sequence[Sample], seconds: float
) -> dict[str, Any]:
    """The content of the result file. Raises RolloutError when nothing counts."""
    wanted = asked["samples"]
    by_task = counted(samples, wanted)
    valid = [sample for found in by_task.values() for sample in found]
    if not valid:
        causes = ", ".join(sorted({sample.cause or sample.stop for sample in samples})) or "no episode"
        raise RolloutError(f"{asked['name']}: not one sample counts ({causes}); mend that and start it again")
    outcomes = {task.id: _passed(by_task.get(task.id, ())) for task in tasks}
    ours = [sample for sample in samples if not sample.counts]
    return {
        **asked,
        "tasks": len(tasks),
        **_passes(outcomes, wanted),
        "by_category": _by_category(tasks, outcomes, wanted),
        "outcomes": dict(Counter(sample.outcome for sample in valid).most_common()),
        "stops": dict(Counter(sample.stop for sample in valid).most_common()),
        "infra": {
            "episodes": len(ours),
            "causes": dict(Counter(sample.cause or sample.stop for sample in ours).most_common()),
            "missing": wanted * len(tasks) - len(valid),
        },
        "per_task": {task: list(pair) for task, pair in outcomes.items()},
        "tokens": {
            "sampled": sum(sample.sampled_tokens for sample in valid),
            "scaffold": sum(sample.scaffold_tokens for sample in valid),
            "total": sum(sample.total_tokens for sample in valid),
        },
        "seconds": round(seconds, 1),
    }


def by_category(found: Mapping[str, Any]) -> dict[str, Outcomes]:
    """Of a result: category -> outcomes of its tasks, as `rollout.drift` takes them."""
    tasks = found["per_task"]
    return {name: {id: tasks[id] for id in one["task_ids"]} for name, one in found["by_category"].items()}


def compare(before: Mapping[str, Any], after: Mapping[str, Any]) -> list[tuple[str, int, Estimate]]:
    """(category, tasks in both, `after` minus `before` in pass@1) for "all" and every category that both have.

    Raises RolloutError when the two have no task in common.
    """
    ours, theirs = by_category(before), by_category(after)
    pairs = [("all", before["per_task"], after["per_task"])]
    pairs += [(name, ours[name], theirs[name]) for name in sorted(ours.keys() & theirs.keys())]
    sizes = [sum(1 for id in a.keys() & b.keys() if a[id][1] and b[id][1]) for _, a, b in pairs]
    if not sizes[0]:
        raise RolloutError(
            f"{before['name']} and {after['name']}: no task has samples in both; evaluate the same tasks"
        )
    return [(name, size, difference(a, b)) for (name, a, b), size in zip(pairs, sizes, strict=True) if size]


def ks_of(samples: int) -> list[int]:
    """The k of pass@k that are reported: powers of two, and all samples. 6 -> 1, 2, 4, 6"""
    return sorted({1 << power for power in range(samples.bit_length())} | {samples})


def _passes(outcomes: Outcomes, samples: int) -> dict[str, Any]:
    found = {k: mean_pass_at_k(outcomes, k) for k in ks_of(samples)}
    return {f"pass@{k}": asdict(estimate) for k, estimate in found.items() if estimate is not None}


def _by_category(tasks: Sequence[Task], outcomes: Outcomes, samples: int) -> dict[str, Any]:
    found = {}
    for name in sorted({task.category for task in tasks}):
        ids = [task.id for task in tasks if task.category == name]
        own = {id: outcomes[id] for id in ids}
        passes = _passes(own, samples)
        if passes:
            count = sum(n for _, n in own.values())
            found[name] = {**passes.pop("pass@1"), "n": count, "task_ids": ids, **passes}
    return found


def _passed(samples: Sequence[Sample]) -> tuple[int, int]:
    return sum(sample.outcome == Outcome.PASSED for sample in samples), len(samples)


def _sample(trajectory: Trajectory) -> Sample:
    wrote = [(turn.stage, len(turn.completion.token_ids)) for turn in trajectory.turns]
    sampled = sum(tokens for _, tokens in wrote)
    return Sample(
        task_id=trajectory.task_id,
        order=(round_of(trajectory.group_id), trajectory.scaffold_index),
        outcome=trajectory.verdict.outcome.value,
        stop=trajectory.stop.value,
        cause=trajectory.verdict.cause,
        counts=not trajectory.stop.is_ours and trajectory.verdict.outcome is not Outcome.INFRA,
        versions=frozenset(span[1] for turn in trajectory.turns for span in turn.completion.versions),
        scaffold_tokens=sum(tokens for stage, tokens in wrote if stage is Stage.SCAFFOLD),
        sampled_tokens=sampled,
        total_tokens=sampled + sum(len(turn.prompt_ids) for turn in trajectory.turns),
    )
