"""The frozen values between a Task and a stored Trajectory: Completion, Turn, Proposal, Trajectory, Group.

Nothing here does I/O.

    engine: prompt ids -> Completion ─► Turn (what was asked, what came back) ─► Trajectory (all turns of one solution,
    the scaffold's among them, and its Verdict) ─► Group (N scaffolds x K solutions of one task)

Token in, token out: ids are what the engine was given and gave; nothing is ever tokenized again from text.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum

from envs.types import Verdict


class Stage(StrEnum):
    """Which of the two stages wrote a turn."""

    SCAFFOLD = "scaffold"
    SOLUTION = "solution"


class Arm(StrEnum):
    """Self-scaffolding, and its two controls."""

    SELF = "self"  # propose a scaffold, then solve under it
    FIXED = "fixed"  # the default scaffold, never rewritten
    NONE = "none"  # no scaffold: the task and the tools alone


class Finish(StrEnum):
    """Why a completion ended."""

    STOP = "stop"  # a stop token, which is its last id
    LENGTH = "length"  # max_new_tokens, or the context was full
    DEADLINE = "deadline"  # the caller's deadline passed; what was written so far is here


class StopReason(StrEnum):
    """Why an episode ended. The second group is ours: never trained on, always counted."""

    SUBMITTED = "submitted"
    MAX_TURNS = "max_turns"
    MAX_TOKENS = "max_tokens"
    TIMEOUT = "timeout"  # the episode's seconds were used up by the policy's own actions
    FORMAT_ERROR = "format_error"  # too many malformed calls in a row
    BAD_SCAFFOLD = "bad_scaffold"  # no valid scaffold in the attempts that the settings allow
    GAVE_UP = "gave_up"  # the scaffold's own error handling ended the episode

    ENGINE_ERROR = "engine_error"
    SANDBOX_ERROR = "sandbox_error"
    TASK_ERROR = "task_error"
    CANCELLED = "cancelled"  # a straggler, a shutdown

    @property
    def is_ours(self) -> bool:
        """True for failures of the infrastructure."""
        return self in (
            StopReason.ENGINE_ERROR,
            StopReason.SANDBOX_ERROR,
            StopReason.TASK_ERROR,
            StopReason.CANCELLED,
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Sampling:
    """How to sample one completion. `top_k` 0 and `top_p` 1 mean all; temperature 0 is greedy."""

    max_new_tokens: int
    temperature: float = 1.0
    top_p: float = 1.0
    top_k: int = 0
    min_p: float = 0.0
    stop_token_ids: tuple[int, ...] = ()
    seed: int | None = None  # None: the engine draws one


Span = tuple[int, int]
"""(index of the first completion token, policy version that wrote it and those after it)."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Completion:
    """What the engine wrote. All tuples have one entry per token of `token_ids`, except `versions`.

    Example: token_ids=(386, 507, 9), behavior_logprobs=(-0.1, -2.3, -0.7), versions=((0, 4), (2, 5)):
    version 4 wrote the first two tokens, version 5 the third.
    """

    token_ids: tuple[int, ...]
    behavior_logprobs: tuple[float, ...]  # of the distribution that was sampled from, after temperature and truncation
    versions: tuple[Span, ...]
    finish: Finish
    routed_experts: bytes = b""  # int32 [prompt + completion - 1, layers, experts_per_token], little-endian; or empty
    cached_tokens: int = 0  # prompt tokens whose prefill was reused
    seconds: float = 0.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Turn:
    """One call of the policy. Within a stage, `prompt_ids` begins with all ids of the turn before, unless `forked`."""

    stage: Stage
    prompt_ids: tuple[int, ...]
    completion: Completion
    forked: bool = False  # the chat template could not extend the ids of the turn before: a new sequence starts here
    seconds: float = 0.0  # from the request to the end of its actions


@dataclass(frozen=True, slots=True, kw_only=True)
class Proposal:
    """The first stage of an episode, shared by the K solutions under it: `rollout.agent` proposes once, then solves.

    `stop` is None when the solutions may start (arms without a proposal: at once). Otherwise there is no scaffold:
    BAD_SCAFFOLD, or a failure of ours with its `cause`.
    """

    group_id: str
    task_id: str
    category: str
    scaffold_index: int
    arm: Arm
    turns: tuple[Turn, ...] = ()
    scaffold_id: str = ""
    scaffold_parent: str = ""
    scaffold: str = ""  # the document, canonical JSON; "" without one
    written: str = ""  # the last reply of the policy, its thinking left out: what the monitor reads
    stop: StopReason | None = None
    cause: str = ""
    messages: tuple[Mapping[str, object], ...] = ()
    admitted_version: int = 0  # newest published version when the group was admitted
    metrics: Mapping[str, float] = field(default_factory=dict)

    @property
    def id(self) -> str:
        """ "<group id>/<scaffold index>"."""
        return f"{self.group_id}/{self.scaffold_index}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Trajectory:
    """One solution with the scaffold it was written under. Siblings of one scaffold hold the same scaffold turns.

    `id` is unique for ever: "<group id>/<scaffold index>/<solution index>".
    """

    id: str
    group_id: str  # "<task id>@<how often the task was drawn before>"
    task_id: str
    category: str
    scaffold_index: int
    solution_index: int
    arm: Arm
    turns: tuple[Turn, ...]  # scaffold turns first
    scaffold_id: str = ""
    scaffold_parent: str = ""
    scaffold: str = ""  # the document, canonical JSON; "" without one
    stop: StopReason
    verdict: Verdict
    messages: tuple[Mapping[str, object], ...] = ()  # the conversation as text, for people and for export
    diff: str = ""  # what was handed in, against the visible files, for people; a long one is cut
    admitted_version: int = 0  # newest published version when the group was admitted
    metrics: Mapping[str, float] = field(default_factory=dict)  # seconds by kind, counts (forks, format errors, ...)

    @property
    def oldest_version(self) -> int | None:
        """The oldest policy that wrote a token of it; None without tokens."""
        return min((span[1] for turn in self.turns for span in turn.completion.versions), default=None)


@dataclass(frozen=True, slots=True, kw_only=True)
class Group:
    """All trajectories of one draw of a task: N scaffolds x K solutions, some of them missing or failed."""

    id: str
    task_id: str
    category: str
    trajectories: tuple[Trajectory, ...]
