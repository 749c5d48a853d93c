"""Whole episodes on one fledgling task: real sandboxes, real tools, real grading; the policy follows a script."""

import asyncio
import copy
import json
from dataclasses import dataclass, field, replace

from envs.guard.boundary import grader
from envs.sandbox.open import open_sandbox
from envs.suites import fledgling
from envs.tools import Call
from rollout.agent.propose import propose
from rollout.agent.solve import solve
from rollout.agent.world import World
from rollout.chat.types import Reply
from rollout.scripted import Say, ScriptedEngine
from rollout.settings import RolloutSettings
from rollout.types import Proposal, Stage, Trajectory
from tests.rollout.tokenizers import chat

TASK = fledgling.make("spec", 3)
CHAT = chat("qwen3_5")  # and `play(..., talk=chat("gemma4"))`
PATH = "app/card.py"
BREAK = Call("shell", {"command": f"echo 'raise ValueError' > {PATH}"})
READ = Call("read", {"path": PATH})
MISSING = Call("read", {"path": "app/nothing.py"})
RUN_TESTS = Call("run_tests", {})
SUBMIT = Call("submit", {})
EXPERT = [[call] for call in fledgling.expert(TASK)]
DOCUMENT = {
    "instructions": "Go on.",
    "orchestration": {"phases": [{"name": "work", "goal": "Do it.", "max_turns": TASK.max_turns, "exit": "submit"}]},
}


@dataclass
class Played:
    """One episode, the prompts that the engine saw as text, and how many sandboxes the policy had."""

    proposal: Proposal
    trajectory: Trajectory
    prompts: list[str] = field(default_factory=list)
    opened: int = 0

    @property
    def told(self) -> list[str]:
        """What the solver was told, message by message: tool results and the driver's words."""
        return [
            str(message["content"])
            for message in self.trajectory.messages
            if message["stage"] == "solution" and message["role"] in ("tool", "user")
        ]

    @property
    def system(self) -> str:
        return next(str(m["content"]) for m in self.trajectory.messages if m["stage"] == "solution")

    @property
    def forks(self) -> list[bool]:
        return [turn.forked for turn in self.trajectory.turns if turn.stage is Stage.SOLUTION]


def says(*turns) -> list[Say]:
    """Each turn: a list of calls, a text without calls, a Reply, or a Say."""
    said = []
    for turn in turns:
        if isinstance(turn, list):
            turn = Reply("", "", tuple(turn), "")
        elif isinstance(turn, str):
            turn = Reply(turn, "", (), "")
        said.append(turn if isinstance(turn, Say) else Say(reply=turn))
    return said


def document(changes: dict | None = None) -> dict:
    """DOCUMENT with dotted paths changed: {"memory.keep_full": 0, "orchestration.phases.0.max_turns": 2}."""
    made = copy.deepcopy(DOCUMENT)
    for path, value in (changes or {}).items():
        at, keys = made, path.split(".")
        for key in keys[:-1]:
            at = at[int(key)] if isinstance(at, list) else at.setdefault(key, {})
        at[keys[-1]] = copy.deepcopy(value)
    return made


def make_world(script, *, opener=open_sandbox, version=0, talk=CHAT, judge=None, **settings) -> World:
    return World(
        engine=ScriptedEngine(talk, script, policy_version=version),
        chat=talk,
        open_sandbox=opener,
        grade=grader(open_sandbox),
        judge=judge,
        settings=RolloutSettings(**settings),
        seed=7,
    )


def play(scaffold, *turns, task=TASK, previous=None, opener=open_sandbox, **settings) -> Played:
    """Propose, then solve. `scaffold`: a document, or what the policy says in the first stage; None: another arm."""
    first = [] if scaffold is None else scaffold if isinstance(scaffold, list) else [json.dumps(scaffold)]
    counted = Counting(opener)
    world = make_world(says(*first, *turns), opener=counted, **settings)

    async def both() -> tuple[Proposal, Trajectory]:
        proposal = await propose(world, task, previous, group_id=f"{task.id}@0", scaffold_index=2, admitted_version=5)
        return proposal, await solve(world, task, proposal, solution_index=1)

    proposal, trajectory = asyncio.run(asyncio.wait_for(both(), 120))
    return Played(proposal, trajectory, [world.chat.decode(ids) for ids in world.engine.prompts], counted.opened)


class Counting:
    """An opener that counts, and knows whether everything that it opened was closed."""

    def __init__(self, opener) -> None:
        self.opener, self.opened, self.boxes = opener, 0, []

    async def __call__(self, *arguments, **named):
        self.opened += 1
        box = await self.opener(*arguments, **named)
        self.boxes.append(box)
        return box

    @property
    def all_closed(self) -> bool:
        return all(not box.alive for box in self.boxes)


def with_turns(count: int):
    return replace(TASK, max_turns=count)
