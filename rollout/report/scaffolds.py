"""Scaffolds: the lineage of the winners, what was changed from parent to child, and where the fields moved."""

from __future__ import annotations

import difflib
import itertools
import json
import math
from collections import defaultdict
from collections.abc import Sequence
from typing import Any

import numpy as np

from rollout.report.gather import Run
from rollout.report.html import Html, folded, join, note, number, percent, table, tag
from rollout.report.lineage import ENOUGH, Step, by_id, changed_fields, changes, fields, path, steps, winner
from rollout.report.svg import Node, Series, figure, lines, tree
from rollout.scaffold.library import Entry
from rollout.scaffold.prompt import record

TASKS = 6  # whose winners are shown
NODES = 200  # of one tree
BINS = 10  # of the curves over time
ROWS = 15  # of the table of fields
WORDS = 600  # of a text in a table of changes
KEY_FIELDS = {
    "phases": lambda found: sum(name.endswith("].name") for name in found),
    "verify before submit (share)": lambda found: found.get("orchestration.verify_before_submit"),
    "attempts": lambda found: found.get("orchestration.attempts"),
    "instructions (characters)": lambda found: len(str(found.get("instructions", ""))),
    "memory: longest observation": lambda found: found.get("memory.observation_chars"),
    "memory: turns to a new context": lambda found: found.get("memory.refresh_turns"),
    "memory: room for notes": lambda found: found.get("memory.notes_chars"),
    "retries on failed tests": lambda found: found.get("error_handling.tests_failed.retries"),
}


def section(run: Run) -> Html:
    if not run.scaffolds:
        return note("No scaffold was written: the arm has none, or no proposal has ended yet.")
    found = steps(run.scaffolds)
    return join(
        _summary(run.scaffolds, found),
        tag("h3", "Winners"),
        *_winners(run.scaffolds),
        tag("h3", "What was changed where it helped"),
        _field_table(found),
        tag("h3", "Where the fields moved"),
        _over_time(run.scaffolds),
    )


def _summary(entries: Sequence[Entry], found: Sequence[Step]) -> Html:
    gained, lost = (sum(test(step.gain) for step in found) for test in (lambda g: g > 0, lambda g: g < 0))
    documents, tasks = len({entry.id for entry in entries}), len({entry.task_id for entry in entries})
    return note(
        f"{documents:,} different scaffolds for {tasks:,} tasks. Of {len(found):,} rewrites with at least {ENOUGH} "
        f"results on both sides, {gained:,} gained, {lost:,} lost and {len(found) - gained - lost:,} stayed. "
        "A mean of few results moves by chance: look for what repeats."
    )


def _winners(entries: Sequence[Entry]) -> list[Html]:
    """Of the tasks where the winner stands highest above where its line began."""
    found, known = [], by_id(entries)
    by_task: dict[str, list[Entry]] = defaultdict(list)
    for entry in entries:
        by_task[entry.task_id].append(entry)
    for own in by_task.values():
        best = winner(own)
        if best is not None:
            line = path(best, known)
            found.append(((best.mean or 0) - (line[0].mean or 0), len(line), best, line, own))
    found.sort(key=lambda item: (-item[0], -item[1], item[2].task_id))
    if not found:
        return [note(f"No scaffold has {ENOUGH} results yet.")]
    return [_winner(best, line, own) for _, _, best, line, own in found[:TASKS]]


def _winner(best: Entry, line: Sequence[Entry], own: Sequence[Entry]) -> Html:
    head = tag("span", tag("b", best.task_id), f" ({best.category}): ", f"{_mean(line[0])} → {_mean(best)} in ")
    told = [tag("li", tag("code", entry.id), f" version {entry.version}. {record(entry)}") for entry in line]
    differ = [_changes(before, after) for before, after in itertools.pairwise(line)]
    drawn = _tree(own, {entry.id for entry in line})
    document = tag("pre", json.dumps(_document(best), indent=2, ensure_ascii=False))
    return folded(
        tag("span", head, f"{len(line) - 1} rewrites"),
        figure("All scaffolds of the task; the winner's line is drawn strong", drawn),
        tag("ol", *told),
        *differ,
        folded("the winner's document", document),
        class_="card",
    )


def _tree(own: Sequence[Entry], marked: set[str]) -> Html:
    kept = [entry for entry in own if entry.id in marked]
    kept += [entry for entry in own if entry.id not in marked][: max(0, NODES - len(kept))]
    place = {entry.id: index for index, entry in enumerate(kept)}
    nodes = [
        Node(
            depth=_depth(entry, {one.id: one for one in kept}),
            value=entry.mean,
            parent=place.get(entry.parent),
            label=f"{entry.id}: {record(entry)}",
            is_marked=entry.id in marked,
        )
        for entry in kept
    ]
    return tree(nodes, name="Scaffolds by generation and mean reward", shown=number)


def _depth(entry: Entry, known: dict[str, Entry]) -> int:
    seen = {entry.id}
    while entry.parent in known and entry.parent not in seen:
        entry = known[entry.parent]
        seen.add(entry.id)
    return len(seen) - 1


def _changes(before: Entry, after: Entry) -> Html:
    rows = [(tag("code", name), _differing(old, new)) for name, old, new in changes(before.document, after.document)]
    title = f"{before.id[:8]} → {after.id[:8]}: {_mean(before)} → {_mean(after)}, {len(rows)} fields changed"
    return folded(title, table(["field", "change"], rows))


def _differing(old: Any, new: Any) -> Html:
    """Words that went struck out, words that came underlined."""
    a, b = (_words(value) for value in (old, new))
    parts: list[Html | str] = []
    for kind, i0, i1, j0, j1 in difflib.SequenceMatcher(None, a, b, autojunk=False).get_opcodes():
        if kind == "equal":
            parts.append(join(" ".join(a[i0:i1]), " "))
        else:
            parts += [tag("del", " ".join(a[i0:i1])), " "] if i1 > i0 else []
            parts += [tag("ins", " ".join(b[j0:j1])), " "] if j1 > j0 else []
    return tag("span", *parts)


def _words(value: Any) -> list[str]:
    if value is None:
        return []
    words = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
    return (words if len(words) <= WORDS else f"{words[:WORDS]} ...").split() or ["(empty)"]


def _field_table(found: Sequence[Step]) -> Html:
    rows = changed_fields(found)
    if not rows:
        return note("No rewrite has enough results on both sides yet.")
    gained = sum(step.gain > 0 for step in found)
    others = len(found) - gained
    shown = [
        (tag("code", name), _share(won, gained), _share(not_won, others), f"{gain:+.3f}")
        for name, won, not_won, gain in rows[:ROWS]
    ]
    heads = ["field", f"changed in the {gained} that gained", f"in the {others} that did not", "mean gain when changed"]
    return table(heads, shown)


def _share(count: int, of: int) -> str:
    return f"{count} ({percent(count / of)})" if of else "–"


def _over_time(entries: Sequence[Entry]) -> Html:
    """Median and quartiles, by the policy version at which a scaffold was written last."""
    ordered = sorted(entries, key=lambda entry: (entry.version, entry.order))
    size = math.ceil(len(ordered) / BINS)
    cuts = [ordered[start : start + size] for start in range(0, len(ordered), size)]
    found = [[fields(entry.document) for entry in cut] for cut in cuts]
    charts = []
    for name, value_of in KEY_FIELDS.items():
        places, values = [], []
        for cut, documents in zip(cuts, found, strict=True):
            seen = [float(value) for one in documents if isinstance(value := value_of(one), int | float)]
            if seen:
                places.append(sum(entry.version for entry in cut) / len(cut))
                values.append(_middle(seen, is_share="share" in name))
        if values:
            middle, low, high = (list(column) for column in zip(*values, strict=True))
            series = Series(name=name, x=places, y=middle, low=low, high=high)
            rows = [(number(x), number(m), number(a), number(b)) for x, (m, a, b) in zip(places, values, strict=True)]
            numbers = table(["version", "middle", "lower", "upper"], rows)
            charts.append(figure(name, lines([series], name=name, x_label="version", small=True), numbers=numbers))
    told = "Medians with quartiles of the scaffolds written around a version; shares are means."
    return join(note(told), tag("div", *charts, class_="multiples"))


def _middle(values: Sequence[float], *, is_share: bool) -> tuple[float, float, float]:
    if is_share:
        mean = sum(values) / len(values)
        return mean, mean, mean
    low, middle, high = np.quantile(values, [0.25, 0.5, 0.75])
    return float(middle), float(low), float(high)


def _mean(entry: Entry) -> str:
    return "no result" if entry.mean is None else f"{entry.mean:.2f} (of {len(entry.results)})"


def _document(entry: Entry) -> Any:
    try:
        return json.loads(entry.document)
    except ValueError:
        return entry.document
