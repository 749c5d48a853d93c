"""What the log says about groups: which were admitted, which ended, which count. A restart reads it back.

Records, each once per group: `admitted` (before anything of it runs), `closed` (after the last of its episodes),
`dropped` (it will never be trained on: its place is free again).
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterable
from dataclasses import dataclass, field

from envs.types import Outcome
from rollout.store.index import Index
from rollout.types import StopReason, Trajectory

STRIKES = 3  # groups of a task that broke, before it is benched


@dataclass(frozen=True, slots=True, kw_only=True)
class Admission:
    """A group that was let in. `number` counts the driver's admissions from 0, dropped ones too."""

    group_id: str
    task_id: str
    number: int
    admitted_version: int
    scaffolds: int  # N and K of this group, whatever the settings say later
    solutions: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Closing:
    """How a group ended. It is dropped when `reason` is not empty."""

    valid: int  # members that may be trained on
    newest_version: int  # of any token in it; -1 without tokens
    broken: bool  # no member got as far as a verdict, because of the task or its sandboxes
    reason: str = ""


@dataclass(slots=True)
class Ledger:
    """Counts and the state of every group. The driver tells it what it has stored."""

    dropped: dict[str, str] = field(default_factory=dict)  # group id -> reason
    numbers: dict[str, int] = field(default_factory=dict)  # group id -> number, of all groups ever let in
    first_version: int | None = None  # the oldest at which a group was let in
    open: dict[str, Admission] = field(default_factory=dict)  # under way, by group id, oldest first
    waiting: dict[str, tuple[Admission, Closing]] = field(default_factory=dict)  # ended, and nobody is done with them
    strikes: Counter[str] = field(default_factory=Counter)  # task id -> groups that broke while others did not
    _good: int = 0  # groups with a valid member
    _good_at_strike: dict[str, int] = field(default_factory=dict)

    @classmethod
    def restore(cls, index: Index) -> Ledger:
        """From the records of a log, in their order. Raises `RolloutError` for one that is damaged."""
        ledger = cls()
        for kind, id in list(index.entries):
            if kind == "admitted":
                ledger.admit(Admission(**index.read(kind, id)))
            elif kind == "closed":
                ledger.close(id, Closing(**index.read(kind, id)))
            elif kind == "dropped":
                ledger.drop(id, index.read(kind, id)["reason"])
        return ledger

    def admit(self, admission: Admission) -> None:
        at = admission.admitted_version
        self.first_version = at if self.first_version is None else min(at, self.first_version)
        self.numbers[admission.group_id] = admission.number
        self.open[admission.group_id] = admission

    def close(self, group_id: str, closing: Closing) -> None:
        admission = self.open.pop(group_id, None)
        if admission is None:  # dropped while its last episode was being written
            return
        if closing.reason:
            self.dropped[group_id] = closing.reason
        else:
            self.waiting[group_id] = (admission, closing)
        self._judge(admission.task_id, closing)

    def drop(self, group_id: str, reason: str) -> None:
        self.dropped.setdefault(group_id, reason)
        self.open.pop(group_id, None)
        self.waiting.pop(group_id, None)

    def done_with(self, group_id: str) -> None:
        """It was trained on."""
        self.waiting.pop(group_id, None)

    @property
    def counted(self) -> int:
        """Groups that were admitted and not dropped."""
        return len(self.numbers) - len(self.dropped)

    @property
    def benched(self) -> set[str]:
        """Tasks that broke again and again while others did not; they are drawn no more."""
        return {task_id for task_id, count in self.strikes.items() if count >= STRIKES}

    def next_group(
        self, handed: Collection[str], *, policy_version: int, max_staleness: int, groups_per_step: int
    ) -> Admission | None:
        """The oldest group for an update of this version, besides those that are `handed` out for it already.

        One with tokens of a version that is not there yet has to wait. And places are kept for groups under way that
        would be too old for the next update: there are never more of them than places, by the rule of admission.
        """
        ready = [
            admission
            for id, (admission, closing) in self.waiting.items()
            if id not in handed and closing.newest_version <= policy_version
        ]
        oldest = min(ready, key=lambda admission: admission.number, default=None)
        due = policy_version - max_staleness
        late = sum(admission.admitted_version <= due for admission in self.open.values())
        if oldest is None or oldest.admitted_version <= due or len(handed) + late < groups_per_step:
            return oldest
        return None

    def _judge(self, task_id: str, closing: Closing) -> None:
        if closing.valid:
            self._good += 1
            self.strikes.pop(task_id, None)
        elif closing.broken and self._good_at_strike.get(task_id) != self._good:
            self.strikes[task_id] += 1
            self._good_at_strike[task_id] = self._good


def closing_of(members: Iterable[Trajectory], needed: int) -> Closing:
    """What a group's trajectories come to. It is dropped when fewer than `needed` of them are valid."""
    members = list(members)
    valid = sum(is_valid(member) for member in members)
    lost = all(member.verdict.outcome is Outcome.INFRA for member in members)
    elsewhere = any(member.stop in (StopReason.ENGINE_ERROR, StopReason.CANCELLED) for member in members)
    reason = "" if valid >= needed else "infra" if lost else "few_valid"
    newest = max((newest_version(member) for member in members), default=-1)
    return Closing(valid=valid, newest_version=newest, broken=lost and not elsewhere, reason=reason)


def is_valid(trajectory: Trajectory) -> bool:
    """May it be trained on? Neither our own failure nor flagged by the filter."""
    return not trajectory.stop.is_ours and trajectory.verdict.trainable


def newest_version(trajectory: Trajectory) -> int:
    """The newest policy that wrote a token of it; -1 without tokens."""
    return max((span[1] for turn in trajectory.turns for span in turn.completion.versions), default=-1)
