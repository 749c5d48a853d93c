"""What came of a study: tokens, curves, and paired differences at equal tokens, pooled over seeds. Reads, runs nothing.

Every seed has its own tasks, so pooling is over all tasks of all seeds, each one a cluster of its samples. The spread
between trainings from other seeds is more than that: the difference of each seed stands beside the interval.
"""

from __future__ import annotations

from bisect import bisect_right
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict
from itertools import accumulate
from pathlib import Path
from typing import Any

from rollout.outcomes import by_category
from rollout.report.gather import read_lines
from rollout.run_dir import read_json
from rollout.statistics import Estimate, difference, mean_pass_at_k
from rollout.store.reader import Trajectories
from rollout.types import Stage, Trajectory

Marks = Mapping[str, Callable[[Trajectory], bool]]
Pooled = dict[str, dict[str, Sequence[int]]]
"""Category ("all" among them) -> "seed/task" -> (passed, counted)."""


def tokens_by_version(trajectories: Iterable[Trajectory]) -> Counter[int]:
    """Policy version -> tokens that it sampled. Siblings hold the same proposal: it is counted once."""
    found: Counter[int] = Counter()
    known: set[tuple[str, int]] = set()
    for one in trajectories:
        is_new = (one.group_id, one.scaffold_index) not in known
        known.add((one.group_id, one.scaffold_index))
        for turn in one.turns:
            if turn.stage is Stage.SOLUTION or is_new:
                spans = turn.completion.versions
                ends = [*(start for start, _ in spans[1:]), len(turn.completion.token_ids)]
                for (start, version), end in zip(spans, ends, strict=True):
                    found[version] += end - start
    return found


def costs(sampled: Mapping[int, int], newest: int, start: int = 0) -> list[int]:
    """costs[v]: tokens that were sampled before version v was there, for v = 0 to `newest`; never falls."""
    return list(accumulate((sampled.get(version, 0) for version in range(newest)), initial=start))


def affordable(costs: Sequence[int], budget: int) -> int:
    """The newest version that costs no more than `budget`; 0 if none does."""
    return max(0, bisect_right(costs, budget) - 1)


def metrics_of(run: Path) -> list[dict[str, Any]]:
    """The lines of metrics.jsonl, the last one of each batch."""
    found, _ = read_lines(run / "metrics.jsonl")
    return list({record["batch"]: record for record in found}.values())


def version_after(run: Path, batch: int) -> int:
    """The policy version that was there after a batch. Raises SystemExit when the run did not come so far."""
    for record in metrics_of(run):
        if record["batch"] == batch:
            return int(record["step"])
    raise SystemExit(f"{run}: has not trained batch {batch}")


def run_costs(run: Path, start: int) -> list[int]:
    """`costs` of a run's versions, from its log."""
    records = metrics_of(run)
    newest = int(records[-1]["step"]) if records else 0
    log = Trajectories(run / "trajectories")
    return costs(tokens_by_version(log[place] for place in range(len(log))), newest, start)


def seed_costs(folder: Path, parents: Mapping[str, tuple[str, int]]) -> dict[str, list[int]]:
    """Arm -> costs of its versions, those of the arm that it went on from included. Arms without a run are left out."""
    found: dict[str, list[int]] = {}
    for name, (after, at) in parents.items():
        if (folder / name / "trajectories").is_dir() and (not after or after in found):
            start = found[after][version_after(folder / after, at)] if after else 0
            found[name] = run_costs(folder / name, start)
    return found


def collect(
    run: Path, name: str, question: str, baseline: str, parents: Mapping[str, tuple[str, int]], marks: Marks
) -> dict[str, Any]:
    """The content of study.json. Arms and seeds that are not there yet are left out."""
    folders = sorted(run.glob("seed*"), key=lambda folder: int(folder.name[4:]))
    seeds = {int(folder.name[4:]): _seed(folder, parents, marks) for folder in folders}
    arms = {}
    for arm in parents:
        own = {seed: found[arm] for seed, found in seeds.items() if arm in found}
        if own:
            base = {seed: found[baseline] for seed, found in seeds.items() if baseline in found}
            arms[arm] = _arm(own, {} if arm == baseline else base)
    return {"study": name, "question": question, "baseline": baseline, "seeds": sorted(seeds), "arms": arms}


def _seed(folder: Path, parents: Mapping[str, tuple[str, int]], marks: Marks) -> dict[str, dict[str, Any]]:
    """Arm -> its run: evaluations with what their versions cost, and what training was like."""
    found = {}
    all_costs = seed_costs(folder, parents)
    budget = min((cost[-1] for cost in all_costs.values()), default=0)
    for arm, cost in all_costs.items():
        evals = [(int(path.stem[1:]), read_json(path)) for path in sorted((folder / arm / "evals").glob("v*.json"))]
        points = {version: one for version, one in evals if one and version < len(cost)}
        final = affordable(cost, budget)
        kind = next((one["arm"] for one in points.values()), "")
        log = Trajectories(folder / arm / "trajectories")
        found[arm] = {
            "seed": int(folder.name[4:]),
            "before": read_json(folder / "before" / "evals" / f"{kind}.json"),
            "points": [{"tokens": cost[version], "eval": one} for version, one in points.items()],
            "after": points.get(final),
            "is_child": bool(parents[arm][0]),
            "tokens": cost[-1],
            "used": cost[final],
            "metrics": metrics_of(folder / arm),
            "marks": _marked((log[place] for place in range(len(log))), marks) if marks else {},
        }
    return found


def _marked(trajectories: Iterable[Trajectory], marks: Marks) -> dict[str, dict[int, list[int]]]:
    """Mark -> version that the group was admitted at -> [episodes with it, episodes]; failures of ours left out."""
    found: dict[str, dict[int, list[int]]] = {name: defaultdict(lambda: [0, 0]) for name in marks}
    for one in trajectories:
        if not one.stop.is_ours:
            for name, holds in marks.items():
                counts = found[name][one.admitted_version]
                counts[0] += holds(one)
                counts[1] += 1
    return {name: dict(counts) for name, counts in found.items()}


def pool(evals: Mapping[int, Mapping[str, Any] | None]) -> Pooled:
    """Of evaluations by seed: the tasks of all seeds, told apart by the seed."""
    found: Pooled = defaultdict(dict)
    for seed, one in evals.items():
        if one is not None:
            for category, tasks in {"all": one["per_task"], **by_category(one)}.items():
                found[category] |= {f"{seed}/{task}": pair for task, pair in tasks.items()}
    return dict(found)


def rates(evals: Mapping[int, Mapping[str, Any] | None]) -> dict[str, dict[str, float]]:
    """Category -> pass@1 over the tasks of all seeds, with its interval."""
    found = {category: mean_pass_at_k(tasks, 1) for category, tasks in pool(evals).items()}
    return {category: asdict(estimate) for category, estimate in found.items() if estimate is not None}


def differences(
    before: Mapping[int, Mapping[str, Any] | None], after: Mapping[int, Mapping[str, Any] | None]
) -> dict[str, dict[str, float]]:
    """Category -> `after` minus `before` in pass@1, paired by task, over the tasks that both have."""
    ours, theirs = pool(before), pool(after)
    found = {}
    for category in sorted(ours.keys() & theirs.keys(), key=lambda name: (name != "all", name)):
        if any(ours[category][task][1] and theirs[category].get(task, (0, 0))[1] for task in ours[category]):
            found[category] = asdict(difference(ours[category], theirs[category]))
    return found


def _arm(own: Mapping[int, Mapping[str, Any]], base: Mapping[int, Mapping[str, Any]]) -> dict[str, Any]:
    before = {seed: run["before"] for seed, run in own.items()}
    after = {seed: run["after"] for seed, run in own.items()}
    others = {seed: base[seed]["after"] for seed in own if seed in base}
    against = {seed: differences({seed: others[seed]}, {seed: after[seed]}) for seed in others}
    return {
        "before": rates(before),
        "after": rates(after),
        "gain": differences(before, after),
        "difference": differences(others, after) if others else {},
        "difference_by_seed": {seed: found["all"]["value"] for seed, found in against.items() if found},
        "tokens": {seed: {"sampled": run["tokens"], "used": run["used"]} for seed, run in own.items()},
        "curve": _curve(own, before),
        "reward": _by_batch(own, "reward/mean"),
        "staleness": _by_batch(own, "staleness/mean"),
        "staleness_max": max((m.get("staleness/max", 0.0) for run in own.values() for m in run["metrics"]), default=0),
        "ess": _by_batch(own, "ratio/ess"),
        "marks": _all_marks(own),
    }


def _curve(own: Mapping[int, Mapping[str, Any]], before: Mapping[int, Mapping[str, Any] | None]) -> list[dict]:
    """Held-out pass rates by sampled tokens: the first, second, ... evaluation of all seeds together."""
    is_child = any(run["is_child"] for run in own.values())
    found = [] if is_child or not rates(before) else [{"tokens": 0.0, "rates": rates(before)}]
    for place in range(min(len(run["points"]) for run in own.values())):
        points = {seed: run["points"][place] for seed, run in own.items()}
        mean = sum(point["tokens"] for point in points.values()) / len(points)
        found.append({"tokens": mean, "rates": rates({seed: point["eval"] for seed, point in points.items()})})
    return found


def _by_batch(own: Mapping[int, Mapping[str, Any]], name: str) -> dict[int, float]:
    """Batch -> the mean over seeds of a metric."""
    values: dict[int, list[float]] = defaultdict(list)
    for run in own.values():
        for record in run["metrics"]:
            if name in record:
                values[record["batch"]].append(record[name])
    return {batch: sum(found) / len(found) for batch, found in sorted(values.items())}


def _all_marks(own: Mapping[int, Mapping[str, Any]]) -> dict[str, dict[int, float]]:
    """Mark -> version -> share over the episodes of all seeds."""
    sums: dict[str, dict[int, list[int]]] = defaultdict(lambda: defaultdict(lambda: [0, 0]))
    for run in own.values():
        for name, by_version in run["marks"].items():
            for version, (true, count) in by_version.items():
                sums[name][version][0] += true
                sums[name][version][1] += count
    return {name: {version: true / n for version, (true, n) in sorted(found.items())} for name, found in sums.items()}


def shown(estimate: Mapping[str, float] | None, form: str = ".1f") -> str:
    """{"value": 0.5, "low": 0.4, "high": 0.6} -> "50.0 [40.0, 60.0]"; a dash for nothing."""
    if not estimate:
        return "-"
    found = Estimate(**estimate)
    return f"{100 * found.value:{form}} [{100 * found.low:{form}}, {100 * found.high:{form}}]"


def table(found: Mapping[str, Any]) -> str:
    """For people, in percent and points, with 95% intervals."""
    heads = ("arm", "tokens used", "before", "after", "gain", f"minus {found['baseline']}", "by seed")
    lines: list[tuple[str, ...]] = [heads]
    for name, arm in found["arms"].items():
        used = sum(tokens["used"] for tokens in arm["tokens"].values())
        by_seed = ", ".join(f"{100 * value:+.1f}" for value in arm["difference_by_seed"].values()) or "-"
        cells = [shown(arm["before"].get("all")), shown(arm["after"].get("all"))]
        cells += [shown(arm["gain"].get("all"), "+.1f"), shown(arm["difference"].get("all"), "+.1f"), by_seed]
        lines.append((name, f"{used:,}", *cells))
    lines.append(("",) * len(heads))
    for name, arm in found["arms"].items():
        for category, estimate in arm["difference"].items():
            if category != "all":
                lines.append((f"{name}, {category}", "", *[""] * 3, shown(estimate, "+.1f"), ""))
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    rows = ["  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip() for line in lines]
    return "\n".join([found["question"], *rows])
