"""What the filter did: outcomes over time, findings by layer and rule, and examples with their evidence."""

from __future__ import annotations

import math
from collections import Counter, defaultdict
from collections.abc import Sequence

from envs.types import Finding, Layer, Outcome
from rollout.report.gather import Run
from rollout.report.html import Child, Html, folded, join, note, number, percent, share, table, tag, text
from rollout.report.svg import columns, figure, legend
from rollout.types import Trajectory

COLUMNS = 30
EXAMPLES = 3  # of each rule
EVIDENCE_CHARS = 400
OUTCOMES = tuple(
    outcome.value for outcome in (Outcome.PASSED, Outcome.FAILED, Outcome.FLAGGED, Outcome.VETOED, Outcome.INFRA)
)
LAYERS = tuple(Layer)


def outcome(trajectory: Trajectory) -> str:
    """As it counts: what our side stopped is infra, whatever the verdict says."""
    return Outcome.INFRA.value if trajectory.stop.is_ours else trajectory.verdict.outcome.value


def over_time(run: Run) -> list[tuple[str, Counter[str]]]:
    """(groups by number of admission, outcomes of their episodes), in at most COLUMNS steps."""
    numbers = run.ledger.numbers
    last = max((numbers.get(t.group_id, 0) for t in run.trajectories), default=-1)
    size = math.ceil((last + 1) / COLUMNS) or 1
    found: dict[int, Counter[str]] = defaultdict(Counter)
    for trajectory in run.trajectories:
        found[numbers.get(trajectory.group_id, 0) // size][outcome(trajectory)] += 1
    return [(str(step * size) if size == 1 else f"{step * size}+", found[step]) for step in sorted(found)]


def findings(run: Run) -> dict[tuple[Layer, str], list[tuple[Trajectory, Finding]]]:
    """(layer, rule) -> where it was found, oldest first; most frequent rules of a layer first."""
    found: dict[tuple[Layer, str], list[tuple[Trajectory, Finding]]] = defaultdict(list)
    for trajectory in run.trajectories:
        for finding in trajectory.verdict.findings:
            found[finding.layer, finding.rule].append((trajectory, finding))
    order = sorted(found, key=lambda key: (LAYERS.index(key[0]), -len(found[key]), key[1]))
    return {key: found[key] for key in order}


def section(run: Run) -> Html:
    if not run.trajectories:
        return note("No episode has ended yet.")
    found = findings(run)
    return join(
        _outcomes(run),
        _rules(run, found) if found else note(f"No finding in {len(run.trajectories):,} episodes."),
        *_examples(found),
        _records(run),
    )


def _outcomes(run: Run) -> Html:
    steps = over_time(run)
    shares = [(label, {name: count / found.total() for name, count in found.items()}) for label, found in steps]
    chart = columns(shares, OUTCOMES, name="Outcomes over time", x_label="groups, in order of admission", shown=share)
    total = sum((found for _, found in steps), Counter())
    rows: list[Sequence[Child]] = [(label, *(found[name] for name in OUTCOMES)) for label, found in steps]
    rows.append(("all", *(total[name] for name in OUTCOMES)))
    numbers = table(["groups", *OUTCOMES], rows)
    names = legend([f"{name} {number(total[name])}" for name in OUTCOMES])
    return tag("div", figure("Outcomes of episodes", names, chart, numbers=numbers), class_="outcomes")


def _rules(run: Run, found: dict[tuple[Layer, str], list[tuple[Trajectory, Finding]]]) -> Html:
    """How often each rule spoke, early and late: a habit that training feeds grows."""
    half = max(run.ledger.numbers.values(), default=0) / 2
    sizes = Counter(run.ledger.numbers.get(t.group_id, 0) > half for t in run.trajectories)
    rows: list[Sequence[Child]] = []
    for (layer, rule), places in found.items():
        ids = {trajectory.id: run.ledger.numbers.get(trajectory.group_id, 0) > half for trajectory, _ in places}
        late = sum(ids.values())
        shares = [
            percent(count / sizes[part]) if sizes[part] else "–"
            for part, count in ((False, len(ids) - late), (True, late))
        ]
        rows.append((layer.value, tag("code", rule), len(places), len(ids), *shares))
    heads = ["layer", "rule", "findings", "episodes", "share in the first half", "in the second half"]
    return table(heads, rows, "Findings by layer and rule")


def _examples(found: dict[tuple[Layer, str], list[tuple[Trajectory, Finding]]]) -> list[Html]:
    """Spread over the run: the first, the middle, the last."""
    shown = []
    for (layer, rule), places in found.items():
        picked = [places[place] for place in sorted({0, len(places) // 2, len(places) - 1})][:EXAMPLES]
        items = [
            tag(
                "li",
                tag("code", trajectory.id),
                f" {'' if finding.turn < 0 else f'turn {finding.turn}, '}{outcome(trajectory)}: ",
                tag("q", text(finding.evidence, EVIDENCE_CHARS)),
            )
            for trajectory, finding in picked
        ]
        shown.append(folded(join(tag("code", rule), f" ({layer.value}): examples"), tag("ul", *items)))
    return shown


def _records(run: Run) -> Html:
    """Which filter judged: rules and judge by their hashes. More than one means that it was exchanged meanwhile."""
    seen = Counter((layer, judged) for t in run.trajectories for layer, judged in t.verdict.record.items())
    rows = [(layer, tag("code", judged), count) for (layer, judged), count in sorted(seen.items())]
    return folded("which filter judged", table(["layer", "version", "episodes"], rows)) if rows else join()
