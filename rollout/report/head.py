"""What ran, for how long, and what came of it."""

from __future__ import annotations

from collections import Counter
from datetime import UTC, datetime

from rollout.report import drift, learning
from rollout.report.filtering import outcome
from rollout.report.gather import ALIVE_S, Run
from rollout.report.happened import restarts
from rollout.report.html import Child, Html, duration, number, tag


def name(run: Run) -> str:
    return str(run.setting("name", run.folder.name))


def span(run: Run) -> tuple[float, float] | None:
    """First and last sign of life, in seconds of the clock."""
    times = [event["time"] for event in run.events if isinstance(event.get("time"), int | float)]
    times += [beat["time"] for beat in run.heartbeats.values() if isinstance(beat.get("time"), int | float)]
    return (min(times), max(times)) if times else None


def state(run: Run) -> str:
    """finished | running | stopped | no sign of life"""
    if run.progress.is_finished:
        return "finished"
    found = span(run)
    if found is None:
        return "no process has said anything"
    silent = run.now - found[1]
    return "running" if silent < ALIVE_S else f"stopped or killed: last sign of life {duration(silent)} ago"


def header(run: Run) -> Html:
    alarms = drift.alarms(run)
    told = f"Drift alarm: {', '.join(trend.category for _, trend in alarms)} (see categories)"
    return tag(
        "header",
        tag("p", "ornith run report", class_="kicker"),
        tag("h1", name(run)),
        tag("p", learning.result(run), class_="result"),
        tag("p", told, class_="alarm") if alarms else None,
        _tiles(run),
        tag("p", _when(run), class_="note"),
    )


def _tiles(run: Run) -> Html:
    outcomes = Counter(outcome(trajectory) for trajectory in run.trajectories)
    judged = sum(outcomes.values()) - outcomes["infra"]
    passed = f"{100 * outcomes['passed'] / judged:.0f} % passed" if judged else ""
    steps = run.setting("train.steps")
    found = span(run)
    again = sum(restarts(run).values())
    tiles: list[tuple[str, Child, str]] = [
        ("state", state(run).partition(":")[0], ""),
        ("batches", number(run.progress.batch), f"of {steps}" if steps else ""),
        ("policy version", number(run.progress.policy_version), "committed updates"),
        ("episodes", number(len(run.trajectories)), passed),
        ("groups", number(len(run.ledger.numbers)), f"{len(run.ledger.dropped)} dropped"),
        ("time", duration(found[1] - found[0]) if found else "–", "first to last sign of life"),
        ("restarts", number(again), "of processes"),
        ("model", str(run.setting("model", "–")).rpartition("/")[2], f"seed {run.setting('seed', '–')}"),
    ]
    shown = [tag("div", tag("dt", title), tag("dd", value, tag("small", more))) for title, value, more in tiles]
    return tag("dl", *shown, class_="tiles")


def _when(run: Run) -> str:
    found = span(run)
    made = f"Made at {_utc(run.now)} from {run.folder.name}."
    return f"{_utc(found[0])} to {_utc(found[1])}; {state(run)}. {made}" if found else made


def _utc(seconds: float) -> str:
    return datetime.fromtimestamp(seconds, UTC).strftime("%Y-%m-%d %H:%M UTC")
