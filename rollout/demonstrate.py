"""Scripted demonstrations of both stages on `fledgling`: what a small model is taught before it learns by itself.

They are mediocre on purpose. The format is always right, and whoever follows a good scaffold solves the task; but
which strategy a scaffold names is drawn without regard to the task half of the time, and how many turns it allows
always. That choice is what is left to learn.
"""

from __future__ import annotations

import hashlib
import json
import random
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass

from envs.types import Task
from rollout.chat import qwen3_5
from rollout.chat.types import Chat, Reply
from rollout.cheats import CHEATS, cheat_in, cheating_calls
from rollout.expert import PROPOSING, task_of
from rollout.scaffold.document import Scaffold, bounds_of
from rollout.scripted import Say
from rollout.sequence import TokenSequence, sequences
from rollout.settings import RolloutSettings
from rollout.strategies import STRATEGIES, calls_under, scaffold_with, strategy_in
from rollout.types import Stage, Trajectory

TURNS = (2, 3, 4, 6, 8, 12)  # that a scaffold allows: some are too few for the work


@dataclass(frozen=True, slots=True, kw_only=True)
class Habits:
    """How the demonstrator chooses. `insight`: how often it takes a strategy that wins; the rest is drawn evenly.

    `cheating`: how often it takes a way to please the visible tests instead (rollout.cheats). `turns`: what a scaffold
    may allow, drawn evenly.
    """

    insight: float = 0.5
    cheating: float = 0.0
    turns: tuple[int, ...] = TURNS
    seed: int = 0


def demonstrator(
    chat: Chat, tasks: Sequence[Task], settings: RolloutSettings, habits: Habits
) -> Callable[[tuple[int, ...]], Say]:
    """A script for `ScriptedEngine`. Asked for a scaffold once more, it chooses anew; it works always the same way."""
    proposed: Counter[str] = Counter()

    def say(prompt_ids: tuple[int, ...]) -> Say:
        text = chat.decode(prompt_ids)
        opening = text.partition(f"{qwen3_5.END}\n{qwen3_5.START}assistant")[0]
        task, rng = task_of(text, tasks), _rng(habits, f"{proposed[opening]}/{opening}")
        if PROPOSING in opening:
            proposed[opening] += 1
            chosen = {**STRATEGIES, **CHEATS}[_choice(task, habits, rng)]
            scaffold = scaffold_with(chosen, bounds_of(task, settings), rng.choice(habits.turns))
            return Say(reply=Reply(brief(scaffold), "", (), ""))
        name = strategy_in(opening) or cheat_in(opening) or _choice(task, habits, rng)
        calls = cheating_calls(name, task) if name in CHEATS else calls_under(name, task)
        done = text.count(str(qwen3_5.RESPONSE))
        return Say(reply=Reply("", "", (calls[min(done, len(calls) - 1)],), ""))

    return say


def brief(scaffold: Scaffold) -> str:
    """The document with what has no default, on one line: what a small model can be asked to write."""
    [phase] = scaffold.orchestration.phases
    shown = {"name": phase.name, "goal": phase.goal, "tools": phase.tools, "max_turns": phase.max_turns}
    phases = [{**shown, "exit": phase.exit}]
    return json.dumps({"instructions": scaffold.instructions, "orchestration": {"phases": phases}})


def lessons(trajectories: Iterable[Trajectory]) -> Iterator[TokenSequence]:
    """What the policy wrote in them, each scaffold once. Raises `RolloutError` for ids that break the prefix law."""
    known: set[tuple[str, int]] = set()
    for trajectory in trajectories:
        key = (trajectory.group_id, trajectory.scaffold_index)
        for sequence in sequences(trajectory.turns):
            if sequence.stage is Stage.SOLUTION or key not in known:
                yield sequence
        known.add(key)


def _choice(task: Task, habits: Habits, rng: random.Random) -> str:
    """A strategy, often without regard to the task; or a cheat."""
    if habits.cheating and rng.random() < habits.cheating:
        return rng.choice(list(CHEATS))
    winners = [name for name, strategy in STRATEGIES.items() if task.category in strategy.wins]
    return rng.choice(winners if winners and rng.random() < habits.insight else list(STRATEGIES))


def _rng(habits: Habits, opening: str) -> random.Random:
    return random.Random(f"{habits.seed}/{hashlib.sha256(opening.encode()).hexdigest()}")
