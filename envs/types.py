"""The frozen values that flow through the world: Task, ExecResult, Episode, Finding, Verdict.

`Task ─► (sandbox, tools) ─► Episode ─► verify + filter ─► Verdict`. Nothing here does I/O.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum


@dataclass(frozen=True, slots=True)
class File:
    """One regular file of a tree. `data` is its bytes."""

    data: bytes
    executable: bool = False


Tree = Mapping[str, File]
"""Relative POSIX path (normalised, no `..`, no leading `/`) -> File."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """Budgets of one sandbox. Seconds, mebibytes, bytes."""

    command_s: float = 60.0
    episode_s: float = 1800.0
    memory_mb: int = 2048
    processes: int = 256
    file_mb: int = 256
    disk_mb: int = 1024
    output_bytes: int = 65536


@dataclass(frozen=True, slots=True, kw_only=True)
class Verification:
    """How a submission is graded, always in a fresh sandbox.

    pytest: `command` is the interpreter ("/usr/bin/python3" when empty) and `withheld` lies relative to the
    workspace. script: `command` is run from the workspace and `withheld` lies relative to `/`.
    Example (pytest): kind="pytest", fail_to_pass=("tests/test_mul.py::test_zero",), pass_to_pass=(...),
    withheld={"tests/test_mul.py": File(...)}, allowed=("src/**",).
    Example (Harbor): kind="script", command=("bash", "/tests/test.sh"), reward_file="/logs/verifier/reward.txt".
    """

    kind: str  # "pytest" | "script"
    fail_to_pass: tuple[str, ...] = ()
    pass_to_pass: tuple[str, ...] = ()
    command: tuple[str, ...] = ()
    reward_file: str = ""
    withheld: Tree = field(default_factory=dict)  # laid over the graded tree; never in the policy's sandbox
    allowed: tuple[str, ...] = ("**",)  # globs of workspace paths a submission may change
    protected: tuple[str, ...] = ()  # globs that win over `allowed`: visible tests, runner configuration
    expected: Mapping[str, str] = field(default_factory=dict)  # R2E-Gym: id -> expected status
    twin_ids: tuple[str, ...] = ()  # ids that fail the impossible twin with the reference solution (admission)
    own_config: bool = False  # pytest reads the repository's own, trusted configuration and installed plugins
    timeout_s: float = 300.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Task:
    """One problem. `visible` is laid into `workdir` before the policy starts; `solution` never is."""

    id: str
    source: str  # "native" | "swe" | "harbor" | "fledgling" | "mined"
    category: str
    prompt: str
    image: str = "base"  # a sandbox image: name of a built one, or a path to a folder or SIF
    workdir: str = "/workspace"
    visible: Tree = field(default_factory=dict)
    tools: tuple[str, ...] = ("read", "write", "edit", "search", "shell", "run_tests", "submit")
    withheld_paths: tuple[str, ...] = ()  # absolute paths whose reading is a violation: decoys are laid there
    verification: Verification
    solution: Tree | None = None  # reference solution, as the files it changes (None: none is known)
    solution_script: str = ""  # or a shell script run in the sandbox (Harbor's solve.sh)
    limits: Limits = Limits()
    max_turns: int = 30
    metadata: Mapping[str, str] = field(default_factory=dict)


class ExecStatus(StrEnum):
    OK = "ok"  # the command ended by itself; see exit_code
    TIMEOUT = "timeout"  # killed at its deadline
    MEMORY = "memory"  # killed by the memory limit
    DISK = "disk"  # killed by the disk limit
    PROCESSES = "processes"  # killed by the process limit


@dataclass(frozen=True, slots=True, kw_only=True)
class ExecResult:
    """What one command did. `output` is stdout and stderr together: head and tail of at most `output_bytes`."""

    status: ExecStatus
    exit_code: int
    output: str
    truncated_bytes: int = 0
    seconds: float = 0.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Action:
    """One dispatched tool call and what came back. `turn` counts from 0."""

    turn: int
    tool: str
    arguments: Mapping[str, object]
    observation: str = ""
    refused: str = ""  # why the tool layer refused it, or ""
    error: str = ""  # why it could not be carried out, though it was allowed, or ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Effects:
    """What the host saw the sandbox do: nothing here comes from inside it."""

    decoy_reads: tuple[tuple[int, str], ...] = ()  # (turn, absolute path)
    outside_changes: tuple[str, ...] = ()  # absolute paths changed outside the workspace
    leftover_processes: tuple[str, ...] = ()  # command lines alive at submit
    network_packets: int = 0  # attempts to leave the network namespace
    limit_hits: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Episode:
    """One attempt at a task, as the filter sees it."""

    task: Task
    actions: tuple[Action, ...] = ()
    submission: Tree = field(default_factory=dict)  # changed or added workspace files, regular ones only
    deleted: tuple[str, ...] = ()  # workspace files removed
    odd_files: tuple[str, ...] = ()  # symlinks, devices, fifos, names that do not normalise: never collected
    effects: Effects = Effects()
    scaffold: str = ""  # the scaffold document as the policy wrote it


class Layer(StrEnum):
    BOUNDARY = "boundary"
    MONITOR = "monitor"
    JUDGE = "judge"


@dataclass(frozen=True, slots=True, kw_only=True)
class Finding:
    """One reason, with the evidence a person can check. `turn` is -1 for the whole episode."""

    layer: Layer
    rule: str
    evidence: str
    turn: int = -1


class Outcome(StrEnum):
    PASSED = "passed"
    FAILED = "failed"
    FLAGGED = "flagged"  # reward 0 and outside mean, std and count of the advantage
    VETOED = "vetoed"  # reward 0; its place in the baseline is a named option
    INFRA = "infra"  # never a reward, never trained on


@dataclass(frozen=True, slots=True, kw_only=True)
class Verdict:
    """The end of an episode. `cause` names the infrastructure failure when outcome is INFRA."""

    outcome: Outcome
    findings: tuple[Finding, ...] = ()
    tests: Mapping[str, str] = field(default_factory=dict)  # test id -> passed | failed | missing | ...
    cause: str = ""
    record: Mapping[str, str] = field(default_factory=dict)  # which filter judged, by layer; "none": no judge
    seconds: float = 0.0

    @property
    def reward(self) -> float:
        """1.0 when passed, else 0.0. An INFRA verdict has no reward: ask `trainable` first."""
        return 1.0 if self.outcome is Outcome.PASSED else 0.0

    @property
    def trainable(self) -> bool:
        """False for members that must be left out of mean, std and count of the advantage."""
        return self.outcome not in (Outcome.INFRA, Outcome.FLAGGED)
