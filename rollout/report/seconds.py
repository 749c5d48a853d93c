"""Where the time went: inside an episode, and at the learner. What to speed up first."""

from __future__ import annotations

import math
from collections.abc import Mapping

from rollout.report.gather import Run
from rollout.report.html import Html, duration, join, note, number, percent, table, tag
from rollout.report.svg import legend, split

EPISODE = {"generating": ("engine_s", "scaffold_s"), "using tools": ("tools_s",), "verifying": ("verify_s",)}
WAITING = "waiting for episodes"
LEARNER = {WAITING: "time/wait_s", "training": "time/step_s", "publishing": "time/publish_s"}


def episode_seconds(run: Run) -> dict[str, float]:
    """Seconds of all episodes together, by kind. Those of a shared scaffold belong to its first solution alone."""
    found = dict.fromkeys(EPISODE, 0.0)
    for trajectory in run.trajectories:
        for kind, names in EPISODE.items():
            for name in names:
                if name != "scaffold_s" or trajectory.solution_index == 0:
                    found[kind] += trajectory.metrics.get(name, 0.0)
    return found


def learner_seconds(run: Run) -> dict[str, float]:
    """Seconds of the learner over all batches, by kind."""
    found = dict.fromkeys(LEARNER, 0.0)
    for line in run.metrics:
        for kind, name in LEARNER.items():
            value = line.get(name)
            if isinstance(value, int | float) and math.isfinite(value):
                found[kind] += value
    return found


def bottleneck(run: Run) -> str:
    """What to speed up first, in one sentence."""
    learner, episode = learner_seconds(run), episode_seconds(run)
    total = sum(learner.values())
    if not total:
        return "No batch was timed yet."
    kind, seconds = max(learner.items(), key=lambda item: item[1])
    told = f"The learner spent {percent(seconds / total)} of its time {kind}."
    inner, most = max(episode.items(), key=lambda item: item[1])
    if kind != WAITING:
        return f"{told} Training is the bottleneck: more engines would not make the run faster."
    if not most:
        return f"{told} Episodes are the bottleneck."
    share = percent(most / sum(episode.values()))
    return f"{told} Episodes are the bottleneck, and spend {share} of their own time {inner}."


def section(run: Run) -> Html:
    learner, episode = learner_seconds(run), episode_seconds(run)
    parts: list[Html] = [tag("p", bottleneck(run))]
    if any(learner.values()):
        parts.append(_split("The learner", learner, len(run.metrics), "batch"))
    if any(episode.values()):
        parts.append(_split("Episodes", episode, len(run.trajectories), "episode"))
    parts.append(_syncs(run))
    told = "Seconds of episodes overlap: many run at once. Waiting for a turn at the engine counts as generating."
    return join(*parts, note(told))


def _split(title: str, parts: Mapping[str, float], count: int, unit: str) -> Html:
    total = sum(parts.values())
    rows = [
        (name, duration(seconds), percent(seconds / total), f"{number(seconds / max(1, count))} s")
        for name, seconds in parts.items()
    ]
    heads = ["kind", "time", "share", f"per {unit}"]
    return join(tag("h3", title), legend(list(parts)), split(parts, name=title), table(heads, rows))


def _syncs(run: Run) -> Html:
    """What new weights cost the engines: from the order to update until all answer with them, and the pause in it."""
    found = [event for event in run.events if event.get("event") == "synced"]
    rows = []
    for key, says in (("load_s", "until every engine answers with the new weights"), ("pause_s", "generation paused")):
        values = sorted(v for e in found if isinstance(v := e.get(key), int | float) and math.isfinite(v))
        if values:
            middle = values[len(values) // 2]
            rows.append((says, len(values), f"{middle:.3g} s", f"{values[-1]:.3g} s", duration(sum(values))))
    return table(["sync of the engines", "times", "median", "longest", "in all"], rows) if rows else join()
