"""Trajectories for people, and for other trainers."""

import dataclasses
import json
import random
import sys

import pyarrow.parquet as pq
import pytest

from envs.types import Finding, Layer, Outcome, Verdict
from rollout.errors import RolloutError
from rollout.export import export, rows
from rollout.show import lines, show, versions
from rollout.types import Arm, Completion, Finish, Stage, StopReason, Trajectory, Turn

CALL = {"id": "call_0_0", "type": "function", "function": {"name": "read", "arguments": {"path": "a.py", "n": 3}}}
SCAFFOLD = (
    {"role": "system", "content": "You write scaffolds.", "stage": "scaffold"},
    {"role": "user", "content": "the task", "stage": "scaffold"},
    {"role": "assistant", "content": '{"instructions": "look"}', "stage": "scaffold"},
)
SOLUTION = (
    {"role": "system", "content": "You work.", "stage": "solution"},
    {"role": "user", "content": "the task", "stage": "solution"},
    {"role": "assistant", "content": "", "reasoning_content": "hm", "tool_calls": [CALL], "stage": "solution"},
    {"role": "tool", "content": "x = \x1b[31m\ud800", "name": "read", "tool_call_id": "call_0_0", "stage": "solution"},
)


def turn(stage: Stage, start: int = 0) -> Turn:
    completion = Completion(
        token_ids=(1, 2, 3), behavior_logprobs=(-1.0,) * 3, versions=((0, 4), (2, 5)), finish=Finish.STOP
    )
    return Turn(stage=stage, prompt_ids=tuple(range(start + 5)), completion=completion, forked=bool(start), seconds=1.5)


def trajectory(place: str = "0/0", outcome: Outcome = Outcome.PASSED, **fields) -> Trajectory:
    findings = (Finding(layer=Layer.MONITOR, rule="decoy_read", evidence="/withheld/test_m.py", turn=2),)
    given = {
        "id": f"t@0/{place}",
        "group_id": "t@0",
        "task_id": "t",
        "category": "edge",
        "scaffold_index": int(place[0]),
        "solution_index": int(place[2]),
        "arm": Arm.SELF,
        "turns": (turn(Stage.SCAFFOLD), turn(Stage.SOLUTION, 1)),
        "scaffold_id": "abc",
        "stop": StopReason.SUBMITTED,
        "verdict": Verdict(outcome=outcome, findings=findings, tests={"test_a": "passed", "test_b": "failed"}),
        "messages": SCAFFOLD + SOLUTION,
        "metrics": {"turns": 1},
        "diff": "=== changed a.py\n-x = 1\n+x = 2\x1b",
    }
    return Trajectory(**{**given, **fields})


def test_show_tells_turns_calls_versions_and_the_evidence():
    text = show(trajectory(outcome=Outcome.FLAGGED))
    for part in (
        "t@0/0/0  (edge, arm self)",
        "stop submitted, admitted at version 0",
        "verdict flagged",
        "monitor decoy_read, turn 2: /withheld/test_m.py",
        "tests: 1 passed, 1 failed",
        "failed  test_b",
        "v4:0-1 v5:2-2  forked",
        "--- assistant (solution, turn 1)",
        '-> read {"path": "a.py", "n": 3}',
        "--- tool read (solution)",
        "--- handed in\n=== changed a.py\n-x = 1",
    ):
        assert part in text
    assert "\x1b" not in text, "what a tool printed must not reach the terminal as it is"
    assert r"\x1b[31m" in text


def test_show_shortens_long_messages_unless_all_is_asked_for():
    long = trajectory(messages=({"role": "user", "content": "a" * 10_000, "stage": "solution"},))
    assert "... 8500 characters ..." in show(long)
    assert "a" * 10_000 in show(long, full=True)


def test_versions_and_lines_are_short():
    empty = dataclasses.replace(turn(Stage.SOLUTION).completion, token_ids=(), behavior_logprobs=(), versions=())
    assert versions(dataclasses.replace(turn(Stage.SOLUTION), completion=empty)) == "-"
    infra = trajectory(verdict=Verdict(outcome=Outcome.INFRA, cause="vanished"), stop=StopReason.SANDBOX_ERROR)
    assert list(lines([infra])) == ["t@0/0/0  infra (vanished), sandbox_error, 2 turns, 6 tokens"]


GROUP = [
    trajectory("0/0"),
    trajectory("0/1", Outcome.FAILED),
    trajectory("0/2", Outcome.INFRA, stop=StopReason.SANDBOX_ERROR),
    trajectory("0/3", Outcome.FLAGGED, messages=SCAFFOLD + SOLUTION + SOLUTION),
    trajectory("1/0", Outcome.FAILED, stop=StopReason.BAD_SCAFFOLD, messages=SCAFFOLD),
]


def test_each_conversation_is_a_row_and_a_scaffold_is_told_once_with_its_mean():
    found = [(r["id"], r["conversation"], r["stage"], r["verdict"], r["reward"]) for r in rows(GROUP)]
    assert found == [
        ("t@0/0/0", 0, "solution", "passed", 1.0),
        ("t@0/0/1", 0, "solution", "failed", 0.0),
        ("t@0/0/3", 0, "solution", "flagged", 0.0),
        ("t@0/0/3", 1, "solution", "flagged", 0.0),
        ("t@0/0", 0, "scaffold", "", 0.5),
        ("t@0/1", 0, "scaffold", "", 0.0),
    ]
    assert [r["id"] for r in rows(GROUP, "passed")] == ["t@0/0/0"]
    solution = next(iter(rows(GROUP)))
    assert [m["role"] for m in solution["messages"]] == ["system", "user", "assistant", "tool"]
    assert solution["messages"][2]["tool_calls"] == [CALL]
    assert solution["policy_version"] == 4


def test_jsonl_and_parquet_hold_the_same_conversations(tmp_path):
    assert export(GROUP, tmp_path / "a.jsonl") == 6
    assert export(GROUP, tmp_path / "a.parquet") == 6
    lined = [json.loads(line) for line in (tmp_path / "a.jsonl").read_text().splitlines()]
    table = pq.read_table(tmp_path / "a.parquet").to_pylist()
    for one, other in zip(lined, table, strict=True):
        messages, flat = one.pop("messages"), other.pop("messages")
        assert one == other
        for message, columns in zip(messages, flat, strict=True):
            calls = columns.pop("tool_calls")
            for call in calls:
                call["function"]["arguments"] = json.loads(call["function"]["arguments"])
            assert calls == message.pop("tool_calls", [])
            kept = {name: value for name, value in columns.items() if value is not None}
            assert kept == {n: v.encode("utf-8", "backslashreplace").decode() for n, v in message.items()}
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a.jsonl", "a.parquet"]


def test_many_rows_are_written_in_groups(tmp_path):
    many = [trajectory(f"{random.Random(n).randrange(10)}/{n % 10}", id=f"t@{n}/0/0") for n in range(600)]
    export(many, tmp_path / "a.parquet", only="passed")
    file = pq.ParquetFile(tmp_path / "a.parquet")
    assert (file.metadata.num_rows, file.metadata.num_row_groups) == (600, 3)


def test_bad_files_and_a_missing_pyarrow_are_named_and_leave_nothing(tmp_path, monkeypatch):
    with pytest.raises(RolloutError, match=r"use .jsonl or .parquet"):
        export(GROUP, tmp_path / "a.csv")
    (tmp_path / "a.jsonl").touch()
    with pytest.raises(RolloutError, match="exists"):
        export(GROUP, tmp_path / "a.jsonl")
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    with pytest.raises(RolloutError, match=r"ornith-jax\[parquet\]"):
        export(GROUP, tmp_path / "a.parquet")
    assert [path.name for path in tmp_path.iterdir()] == ["a.jsonl"]
