"""What is going on, in one line: rates, passes, failures of ours by cause, ages, sandboxes in use."""

from __future__ import annotations

import asyncio
import sys
import time
from collections import Counter, deque
from collections.abc import Callable
from typing import TextIO

from rollout.ledger import Closing
from rollout.types import Stage, Trajectory

WINDOW_S = 60.0  # rates are of the last so many seconds
PLAIN_S = 15.0  # between lines where nobody looks at a terminal


class Tally:
    """Counts of this process. `add` each trajectory once, when it is durable."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._began = clock()
        self._recent: deque[tuple[float, int]] = deque()  # (when, tokens) of the episodes in the window
        self.episodes = self.groups = self.benched = 0
        self.outcomes: Counter[str] = Counter()
        self.infra: Counter[str] = Counter()  # by cause
        self.dropped: Counter[str] = Counter()  # groups, by reason
        self.staleness: Counter[int] = Counter()  # of groups that were handed out, in updates

    def add(self, trajectory: Trajectory) -> None:
        """One more episode."""
        verdict = trajectory.verdict
        self.episodes += 1
        self.outcomes["infra" if trajectory.stop.is_ours else verdict.outcome.value] += 1
        if trajectory.stop.is_ours or verdict.outcome == "infra":
            self.infra[verdict.cause or trajectory.stop.value] += 1
        self._recent.append((self._clock(), written_tokens(trajectory)))
        self._forget()

    def close(self, closing: Closing, *, benched: int) -> None:
        """One more group."""
        self.groups += 1
        self.benched = benched
        if closing.reason:
            self.dropped[closing.reason] += 1

    def rates(self) -> tuple[float, float]:
        """(episodes per minute, tokens written per second) of the last minute."""
        self._forget()
        seconds = max(1e-9, min(WINDOW_S, self._clock() - self._began))
        return 60 * len(self._recent) / seconds, sum(tokens for _, tokens in self._recent) / seconds

    def line(self, *, in_flight: int, policy_version: int, sandboxes: int | None = None) -> str:
        """For people."""
        episodes, tokens = self.rates()
        judged = sum(count for outcome, count in self.outcomes.items() if outcome != "infra")
        parts = [
            f"v{policy_version}",
            f"{self.groups} groups + {in_flight} in flight",
            f"{self.episodes} episodes",
            f"{episodes:.0f}/min",
            f"{tokens:,.0f} tokens/s",
            f"pass {100 * self.outcomes['passed'] / max(1, judged):.0f}%",
        ]
        parts += [f"{name} {self.outcomes[name]}" for name in ("flagged", "vetoed") if self.outcomes[name]]
        parts += _counts("infra", self.infra) + _counts("dropped", self.dropped)
        parts += [f"benched {self.benched}"] if self.benched else []
        ages = " ".join(f"{age}:{count}" for age, count in sorted(self.staleness.items()))
        parts += [f"age {ages}"] if ages else []
        return " · ".join(parts + ([] if sandboxes is None else [f"{sandboxes} sandboxes"]))

    def _forget(self) -> None:
        while self._recent and self._recent[0][0] < self._clock() - WINDOW_S:
            self._recent.popleft()


def written_tokens(trajectory: Trajectory) -> int:
    """Tokens that the policy wrote for it; those of a shared scaffold belong to the first solution alone."""
    return sum(
        len(turn.completion.token_ids)
        for turn in trajectory.turns
        if turn.stage is Stage.SOLUTION or trajectory.solution_index == 0
    )


async def show(line: Callable[[], str], out: TextIO | None = None) -> None:
    """Write the line (to stderr) again and again until cancelled: in place on a terminal, now and then elsewhere."""
    out = sys.stderr if out is None else out
    live = out.isatty()
    try:
        while True:
            await asyncio.sleep(1.0 if live else PLAIN_S)
            out.write(f"\r\x1b[K{line()}" if live else f"{line()}\n")
            out.flush()
    finally:
        out.write(f"\r\x1b[K{line()}\n" if live else f"{line()}\n")


def _counts(word: str, counter: Counter[str]) -> list[str]:
    inner = ", ".join(f"{name} {count}" for name, count in counter.most_common(4))
    return [f"{word} {counter.total()} ({inner})"] if counter else []
