"""What people decided about single trajectories: `RUN/reviews.jsonl`, one decision a line, durable when it returns."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from rollout.errors import RolloutError

FILE = "reviews.jsonl"
DECISIONS = ("accept", "reject")
NOTE_CHARS = 4000
NAME_CHARS = 200


@dataclass(frozen=True, slots=True, kw_only=True)
class Review:
    """Would you merge it? A later decision of a reviewer on a trajectory takes the place of the earlier one."""

    trajectory: str  # its id
    decision: str  # one of DECISIONS
    note: str = ""
    reviewer: str = ""
    time: float = 0.0  # seconds of the clock


def read_reviews(run: Path) -> tuple[tuple[Review, ...], int]:
    """(every decision that stands, in the order of the file, how many whole lines are none)."""
    path = run / FILE
    lines = path.read_text(errors="replace").split("\n")[:-1] if path.exists() else []
    standing: dict[tuple[str, str], Review] = {}
    bad = 0
    for line in lines:
        try:
            review = parse(json.loads(line), "")
        except (ValueError, RolloutError):
            bad += bool(line.strip())
            continue
        standing.pop((review.trajectory, review.reviewer), None)
        standing[review.trajectory, review.reviewer] = review
    return tuple(standing.values()), bad


def parse(value: Any, where: str) -> Review:
    """A decision from JSON. Raises RolloutError that names the field."""
    if not isinstance(value, Mapping):
        raise RolloutError(f"{where}: not an object with trajectory and decision")
    if unknown := sorted(set(value) - {"trajectory", "decision", "note", "reviewer", "time"}):
        raise RolloutError(f"{where}: no field is called {unknown[0][:40]!r}")
    for name, limit in (("trajectory", 1000), ("decision", 10), ("note", NOTE_CHARS), ("reviewer", NAME_CHARS)):
        if not isinstance(value.get(name, ""), str) or len(value.get(name, "")) > limit:
            raise RolloutError(f"{where}: {name} is not a text of at most {limit} characters")
    if value.get("decision") not in DECISIONS:
        raise RolloutError(f"{where}: decision is not one of {', '.join(DECISIONS)}")
    if not value.get("trajectory"):
        raise RolloutError(f"{where}: trajectory is missing")
    when = value.get("time", 0.0)
    if not isinstance(when, int | float) or isinstance(when, bool):
        raise RolloutError(f"{where}: time is not a number")
    return Review(**{**value, "time": float(when)})


def add(run: Path, review: Review) -> None:
    """On disk on return. Several processes may add at the same time: a line is one write."""
    path = run / FILE
    with path.open("ab") as file:
        torn = file.tell() > 0 and not _ends_whole(path)
        file.write((b"\n" if torn else b"") + json.dumps(asdict(review)).encode() + b"\n")
        file.flush()
        os.fsync(file.fileno())


def take(run: Path, file: Path, known: Iterable[str]) -> int:
    """Merge decisions that the page gave for download; how many were new. All of them or none.

    Raises RolloutError for a file that is not such a list, or that speaks of a trajectory which is not `known`.
    """
    try:
        values = json.loads(file.read_text())
    except FileNotFoundError:
        raise RolloutError(f"{file}: no such file") from None
    except ValueError:
        raise RolloutError(f"{file}: not JSON; give the file that the report's page downloads") from None
    if not isinstance(values, list):
        raise RolloutError(f"{file}: not a list of decisions; give the file that the report's page downloads")
    reviews = [parse(value, f"{file}, decision {place}") for place, value in enumerate(values)]
    ids = set(known)
    for review in reviews:
        if review.trajectory not in ids:
            raise RolloutError(f"{file}: {review.trajectory!r} is no trajectory of {run}; was it made by another run?")
    standing = {(review.trajectory, review.reviewer): review for review in read_reviews(run)[0]}
    count = 0
    for review in sorted(reviews, key=lambda review: review.time):
        before = standing.get((review.trajectory, review.reviewer))
        if before is None or before.time < review.time:  # the same file may be merged twice
            standing[review.trajectory, review.reviewer] = review
            add(run, review)
            count += 1
    return count


def stamped(review: Review) -> Review:
    """With the time of now."""
    return replace(review, time=time.time())


def _ends_whole(path: Path) -> bool:
    with path.open("rb") as file:
        file.seek(-1, os.SEEK_END)
        return file.read(1) == b"\n"
