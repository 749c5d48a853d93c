"""One solution under way: the loop, and the scaffold's parts at work in it."""

from __future__ import annotations

import time
from collections import Counter
from dataclasses import replace

from envs.tools import Call, bounded, schemas
from envs.types import Episode, Task, Verdict
from rollout.agent import words
from rollout.agent.conversation import Conversation
from rollout.agent.course import Course, Seen, Step
from rollout.agent.ended import Ended
from rollout.agent.memory import digest, notes_words, take_notes
from rollout.agent.workspace import Workspace
from rollout.agent.world import World
from rollout.chat.types import Observation, Reply
from rollout.scaffold.defaults import bare_scaffold
from rollout.scaffold.document import bounds_of, free_text
from rollout.scaffold.parse import from_document
from rollout.types import Arm, Finish, Proposal, Stage, StopReason

RUN_TESTS, SUBMIT = Call("run_tests", {}), Call("submit", {})
CHANGES = ("write", "edit", "shell")  # after one of them a green run of the tests says nothing any more


class Attempt:
    """One solution under way."""

    def __init__(self, world: World, task: Task, proposal: Proposal, key: str) -> None:
        self.world, self.task = world, task
        self.bounds = bounds_of(task, world.settings)
        self.scaffold = from_document(proposal.scaffold) if proposal.scaffold else bare_scaffold(self.bounds)
        self.course = Course(self.scaffold, self.bounds.max_turns)
        self.talk = Conversation(world, Stage.SOLUTION, key)
        said = f"{proposal.written}\n{free_text(self.scaffold)}" if proposal.arm is Arm.SELF else ""
        shell_s = self.scaffold.orchestration.shell_s
        self.space = Workspace(task, world.open_sandbox, shell_s=shell_s, scaffold=said)
        self.tokens = world.settings.episode_tokens - sum(len(turn.completion.token_ids) for turn in proposal.turns)
        self.notes: tuple[str, ...] = ()
        self.counts: Counter[str] = Counter()
        self.malformed = 0  # in a row
        self.green = False  # the visible tests passed, and nothing was changed since
        self.asked = 0  # since the context was opened
        self.last_words = ""  # what the driver said last
        self.started = time.monotonic()

    async def play(self) -> tuple[StopReason, list[Episode]]:
        """The episodes of all attempts at the workspace, the last one last. Raises SandboxError, EngineError, Ended."""
        async with self.space:
            self.started = time.monotonic()
            stop = await self._loop()
            return stop, [*self.space.earlier, await self.space.collect()]

    async def _loop(self) -> StopReason:
        """Ask, act, see what the scaffold says to it, answer."""
        self._open_context()
        try:
            while True:
                self.course.begin_turn()
                reply, finish = await self._ask()
                observations, seen = await self._act(reply, finish)
                step = self.course.after(seen)
                if step.hand_in:
                    step = await self._hand_in(step, seen)
                if step.restart:
                    await self.space.restart()
                    self.green = False
                self._answer(reply, observations, seen, step)
        except Ended as ended:
            if ended.stop.is_ours:
                raise
            return ended.stop

    async def _ask(self) -> tuple[Reply, Finish]:
        settings = self.world.settings
        if self._is_stale():
            self._open_context()
        self.asked += 1
        seconds = min(settings.turn_s, self._seconds_left())
        reply, finish = await self.talk.ask(min(settings.turn_tokens, self.tokens - self.talk.written), seconds)
        if finish is Finish.DEADLINE:
            self._seconds_left()
            raise Ended(StopReason.ENGINE_ERROR, "slow")
        return reply, finish

    def _is_stale(self) -> bool:
        """Memory starts a new context after so many turns, or when a whole turn no longer fits into this one."""
        turns = self.scaffold.memory.refresh_turns
        full = self.talk.room < self.world.settings.turn_tokens
        return bool(turns) and self.asked > 0 and (self.asked >= turns or full)

    async def _act(self, reply: Reply, finish: Finish) -> tuple[list[Observation], Seen]:
        """Carry out the calls of a reply, up to a submit. A reply that is not whole is not carried out at all."""
        fault = reply.error or ("" if reply.calls else words.NO_CALL)
        if finish is Finish.LENGTH:
            fault = words.CUT
        self.malformed = self.malformed + 1 if fault else 0
        if fault:
            self.counts["format_errors"] += 1
            if self.malformed >= self.world.settings.format_errors:
                raise Ended(StopReason.FORMAT_ERROR)
            return [], Seen(malformed=fault)
        observations: list[Observation] = []
        called: set[str] = set()
        failed, tests, submitted = 0, None, False
        for call in reply.calls:
            submitted = call.name == "submit" and "submit" in self.course.phase.tools
            if submitted:
                break
            text, is_done = await self._call(call)
            observations.append(Observation("tool", text, call.name))
            failed += not is_done
            called |= {call.name} if is_done else set()
            if is_done and call.name == "run_tests":
                tests = text.endswith(words.EXIT_0)
            self._seconds_left()
        self.counts["tool_errors"] += failed
        return observations, Seen(called=frozenset(called), failed_calls=failed, tests=tests, submitted=submitted)

    async def _call(self, call: Call) -> tuple[str, bool]:
        """(what came back, was it carried out). A tool that only the phase leaves out is an error and no breach."""
        tools = self.course.phase.tools
        if call.name in self.task.tools and call.name not in tools:
            return words.NOT_NOW.format(tool=call.name, tools=", ".join(tools)), False
        action = await self.space.act(call, self.course.turns - 1)
        if call.name == "run_tests":
            self.green = action.observation.endswith(words.EXIT_0) and not call.arguments
        elif call.name in CHANGES:
            self.green = False
        text = bounded(action.observation, self.scaffold.memory.observation_chars)
        return text, not (action.error or action.refused)

    async def _hand_in(self, step: Step, seen: Seen) -> Step:
        """Ended(SUBMITTED), unless the scaffold wants green tests first and they are not."""
        if self.scaffold.orchestration.verify_before_submit and not self.green:
            action = await self.space.act(RUN_TESTS, self.course.turns - 1, on_record=False)
            self.green = action.observation.endswith(words.EXIT_0)
            if not self.green:
                self.counts["submits_refused"] += 1
                output = bounded(action.observation, self.scaffold.memory.observation_chars)
                after = self.course.refused()
                return replace(after, words=(*step.words, words.NOT_GREEN.format(output=output), *after.words))
        if seen.submitted:
            await self.space.act(SUBMIT, self.course.turns - 1)
        raise Ended(StopReason.SUBMITTED)

    def _answer(self, reply: Reply, observations: list[Observation], seen: Seen, step: Step) -> None:
        memory = self.scaffold.memory
        self.notes = take_notes(self.notes, reply.text, memory.notes_chars)
        again = memory.notes_every and self.course.turns % memory.notes_every == 0
        self.last_words = words.joined(
            seen.malformed, *step.words, notes_words(self.notes) if again and self.notes else ""
        )
        for call in () if seen.malformed else reply.calls[len(observations) :]:  # a submit that did not end it
            text = words.GOES_ON if call.name == "submit" else words.AFTER_SUBMIT
            observations = [*observations, Observation("tool", text, call.name)]
        said = [Observation("user", self.last_words)] if self.last_words else []
        self.talk.hear([*observations, *said])

    def _open_context(self) -> None:
        """The first context, or a new one from memory."""
        tools = {tool for phase in self.scaffold.orchestration.phases for tool in phase.tools}
        narrowed = replace(self.task, tools=tuple(tool for tool in self.task.tools if tool in tools))
        before = digest(self.space.actions, self.notes, self.scaffold.memory) if self.talk.turns else ""
        phase = self.course.announce()
        user = words.joined(
            self.task.prompt, before, self.last_words, "" if phase and phase in self.last_words else phase
        )
        self.talk.open(words.system_words(self.task, self.bounds, self.scaffold), user, schemas(narrowed))
        if self.talk.room <= 0 and not self.talk.turns:
            raise Ended(StopReason.TASK_ERROR, "prompt_too_long")
        self.counts["contexts"] += 1
        self.asked = 0

    def _seconds_left(self) -> float:
        """Raises Ended when there are none: TIMEOUT if the policy's own actions took most of them, else it is ours."""
        spent = time.monotonic() - self.started
        left = min(self.world.settings.episode_s, self.task.limits.episode_s) - spent
        if left > 0:
            return left
        if 2 * self.space.acted_s >= spent:
            raise Ended(StopReason.TIMEOUT)
        raise Ended(StopReason.ENGINE_ERROR, "slow")

    def metrics(self, verdict: Verdict) -> dict[str, float]:
        return {
            "turns": self.course.turns,
            "attempts": self.course.attempt,
            "completion_tokens": self.talk.written,
            "engine_s": self.talk.engine_s,
            "tools_s": self.space.acted_s,
            "verify_s": verdict.seconds,
            **self.counts,
        }
