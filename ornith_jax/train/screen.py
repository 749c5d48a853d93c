"""One screen of a run while it goes on: what learner, driver and engines say, from the run directory alone."""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any, TextIO

from rollout.run_dir import read_json, read_progress

RECENT = 8  # batches that rates are of
TAIL_BYTES = 1 << 16


def screen(
    run_dir: Path, steps: int, live: Mapping[str, bool], restarts: int, *, last: bool = False, out: TextIO | None = None
) -> None:
    """Write it to stderr: in the place of the one before on a terminal, else one line."""
    out = sys.stderr if out is None else out
    lines = [_headline(run_dir, steps), *(_process(run_dir, name, runs) for name, runs in live.items())]
    if restarts:
        lines.append(f"{restarts} restarts since the last batch")
    if not out.isatty():
        out.write(lines[0] + "\n")
    else:
        out.write("".join(f"\r\x1b[K{line}\n" for line in lines) + ("" if last else f"\x1b[{len(lines)}A"))
    out.flush()


def _headline(run_dir: Path, steps: int) -> str:
    progress, recent = read_progress(run_dir), _recent(run_dir / "metrics.jsonl")
    if progress is None:
        return "starting: no version is published yet"
    parts = [f"batch {progress.batch}/{steps}", f"v{progress.policy_version}"]
    rewards = [record["reward/mean"] for record in recent if record.get("reward/mean") is not None]
    if rewards:
        parts.append(f"reward {rewards[-1]:.2f}, {sum(rewards) / len(rewards):.2f} over {len(rewards)} batches")
    if recent:
        now = recent[-1]
        parts.append(f"staleness {now.get('staleness/mean') or 0:.1f}")
        parts.append(f"waited {now.get('time/wait_s') or 0:.1f} s, trained {now.get('time/step_s') or 0:.1f} s")
    driver = read_json(run_dir / "heartbeats" / "driver.json")
    return " · ".join(parts) + (f" | {driver['doing']}" if driver else "")


def _process(run_dir: Path, name: str, runs: bool) -> str:
    heart = read_json(run_dir / "heartbeats" / f"{name}.json")
    return f"  {name:10} {'up' if runs else 'down':5} {heart['doing'] if heart else ''}"


def _recent(path: Path) -> list[dict[str, Any]]:
    """The last records, by reading the end of the file alone."""
    if not path.exists():
        return []
    with path.open("rb") as file:
        file.seek(max(0, path.stat().st_size - TAIL_BYTES))
        lines = file.read().split(b"\n")
    return [json.loads(line) for line in lines[1 if len(lines) > RECENT + 2 else 0 : -1][-RECENT:] if line[:1] == b"{"]
