"""Where an episode stands in its scaffold: phases and error handling, as decisions without I/O."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass

from rollout.agent.ended import Ended
from rollout.scaffold.document import CALLED, Phase, Rule, Scaffold
from rollout.types import StopReason


@dataclass(frozen=True, slots=True, kw_only=True)
class Seen:
    """What one turn showed."""

    malformed: str = ""  # why nothing could be carried out: no call, a broken one, a reply that was cut off
    called: frozenset[str] = frozenset()  # tools whose call was carried out
    failed_calls: int = 0
    tests: bool | None = None  # did the visible tests pass; None: not run
    submitted: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Step:
    """What follows: `words` for the policy, and perhaps a fresh workspace or the handing in."""

    words: tuple[str, ...] = ()
    restart: bool = False
    hand_in: bool = False


class Course:
    """One episode's way through the phases. `begin_turn` and `after` raise Ended when it is over."""

    def __init__(self, scaffold: Scaffold, max_turns: int) -> None:
        self._plan, self._errors = scaffold.orchestration, scaffold.error_handling
        self._max_turns = max_turns
        self._index = 0
        self._phase_turns = 0
        self._failures: Counter[str] = Counter()  # in a row, by kind
        self.turns = 0
        self.attempt = 1

    @property
    def phase(self) -> Phase:
        return self._plan.phases[self._index]

    def begin_turn(self) -> None:
        if self.turns >= self._max_turns:
            raise Ended(StopReason.MAX_TURNS)
        self.turns += 1
        self._phase_turns += 1

    def announce(self) -> str:
        """The phase in words; "" for the nameless one that stands for no scaffold."""
        phase, count = self.phase, len(self._plan.phases)
        if not phase.name and not phase.goal:
            return ""
        ways = {"turns": "", "tests_pass": "when run_tests passes, ", "submit": "when you call submit, "}
        way = ways.get(phase.exit, f"when you have called {phase.exit.removeprefix(CALLED)}, ")
        return (
            f"Phase {self._index + 1} of {count}, {phase.name}: {phase.goal}\n"
            f"Tools in it: {', '.join(phase.tools)}. It ends {way}at the latest after {phase.max_turns} turns."
        )

    def after(self, seen: Seen) -> Step:
        """What the scaffold says to a turn: error handling first, then the phase's exit, then its turns."""
        words, then = self._react(seen)
        if then != "continue":
            return self._jump(then, words)
        is_met, is_last = self._is_met(seen), self._index == len(self._plan.phases) - 1
        if (seen.submitted and self.phase.exit != "submit") or (is_met and is_last):
            return Step(words=words, hand_in=True)
        return self._enter(self._index + 1, words) if is_met else self._go_on(words)

    def refused(self) -> Step:
        """The work was to be handed in, and the visible tests failed."""
        words, then = self._react(Seen(tests=False))
        return self._jump(then, words) if then != "continue" else self._go_on(words)

    def _go_on(self, words: tuple[str, ...]) -> Step:
        if self._phase_turns < self.phase.max_turns:
            return Step(words=words)
        if self._index == len(self._plan.phases) - 1:
            raise Ended(StopReason.MAX_TURNS)
        return self._enter(self._index + 1, words)

    def _is_met(self, seen: Seen) -> bool:
        phase = self.phase
        if phase.exit == "submit":
            return seen.submitted
        if phase.exit == "tests_pass":
            return seen.tests is True
        if phase.exit == "turns":
            return self._phase_turns >= phase.max_turns
        return phase.exit.removeprefix(CALLED) in seen.called

    def _react(self, seen: Seen) -> tuple[tuple[str, ...], str]:
        """(hints, what happens next) of every kind of error that the turn showed."""
        kinds: tuple[tuple[str, Rule, bool | None], ...] = (  # True: it happened; False: its opposite; None: neither
            ("format_error", self._errors.format_error, bool(seen.malformed)),
            ("tool_error", self._errors.tool_error, True if seen.failed_calls else False if seen.called else None),
            ("tests_failed", self._errors.tests_failed, None if seen.tests is None else not seen.tests),
        )
        hints: list[str] = []
        then = "continue"
        for kind, rule, happened in kinds:
            if happened is None:
                continue
            self._failures[kind] = self._failures[kind] + 1 if happened else 0
            if happened and rule.hint:
                hints.append(rule.hint)
            if self._failures[kind] > rule.retries and rule.then != "continue":
                self._failures[kind] = 0
                then = rule.then if then == "continue" else then
        return tuple(hints), then

    def _jump(self, then: str, words: tuple[str, ...]) -> Step:
        if then == "back":
            return self._enter(max(0, self._index - 1), words)
        if then == "give_up" or self.attempt >= self._plan.attempts:
            raise Ended(StopReason.GAVE_UP)
        self.attempt += 1
        fresh = f"The workspace is as it was at the start. Attempt {self.attempt} of {self._plan.attempts}."
        return self._enter(0, (*words, fresh), restart=True)

    def _enter(self, index: int, words: tuple[str, ...], *, restart: bool = False) -> Step:
        self._index, self._phase_turns = index, 0
        return Step(words=(*words, self.announce()), restart=restart)
