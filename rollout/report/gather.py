"""The run directory as one value. A run may still be going on, may have been killed, may lack any part."""

from __future__ import annotations

import json
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rollout import run_dir
from rollout.errors import RolloutError
from rollout.ledger import Ledger
from rollout.report.reviews import Review, read_reviews
from rollout.scaffold.library import Entry, Library
from rollout.store.codec import from_json
from rollout.store.frame import Entry as Place
from rollout.store.index import Index, read_entry
from rollout.types import Trajectory

HEAVY = ("turns", "messages", "scaffold", "diff")  # of a trajectory: read again for the few that are shown
ALIVE_S = 120.0  # a process that said nothing for longer is not counted as running


@dataclass(frozen=True, slots=True, kw_only=True)
class Run:
    """What the report is made from. Every part may be empty."""

    folder: Path
    now: float
    experiment: Mapping[str, Any]  # config.json
    progress: run_dir.Progress
    metrics: tuple[Mapping[str, Any], ...]  # by batch
    batch_of: Mapping[str, int]  # group id -> the batch that it was planned for
    trajectories: tuple[Trajectory, ...]  # without the parts in HEAVY and without test results
    ledger: Ledger
    scaffolds: tuple[Entry, ...]
    evals: tuple[Mapping[str, Any], ...]  # by version
    events: tuple[Mapping[str, Any], ...]
    heartbeats: Mapping[str, Mapping[str, Any]]  # by process
    reviews: tuple[Review, ...]
    problems: tuple[str, ...]  # what could not be read

    def setting(self, path: str, default: Any = None) -> Any:
        """setting("rollout.max_staleness")"""
        found: Any = self.experiment
        for name in path.split("."):
            found = found.get(name) if isinstance(found, Mapping) else None
        return default if found is None else found


class Reader:
    """Reads a run again and again, every record of its logs once. For one thread at a time.

    Raises RolloutError when the folder is no run directory.
    """

    def __init__(self, folder: Path) -> None:
        parts = ("config.json", "metrics.jsonl", "trajectories", "events", "evals")
        if not any((folder / part).exists() for part in parts):
            raise RolloutError(f"{folder}: not a run directory; it has none of {', '.join(parts)}")
        self.folder = folder
        self._index = Index(folder / "trajectories")
        self._library = Library(folder / "scaffolds")
        self._light: dict[str, Trajectory] = {}
        self._unread: dict[str, str] = {}

    def read(self) -> Run:
        """The run as it is now."""
        folder, problems = self.folder, []
        self._take_trajectories()
        self._library.refresh()
        metrics, bad = read_lines(folder / "metrics.jsonl")
        problems += [f"metrics.jsonl: {bad} lines that are not JSON"] * bool(bad)
        reviews, bad = read_reviews(folder)
        problems += [f"reviews.jsonl: {bad} lines that are no review"] * bool(bad)
        evals = [found for path in _json_files(folder / "evals") if (found := _evaluation(path, problems))]
        problems += [
            f"trajectories/{damage.file}, byte {damage.offset}: {damage.reason}" for damage in self._index.damaged
        ]
        problems += [*self._unread.values(), *(f"scaffolds/{line}" for line in self._library.damaged)]
        return Run(
            folder=folder,
            now=time.time(),
            experiment=_json(folder / "config.json", problems),
            progress=_progress(folder, problems),
            metrics=tuple({found.get("batch"): found for found in metrics}.values()),
            batch_of=_batches(folder, problems),
            trajectories=tuple(self._light.values()),
            ledger=_ledger(self._index, problems),
            scaffolds=tuple(self._library.entries()),
            evals=tuple(sorted(evals, key=lambda found: (found.get("policy_version") or 0, str(found.get("name"))))),
            events=tuple(run_dir.read_events(folder)),
            heartbeats={path.stem: _json(path, problems) for path in _json_files(folder / "heartbeats")},
            reviews=reviews,
            problems=tuple(problems),
        )

    def whole(self, id: str) -> Trajectory:
        """One trajectory with everything. Raises RolloutError."""
        return from_json(Trajectory, self._index.read("trajectory", id), f"trajectory {id}")

    def knows(self, id: str) -> bool:
        """Is there such a trajectory by now?"""
        self._index.refresh()
        return ("trajectory", id) in self._index.entries

    def _take_trajectories(self) -> None:
        self._index.refresh()
        for place in self._index.of_kind("trajectory"):
            if place.id not in self._light and place.id not in self._unread:
                try:
                    self._light[place.id] = self._read_light(place)
                except RolloutError as error:
                    self._unread[place.id] = str(error)

    def _read_light(self, place: Place) -> Trajectory:
        found = read_entry(self._index.folder, place)
        light = {name: value for name, value in found.items() if name not in HEAVY}
        verdict = {**found["verdict"], "tests": {}}
        return from_json(Trajectory, {**light, "turns": [], "verdict": verdict}, f"trajectory {place.id}")


def read_lines(path: Path) -> tuple[list[dict[str, Any]], int]:
    """(the records of a .jsonl file, how many whole lines are not one). A torn last line is neither."""
    try:
        lines = path.read_text(errors="replace").split("\n")[:-1]
    except FileNotFoundError:
        return [], 0
    found, bad = [], 0
    for line in lines:
        try:
            record = json.loads(line)
        except ValueError:
            record = None
        if isinstance(record, dict):
            found.append(record)
        elif line.strip():
            bad += 1
    return found, bad


def stamp(folder: Path) -> str:
    """Changes whenever the run has something new to report."""
    parts = ("config.json", "progress.json", "metrics.jsonl", "reviews.jsonl")
    deep = ("trajectories/*.log", "scaffolds/*.log", "batches", "evals/*.json", "events/*.jsonl")
    files = [folder / part for part in parts] + [path for glob in deep for path in sorted(folder.glob(glob))]
    found = [(path.name, path.stat().st_size, path.stat().st_mtime_ns) for path in files if path.exists()]
    return f"{hash(tuple(found)) & (1 << 64) - 1:016x}"


def _json_files(folder: Path) -> list[Path]:
    return sorted(path for path in folder.glob("*.json") if not path.name.startswith("."))


def _json(path: Path, problems: list[str]) -> dict[str, Any]:
    """{} for a file that is not there, or that is not a JSON object, which is a problem."""
    try:
        found = run_dir.read_json(path)
    except (RolloutError, OSError) as error:
        problems.append(str(error))
        return {}
    return found if isinstance(found, dict) else {}


def _evaluation(path: Path, problems: list[str]) -> dict[str, Any]:
    """{} for what is no result of `rollout.evaluate`."""
    found = _json(path, problems)
    if found and not {"arm", "policy_version", "pass@1", "by_category", "per_task"} <= found.keys():
        problems.append(f"evals/{path.name}: not a result of an evaluation")
        return {}
    return found


def _progress(folder: Path, problems: list[str]) -> run_dir.Progress:
    try:
        return run_dir.read_progress(folder) or run_dir.Progress()
    except (RolloutError, TypeError) as error:
        problems.append(f"progress.json: {error}")
        return run_dir.Progress()


def _batches(folder: Path, problems: list[str]) -> dict[str, int]:
    try:
        return {group: plan.batch for plan in run_dir.plans(folder) for group in plan.groups}
    except (RolloutError, TypeError, KeyError) as error:
        problems.append(f"batches: {error}")
        return {}


def _ledger(index: Index, problems: list[str]) -> Ledger:
    try:
        return Ledger.restore(index)
    except (RolloutError, TypeError, KeyError) as error:
        problems.append(f"trajectories: {error}")
        return Ledger()
