"""The line that people watch, and what is tried again."""

import asyncio
import dataclasses
import io
import time

import pytest
from simulated import Simulation, tasks

from envs.errors import SandboxError
from envs.types import Outcome, Verdict
from rollout import admission, retry
from rollout.admission import until_engine_is_free
from rollout.engine import Health
from rollout.errors import EngineError
from rollout.ledger import Closing
from rollout.progress import Tally, show
from rollout.retry import Opener, RetryingEngine
from rollout.types import Sampling, StopReason


def episode(number: int, outcome: Outcome = Outcome.PASSED, **fields):
    async def make():
        simulation, (task,) = Simulation(), tasks(1)
        proposal = await simulation.propose(task, group_id="t@0", scaffold_index=0, admitted_version=0)
        return await simulation.solve(task, proposal, number)

    return dataclasses.replace(asyncio.run(make()), verdict=Verdict(outcome=outcome), **fields)


def test_the_line_tells_rates_outcomes_failures_by_cause_and_ages():
    now = 100.0
    tally = Tally(clock=lambda: now)
    now = 110.0
    tally.add(episode(0))
    tally.add(episode(1, Outcome.FAILED))
    tally.add(episode(2, Outcome.FLAGGED))
    lost = Verdict(outcome=Outcome.INFRA, cause="vanished")
    tally.add(dataclasses.replace(episode(3, stop=StopReason.SANDBOX_ERROR), verdict=lost))
    tally.close(Closing(valid=2, newest_version=0, broken=False), benched=0)
    tally.close(Closing(valid=0, newest_version=0, broken=True, reason="infra"), benched=1)
    tally.staleness.update([0, 1, 1])
    assert tally.rates() == (24.0, 1.5), "15 tokens: those of the shared scaffold once"
    assert tally.line(in_flight=3, policy_version=7, sandboxes=5) == (
        "v7 · 2 groups + 3 in flight · 4 episodes · 24/min · 2 tokens/s · pass 33% · flagged 1 · "
        "infra 1 (vanished 1) · dropped 1 (infra 1) · benched 1 · age 0:1 1:2 · 5 sandboxes"
    )
    now = 200.0
    assert tally.rates() == (0.0, 0.0), "rates are of the last minute"


def test_the_line_is_plain_where_nobody_watches_and_in_place_on_a_terminal(monkeypatch):
    class Terminal(io.StringIO):
        def isatty(self):
            return True

    async def watch(out):
        task = asyncio.create_task(show(lambda: "the line", out))
        await asyncio.sleep(0.05)
        task.cancel()
        await asyncio.wait([task])
        return out.getvalue()

    monkeypatch.setattr("rollout.progress.PLAIN_S", 0.01)
    plain = asyncio.run(watch(io.StringIO()))
    assert set(plain.splitlines()) == {"the line"}
    assert len(plain.splitlines()) > 1
    assert asyncio.run(watch(Terminal())) == "\r\x1b[Kthe line\n"


class Failing:
    """An engine that raises these causes, then answers."""

    policy_version = 3

    def __init__(self, *causes: str) -> None:
        self.causes, self.deadlines = list(causes), []

    async def generate(self, prompt_ids, sampling, *, deadline_s):
        self.deadlines.append(deadline_s)
        if self.causes:
            raise EngineError(self.causes.pop(0), "x")
        return "answer"


def ask(engine: Failing, attempts: int = 3, deadline_s: float = 5.0):
    retrying = RetryingEngine(engine, attempts=attempts)
    return asyncio.run(retrying.generate((1,), Sampling(max_new_tokens=1), deadline_s=deadline_s))


def test_a_request_that_never_reached_the_engine_is_sent_again_within_its_deadline(monkeypatch):
    monkeypatch.setattr(retry, "FIRST_S", 0.02)
    engine = Failing("unreachable", "not_ready")
    assert ask(engine) == "answer"
    assert len(engine.deadlines) == 3
    assert engine.deadlines[0] > engine.deadlines[1] > engine.deadlines[2] > 4.0
    with pytest.raises(EngineError, match="unreachable"):
        ask(engine := Failing(*["unreachable"] * 9))
    assert len(engine.deadlines) == 3
    began = time.monotonic()
    with pytest.raises(EngineError, match="unreachable"):
        ask(Failing(*["unreachable"] * 9), attempts=9, deadline_s=0.1)
    assert time.monotonic() - began < 0.2


@pytest.mark.parametrize("cause", ["rejected", "bad_answer", "dead"])
def test_a_request_that_the_engine_has_seen_is_not_sent_again(cause):
    with pytest.raises(EngineError, match=cause):
        ask(engine := Failing(cause))
    assert len(engine.deadlines) == 1


def test_a_sandbox_that_does_not_start_is_tried_again_and_those_in_use_are_counted(monkeypatch):
    monkeypatch.setattr(retry, "FIRST_S", 0.01)
    failures = 2

    class Box:
        alive = True

    async def opener(image, *, limits):
        nonlocal failures
        failures -= 1
        if failures >= 0:
            raise SandboxError("no")
        return Box()

    async def run():
        nonlocal failures
        opening = Opener(opener, attempts=3)
        box = await opening("base", limits=None)
        await opening("base", limits=None)
        assert (opening.retried, opening.in_use) == (2, 2)
        box.alive = False
        assert opening.in_use == 1
        failures = 3
        with pytest.raises(SandboxError):
            await opening("base", limits=None)

    asyncio.run(run())


def test_an_engine_that_stays_silent_ends_the_run_with_a_reason(monkeypatch):
    monkeypatch.setattr(admission, "SILENT_S", 0.05)
    monkeypatch.setattr(admission, "POLL_S", 0.02)

    async def dead() -> Health:
        raise EngineError("dead", "the loop broke")

    with pytest.raises(EngineError, match="no answer for 0 s; last: dead: the loop broke"):
        asyncio.run(until_engine_is_free(dead))
