"""Passing trajectories for people: a seeded sample laid out for reading, and what people said so far."""

from __future__ import annotations

import hashlib
import json
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from envs.types import Layer, Outcome
from rollout.errors import RolloutError
from rollout.report.gather import Run
from rollout.report.html import Html, folded, join, note, number, table, tag, text
from rollout.report.learning import with_interval
from rollout.report.reviews import DECISIONS, NOTE_CHARS, Review
from rollout.statistics import wilson
from rollout.types import Trajectory

SAMPLE, QUEUE = 24, 8
ALL, OTHERS = "all that passed", "others (the judge was unsure, vetoed, ...)"
MESSAGE_CHARS = 3000
EPISODE_CHARS = 60_000  # of all messages of one trajectory
DIFF_CHARS = 12_000


def sample(run: Run, count: int) -> list[Trajectory]:
    """`count` passing trajectories, as evenly over the categories as there are. The seed of the run chooses.

    Each has a fixed place in a shuffled order, so a run that goes on changes little of what is shown.
    """
    seed = run.setting("seed", 0)
    by_category: dict[str, list[Trajectory]] = defaultdict(list)
    for trajectory in run.trajectories:
        if trajectory.verdict.outcome is Outcome.PASSED and not trajectory.stop.is_ours:
            by_category[trajectory.category].append(trajectory)
    places = []
    for same in by_category.values():
        same.sort(key=lambda trajectory: _shuffled(seed, trajectory.id))
        places += [(place, trajectory.category, trajectory) for place, trajectory in enumerate(same)]
    return [trajectory for _, _, trajectory in sorted(places, key=lambda item: item[:2])][:count]


def queue(run: Run) -> list[Trajectory]:
    """Those about which the judge was unsure, newest first: they passed the tests, and count as flagged."""
    found = [
        trajectory
        for trajectory in run.trajectories
        if any(finding.layer is Layer.JUDGE and finding.rule == "unsure" for finding in trajectory.verdict.findings)
    ]
    return found[: -QUEUE - 1 : -1]


def accepted(run: Run) -> list[tuple[str, int, int]]:
    """(category, accepted, reviewed) of those that passed, by the newest decision on each; then ALL and OTHERS."""
    known = {trajectory.id: trajectory for trajectory in run.trajectories}
    newest: dict[str, Review] = {review.trajectory: review for review in sorted(run.reviews, key=lambda r: r.time)}
    counts: dict[str, list[int]] = defaultdict(lambda: [0, 0])
    for id, review in newest.items():
        if id not in known:
            continue
        for name in (known[id].category, ALL) if known[id].verdict.outcome is Outcome.PASSED else (OTHERS,):
            counts[name][0] += review.decision == "accept"
            counts[name][1] += 1
    order = {ALL: 1, OTHERS: 2}
    return sorted(
        ((name, yes, of) for name, (yes, of) in counts.items()), key=lambda row: (order.get(row[0], 0), row[0])
    )


def disagreements(run: Run) -> list[str]:
    """Trajectories that one reviewer accepts and another rejects."""
    said: dict[str, set[str]] = defaultdict(set)
    for review in run.reviews:
        said[review.trajectory].add(review.decision)
    return sorted(id for id, decisions in said.items() if len(decisions) > 1)


def section(run: Run, whole: Callable[[str], Trajectory], count: int) -> Html:
    """`whole` reads a trajectory with its turns and messages."""
    found, unsure = sample(run, count), queue(run)
    told = (
        "A pass of the tests is not yet a change that one would merge. Read the change first, then how it came about. "
        "Correct for other inputs? Fitted to the visible tests? Brittle? Out of scope?"
    )
    said: dict[str, list[Review]] = defaultdict(list)
    for review in run.reviews:
        said[review.trajectory].append(review)
    cards = [_card(place, light.id, whole, said[light.id]) for place, light in enumerate(found, 1)]
    more = [_card(place, light.id, whole, said[light.id]) for place, light in enumerate(unsure, 1)]
    return join(
        tag("div", _rates(run), id="decisions"),
        note(told),
        _tools() if found or unsure else None,
        cards or note("No trajectory has passed yet."),
        [tag("h3", "Where the judge was unsure"), more] if more else None,
    )


def _rates(run: Run) -> Html:
    rows = [(name, yes, of, with_interval(wilson(yes, of))) for name, yes, of in accepted(run)]
    if not rows:
        return note("Nobody has reviewed a trajectory yet.")
    parts = [
        table(["category", "accepted", "reviewed", "rate, 95 % Wilson"], rows, "Decisions so far"),
        note("The sample is even over categories: the rate of all is that of the sample, not of the run."),
    ]
    if differ := disagreements(run):
        names = [tag("li", tag("code", id)) for id in differ]
        parts.append(tag("div", tag("strong", "Reviewers disagree"), tag("ul", *names), class_="alarm"))
    return join(*parts)


def _tools() -> Html:
    name = tag("label", "Your name ", tag("input", id="reviewer", maxlength=100, placeholder="optional"))
    save = tag("button", "Download my decisions", id="download", type="button")
    told = tag("span", "", id="saved", role="status")
    how = note("Merge a download with ", tag("code", "ornith report RUN --take FILE"), ".")
    return tag("div", name, save, told, how, class_="tools")


def _card(place: int, id: str, whole: Callable[[str], Trajectory], said: Sequence[Review]) -> Html:
    try:
        trajectory = whole(id)
    except RolloutError as error:
        return note(f"{id} cannot be read: {error}")
    turns = int(trajectory.metrics.get("turns", len(trajectory.turns)))
    head = tag("h3", f"{place}. ", tag("code", trajectory.id), tag("small", f" {trajectory.category}, {turns} turns"))
    return tag(
        "article",
        head,
        folded("Task", tag("pre", text(_task(trajectory), MESSAGE_CHARS))),
        folded("Scaffold", tag("pre", text(_pretty(trajectory.scaffold), MESSAGE_CHARS)))
        if trajectory.scaffold
        else None,
        folded("The change that was handed in", _diff(trajectory.diff), open_=True),
        folded(f"How it came about: {len(trajectory.messages)} messages", *_conversation(trajectory)),
        folded("Verdict and evidence", _verdict(trajectory)),
        _earlier(said),
        _form(trajectory),
        class_="card review",
    )


def _task(trajectory: Trajectory) -> str:
    """What the solver was asked: the first message of a user in the second stage."""
    asked = [m for m in trajectory.messages if m.get("role") == "user" and m.get("stage", "solution") == "solution"]
    return str(asked[0].get("content", "")) if asked else "(not recorded)"


def _diff(diff: str) -> Html:
    if not diff:
        return note("No change was recorded.")
    kinds = {"+": "plus", "-": "minus", "@": "hunk", "=": "file"}
    heads = ("--- before", "+++ after")
    shown = [line for line in text(diff, DIFF_CHARS).split("\n") if line not in heads]
    lines = [tag("span", f"{line}\n", class_=kinds.get(line[:1])) for line in shown]
    return tag("pre", *lines, class_="diff")


def _conversation(trajectory: Trajectory) -> list[Html]:
    shown, room = [], EPISODE_CHARS
    for message in trajectory.messages:
        if room <= 0:
            shown.append(note("The rest is left out: ", tag("code", f"ornith show RUN {trajectory.id} --full")))
            break
        words = _words(message)
        room -= min(len(words), MESSAGE_CHARS)
        role = " ".join(str(message.get(key, "")) for key in ("stage", "role", "name")).strip()
        first = words.strip().split("\n")[0][:100]
        shown.append(folded(join(tag("b", role), f" {first}"), tag("pre", text(words, MESSAGE_CHARS))))
    return shown


def _words(message: Mapping[str, object]) -> str:
    calls: Any = message.get("tool_calls") or ()
    parts = [str(message.get(name) or "") for name in ("reasoning_content", "content")]
    for call in calls:
        function = call.get("function", call)
        parts.append(f"→ {function.get('name')} {json.dumps(function.get('arguments'), ensure_ascii=False)}")
    return "\n".join(part for part in parts if part)


def _verdict(trajectory: Trajectory) -> Html:
    verdict = trajectory.verdict
    counts = (
        ", ".join(f"{status}: {number(n)}" for status, n in sorted(_tests(verdict.tests).items())) or "none recorded"
    )
    found = [tag("li", f"{f.layer.value} {f.rule}: ", tag("q", text(f.evidence, 400))) for f in verdict.findings]
    judged = ", ".join(f"{layer}: {by}" for layer, by in sorted(verdict.record.items())) or "not recorded"
    return join(
        tag("p", f"{verdict.outcome.value}, {trajectory.stop.value}. Tests: {counts}. Judged by: {judged}."),
        tag("ul", *found) if found else None,
    )


def _tests(tests: Mapping[str, str]) -> dict[str, int]:
    return {status: sum(one == status for one in tests.values()) for status in set(tests.values())}


def _earlier(said: Sequence[Review]) -> Html | None:
    rows = [
        tag(
            "li",
            tag("b", review.decision),
            f" by {review.reviewer or 'somebody'}",
            f": {review.note}" if review.note else "",
        )
        for review in said
    ]
    return tag("ul", *rows, class_="said") if rows else None


def _form(trajectory: Trajectory) -> Html:
    buttons = [tag("button", word, type="button", data_decision=word) for word in DECISIONS]
    field = tag("textarea", maxlength=NOTE_CHARS, rows=1, placeholder="note", aria_label="note")
    state = tag("span", "", class_="state", role="status")
    return tag("div", *buttons, field, state, class_="decide", data_trajectory=trajectory.id)


def _pretty(document: str) -> str:
    try:
        return json.dumps(json.loads(document), indent=2, ensure_ascii=False)
    except ValueError:
        return document


def _shuffled(seed: Any, id: str) -> str:
    return hashlib.sha256(f"{seed}/{id}".encode(errors="surrogatepass")).hexdigest()
