"""What happened to the machinery: restarts, hangs, failures of ours by cause, groups and tasks given up."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any

from envs.types import Outcome
from rollout.report.gather import ALIVE_S, Run
from rollout.report.html import Html, duration, folded, join, note, percent, table, tag, text

ROUTINE = (
    "tally",
    "planned",
    "published",
    "synced",
    "engine_synced",
)  # these come with every batch; others are told one by one
EVENTS = 100
DETAILS = 400


def restarts(run: Run) -> Counter[str]:
    """By process: how often the supervisor found it dead and started it again."""
    return Counter(str(event.get("child", "?")) for event in run.events if event.get("event") == "died")


def infra(run: Run) -> Counter[tuple[str, str]]:
    """(stop reason, cause) of episodes that our side did not bring to an end."""
    return Counter(
        (trajectory.stop.value, trajectory.verdict.cause or "not told")
        for trajectory in run.trajectories
        if trajectory.stop.is_ours or trajectory.verdict.outcome is Outcome.INFRA
    )


def section(run: Run) -> Html:
    return join(_processes(run), _events(run), _failures(run), _given_up(run), _problems(run))


def _processes(run: Run) -> Html:
    """Starts and last signs of life."""
    started = Counter(str(e.get("process")) for e in run.events if e.get("event") == "started")
    again = restarts(run)
    rows = []
    for name in sorted(started.keys() | again.keys() | run.heartbeats.keys()):
        beat = run.heartbeats.get(name, {})
        when = beat.get("time")
        silent = None if when is None else max(0.0, run.now - when)
        life = (
            "–"
            if silent is None
            else f"{duration(silent)} ago" + (" (silent)" if silent > ALIVE_S and not run.progress.is_finished else "")
        )
        doing = text(str(beat.get("doing", "–")), DETAILS)
        rows.append((name, started[name], again[name], life, beat.get("host", "–"), doing))
    heads = ["process", "starts", "restarts", "last sign of life", "host", "doing"]
    return table(heads, rows, "Processes") if rows else note("No process has said anything.")


def _events(run: Run) -> Html | None:
    told = [event for event in run.events if event.get("event") not in ROUTINE]
    rows = [(_clock(event), event.get("process"), event.get("event"), _details(event)) for event in told]
    if not rows:
        return None
    kept = rows if len(rows) <= EVENTS else [*rows[: EVENTS // 2], *rows[-EVENTS // 2 :]]
    left = f", the first and last {EVENTS // 2} of them here" if len(kept) < len(rows) else ""
    shown = table(["time (UTC)", "process", "event", "details"], kept)
    return folded(f"{len(rows)} events{left}", shown, open_=len(rows) <= 12)


def _failures(run: Run) -> Html:
    found = infra(run)
    if not found:
        return note("No episode failed by our own fault.")
    total = len(run.trajectories)
    rows = [(stop, cause, count, percent(count / total)) for (stop, cause), count in found.most_common()]
    return table(["stop", "cause", "episodes", "share"], rows, "Failures of ours: never a lesson for the policy")


def _given_up(run: Run) -> Html:
    dropped = Counter(run.ledger.dropped.values())
    parts = []
    if dropped:
        share = f"Groups that were not trained on, of {len(run.ledger.numbers):,}"
        parts.append(table(["reason", "groups"], dropped.most_common(), share))
    else:
        parts.append(note("No group was dropped."))
    if benched := sorted(run.ledger.benched):
        names = [(tag("code", name), ", ") for name in benched]
        parts.append(tag("p", tag("b", f"{len(benched)} tasks are benched"), " (broke again and again): ", names))
    return join(*parts)


def _problems(run: Run) -> Html | None:
    if not run.problems:
        return None
    lines = [tag("li", text(problem, DETAILS)) for problem in run.problems[:EVENTS]]
    told = f"{len(run.problems)} things in the run directory could not be read, and are not in this report"
    return tag("div", tag("strong", told), tag("ul", *lines), class_="alarm")


def _clock(event: Mapping[str, Any]) -> str:
    when = event.get("time")
    return datetime.fromtimestamp(when, UTC).strftime("%m-%d %H:%M:%S") if isinstance(when, int | float) else "–"


def _details(event: Mapping[str, Any]) -> str:
    rest = {name: value for name, value in event.items() if name not in ("time", "process", "event")}
    told = ", ".join(f"{k} {v if isinstance(v, str) else json.dumps(v)}" for k, v in rest.items())
    return text(told, DETAILS)
