"""Trajectories as the conversations that others train on: JSONL or parquet, messages in the OpenAI form (as in TRL).

One row per conversation. A trajectory has one for its solution, and one more after each new start of its context; a
scaffold has its own, once, with the mean reward of its solutions. Failures of ours are left out.
"""

from __future__ import annotations

import dataclasses
import json
import os
import tempfile
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

from rollout.errors import RolloutError
from rollout.reward import scaffold_reward, solution_reward
from rollout.store.reader import Source
from rollout.types import Stage, Trajectory

BATCH = 256  # rows of one parquet row group


def rows(trajectories: Source, only: str = "") -> Iterator[dict[str, Any]]:
    """Solutions in the order of the log, then scaffolds. With `only`, solutions of that outcome and no scaffolds."""
    children: dict[str, list[tuple[int, Trajectory]]] = defaultdict(list)
    for place in range(len(trajectories)):
        trajectory = trajectories[place]
        reward, outcome = solution_reward(trajectory), trajectory.verdict.outcome.value
        if reward is None or only not in ("", outcome):
            continue
        yield from _rows(trajectory, Stage.SOLUTION, reward, outcome)
        light = dataclasses.replace(trajectory, turns=(), messages=())
        children[trajectory.id.rpartition("/")[0]].append((place, light))
    for siblings in children.values() if not only else ():
        mean = scaffold_reward(child for _, child in siblings)
        if mean is not None:
            yield from _rows(trajectories[siblings[0][0]], Stage.SCAFFOLD, mean, "")


def _rows(trajectory: Trajectory, stage: Stage, reward: float, outcome: str) -> Iterator[dict[str, Any]]:
    for number, messages in enumerate(_conversations(trajectory.messages, stage)):
        yield {
            "id": trajectory.id if stage is Stage.SOLUTION else trajectory.id.rpartition("/")[0],
            "conversation": number,
            "stage": stage.value,
            "task_id": trajectory.task_id,
            "category": trajectory.category,
            "arm": trajectory.arm.value,
            "scaffold_id": trajectory.scaffold_id,
            "stop": trajectory.stop.value,
            "verdict": outcome,
            "reward": reward,
            "policy_version": trajectory.oldest_version,
            "messages": messages,
        }


def _conversations(messages: Iterable[Mapping[str, object]], stage: Stage) -> list[list[dict]]:
    """A conversation begins at a system message."""
    found: list[list[dict]] = []
    for message in messages:
        if message.get("stage", stage.value) == stage.value:
            if message["role"] == "system" or not found:
                found.append([])
            found[-1].append({name: value for name, value in message.items() if name != "stage"})
    return found


def export(trajectories: Source, path: Path, *, only: str = "") -> int:
    """Write `path` (.jsonl or .parquet) whole or not at all; the number of rows.

    Args:
        trajectories: any sequence, such as `rollout.store.reader.Trajectories`.
        only: an outcome, such as "passed"; "": all of them, and the scaffolds.

    Raises:
        RolloutError: another ending, an existing file, or parquet without pyarrow.
    """
    writers: dict[str, Callable[[Iterable[dict], Path], int]] = {".jsonl": _jsonl, ".parquet": _parquet}
    if path.suffix not in writers:
        raise RolloutError(f"{path}: the ending says the format; use .jsonl or .parquet")
    if path.exists():
        raise RolloutError(f"{path}: exists; remove it or name another file")
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, name = tempfile.mkstemp(prefix=f".{path.name}.", dir=path.parent)
    os.close(handle)
    try:
        count = writers[path.suffix](rows(trajectories, only), Path(name))
        os.chmod(name, 0o644)
        os.rename(name, path)
    except BaseException:
        os.unlink(name)
        raise
    return count


def _jsonl(found: Iterable[dict], path: Path) -> int:
    count = 0
    with path.open("w", encoding="ascii") as file:  # JSON's escapes keep whatever a policy wrote
        for row in found:
            file.write(json.dumps(row) + "\n")
            count += 1
    return count


def _parquet(found: Iterable[dict], path: Path) -> int:
    """`messages` is a list of structs; arguments of calls are JSON text there, as columns need one type."""
    try:
        import pyarrow as pa
        import pyarrow.parquet as pq
    except ImportError:
        raise RolloutError(f"{path}: parquet needs pyarrow: pip install 'ornith-jax[parquet]', or use .jsonl") from None
    text = pa.string()
    function = pa.struct([("name", text), ("arguments", text)])
    call = pa.struct([("id", text), ("type", text), ("function", function)])
    said = [(name, text) for name in ("role", "content", "reasoning_content", "name", "tool_call_id")]
    words = ("stage", "task_id", "category", "arm", "scaffold_id", "stop", "verdict")
    schema = pa.schema(
        [
            ("id", text),
            ("conversation", pa.int32()),
            *((name, text) for name in words),
            ("reward", pa.float32()),
            ("policy_version", pa.int64()),
            ("messages", pa.list_(pa.struct([*said, ("tool_calls", pa.list_(call))]))),
        ]
    )
    count, batch = 0, []
    with pq.ParquetWriter(path, schema) as writer:
        for row in found:
            batch.append({**row, "messages": [_flat(message) for message in row["messages"]]})
            count += 1
            if len(batch) == BATCH:
                writer.write_table(pa.Table.from_pylist(batch, schema))
                batch = []
        writer.write_table(pa.Table.from_pylist(batch, schema))
    return count


def _flat(message: dict) -> dict:
    """A message whose texts are UTF-8 and whose arguments are text."""
    flat: dict[str, Any] = {
        name: value.encode("utf-8", "backslashreplace").decode() if isinstance(value, str) else value
        for name, value in message.items()
        if name != "tool_calls"
    }
    flat["tool_calls"] = [
        {**call, "function": {**call["function"], "arguments": json.dumps(call["function"]["arguments"])}}
        for call in message.get("tool_calls") or ()
    ]
    return flat
