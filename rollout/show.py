"""One trajectory in words, for a terminal: turns and tool calls, the verdict with its evidence, token versions."""

from __future__ import annotations

import itertools
import json
from collections import Counter
from collections.abc import Iterator, Mapping
from typing import Any

from rollout.store.reader import Source
from rollout.types import Trajectory, Turn

TEXT_CHARS = 1500  # of one message, unless all is asked for


def show(trajectory: Trajectory, *, full: bool = False) -> str:
    """Everything that a person wants to know of it. `full`: messages without a cut."""
    parts = [*_head(trajectory), "", *_verdict(trajectory), "", *_turns(trajectory), ""]
    if trajectory.diff:
        parts += ["--- handed in", _cut(_clean(trajectory.diff), None if full else TEXT_CHARS), ""]
    turns = itertools.count()
    for message in trajectory.messages:
        turn = f", turn {next(turns)}" if message.get("role") == "assistant" else ""
        parts += [*_message(message, turn, None if full else TEXT_CHARS), ""]
    return "\n".join(parts).rstrip()


def lines(trajectories: Source) -> Iterator[str]:
    """One line for each, in the order of the log."""
    for place in range(len(trajectories)):
        found = trajectories[place]
        tokens = sum(len(turn.completion.token_ids) for turn in found.turns)
        verdict = found.verdict.outcome.value + (f" ({found.verdict.cause})" if found.verdict.cause else "")
        yield f"{found.id}  {verdict}, {found.stop.value}, {len(found.turns)} turns, {tokens} tokens"


def versions(turn: Turn) -> str:
    """Which policy wrote which tokens. Example: "v4:0-11 v5:12-30"."""
    spans = turn.completion.versions
    ends = [*(start for start, _ in spans[1:]), len(turn.completion.token_ids)]
    return " ".join(f"v{version}:{start}-{end - 1}" for (start, version), end in zip(spans, ends, strict=False)) or "-"


def _head(trajectory: Trajectory) -> Iterator[str]:
    yield f"{trajectory.id}  ({trajectory.category}, arm {trajectory.arm.value})"
    yield f"stop {trajectory.stop.value}, admitted at version {trajectory.admitted_version}"
    if trajectory.scaffold_id:
        yield f"scaffold {trajectory.scaffold_id}, from {trajectory.scaffold_parent or 'none'}"
    if trajectory.metrics:
        yield ", ".join(f"{name} {value:g}" for name, value in sorted(trajectory.metrics.items()))


def _verdict(trajectory: Trajectory) -> Iterator[str]:
    verdict = trajectory.verdict
    yield f"verdict {verdict.outcome.value}" + (f" ({verdict.cause})" if verdict.cause else "")
    for finding in verdict.findings:
        where = "whole episode" if finding.turn < 0 else f"turn {finding.turn}"
        yield f"  {finding.layer.value} {finding.rule}, {where}: {_clean(finding.evidence)}"
    if verdict.tests:
        counts = Counter(verdict.tests.values())
        yield "  tests: " + ", ".join(f"{count} {status}" for status, count in counts.most_common())
        for name, status in verdict.tests.items():
            if status != "passed":
                yield f"    {status}  {_clean(name)}"
    for layer, judged in verdict.record.items():
        yield f"  judged by {layer}: {judged}"


def _turns(trajectory: Trajectory) -> Iterator[str]:
    yield "turn  stage      prompt   cached   wrote  finish    seconds  versions"
    for number, turn in enumerate(trajectory.turns):
        wrote = turn.completion
        yield (
            f"{number:>4}  {turn.stage.value:8}  {len(turn.prompt_ids):>7}  {wrote.cached_tokens:>7}  "
            f"{len(wrote.token_ids):>6}  {wrote.finish.value:8}  {turn.seconds:>7.1f}  {versions(turn)}"
            + ("  forked" if turn.forked else "")
        )


def _message(message: Mapping[str, object], turn: str, chars: int | None) -> Iterator[str]:
    name = f" {message['name']}" if message.get("name") else ""
    yield f"--- {message.get('role', '?')}{name} ({message.get('stage', 'no stage')}{turn})"
    for field in ("reasoning_content", "content"):
        if text := str(message.get(field) or ""):
            yield _cut(_clean(text), chars)
    calls: Any = message.get("tool_calls") or ()
    for call in calls:
        function = call.get("function", call)
        yield f"-> {function.get('name')} {_cut(json.dumps(function.get('arguments'), ensure_ascii=False), chars)}"


def _cut(text: str, chars: int | None) -> str:
    if chars is None or len(text) <= chars:
        return text
    return f"{text[: chars // 2]}\n... {len(text) - chars} characters ...\n{text[-(chars // 2) :]}"


def _clean(text: str) -> str:
    """No control characters: what a policy wrote must not steer the terminal."""
    return "".join(c if c.isprintable() or c in "\n\t" else f"\\x{ord(c):02x}" for c in text)
