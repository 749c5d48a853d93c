"""What every engine must do. One suite, run against each: it knows the `Engine` protocol and published folders only.

A test module subclasses `Conformance` and gives it two fixtures:

    service   a `Service` whose engine holds version 1 of `service.lab`
    unready   a `Service` whose engine has no version yet
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Coroutine
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from rollout.engine import Engine, Health
from rollout.errors import EngineError
from rollout.types import Completion, Finish, Sampling
from tests.reference.sampling import is_borderline, log_softmax
from tests.rollout.lab import Lab, check_completion, harmed

WAIT_S = 120.0
GREEDY = Sampling(max_new_tokens=24, temperature=0.0)
SAMPLED = Sampling(max_new_tokens=24, temperature=0.8, seed=1)


class Service:
    """An engine on an event loop of its own."""

    def __init__(self, lab: Lab, runner: asyncio.Runner, engine: Engine) -> None:
        self.lab, self.runner, self.engine = lab, runner, engine

    def run(self, what: Coroutine[Any, Any, Any]) -> Any:
        return self.runner.run(asyncio.wait_for(what, WAIT_S))

    @property
    def version(self) -> int:
        assert self.engine.policy_version is not None
        return self.engine.policy_version

    async def ask(self, prompt: list[int], sampling: Sampling, deadline_s: float = WAIT_S) -> Completion:
        return await self.engine.generate(prompt, sampling, deadline_s=deadline_s)

    async def update(self) -> int:
        version = self.version + 1
        await self.engine.update_weights(self.lab.publish(version), version)
        return version

    async def until(self, holds: Any) -> Health:
        """Wait for a state of health."""
        for _ in range(int(WAIT_S / 0.02)):
            if holds(health := await self.engine.health()):
                return health
            await asyncio.sleep(0.02)
        raise AssertionError(f"never came: {health}")


class Conformance:
    atol = 1e-3  # of a log-probability
    caches_prefixes = True  # `cached_tokens` of a prompt that extends an earlier one is not 0

    def check(self, lab: Lab, prompt: list[int], got: Completion, sampling: Sampling) -> None:
        check_completion(lab, prompt, got, sampling, self.atol)

    def test_greedy_ids_and_logprobs_are_those_of_the_full_forward(self, service: Service):
        async def all_at_once():
            return await asyncio.gather(*(service.ask(p, GREEDY) for p in prompts))

        prompts = [service.lab.prompt(length) for length in (1, 2, 7, 8, 9, 31, 33, 64, 100, 130)]
        for prompt, got in zip(prompts, service.run(all_at_once()), strict=True):
            assert (got.finish, len(got.token_ids)) == (Finish.LENGTH, GREEDY.max_new_tokens)
            assert got.versions == ((0, service.version),)
            self.check(service.lab, prompt, got, GREEDY)

    def test_sampled_logprobs_are_those_of_the_tempered_distribution(self, service: Service):
        """The divergence of the engine from the learner is the k3 estimate: mean of exp(d) - 1 - d."""
        prompt, differences = service.lab.prompt(20), []
        for temperature in (0.5, 1.0, 1.5):
            sampling = replace(SAMPLED, temperature=temperature, max_new_tokens=100)
            got = service.run(service.ask(prompt, sampling))
            self.check(service.lab, prompt, got, sampling)
            expected = service.lab.expected(service.version, prompt, got.token_ids, sampling)
            learner = expected[np.arange(100), np.array(got.token_ids)]
            differences.append(learner - np.array(got.behavior_logprobs))
        d = np.concatenate(differences)
        k3 = float(np.mean(np.exp(d) - 1 - d))
        print(f"k3 divergence between learner and engine: {k3:.1e}")
        assert k3 < 2e-3

    @pytest.mark.parametrize(
        "cut",
        [{"top_p": 0.7}, {"top_k": 5}, {"min_p": 0.1}, {"top_p": 0.9, "top_k": 40}],
        ids=["top_p", "top_k", "min_p", "two"],
    )
    def test_truncated_logprobs_are_renormalised_over_what_is_left(self, service: Service, cut: dict[str, Any]):
        prompt, sampling = service.lab.prompt(10), replace(SAMPLED, max_new_tokens=100, seed=3, **cut)
        got = service.run(service.ask(prompt, sampling))
        logits = service.lab.logits(service.version, [*prompt, *got.token_ids])[len(prompt) - 1 : -1]
        expected = service.lab.expected(service.version, prompt, got.token_ids, sampling)
        clear = ~is_borderline(logits, sampling, margin=1e-5)
        assert clear.mean() > 0.5
        assert np.isneginf(expected[clear]).any(axis=1).mean() > 0.5, "nothing was cut: the test shows nothing"
        wanted = expected[np.arange(100), np.array(got.token_ids)]
        np.testing.assert_allclose(np.array(got.behavior_logprobs)[clear], wanted[clear], atol=self.atol, rtol=0)

    def test_a_stop_token_ends_it_and_is_its_last_id(self, service: Service):
        prompt = service.lab.prompt(12, seed=4)
        whole = service.run(service.ask(prompt, SAMPLED))
        stops = (0, whole.token_ids[9])
        first = next(i for i, token in enumerate(whole.token_ids) if token in stops)
        got = service.run(service.ask(prompt, replace(SAMPLED, stop_token_ids=stops)))
        assert got.finish is Finish.STOP
        assert got.token_ids == whole.token_ids[: first + 1]
        assert len(got.behavior_logprobs) == first + 1

    def test_the_context_ends_it(self, service: Service):
        lab = service.lab
        prompt = lab.prompt(lab.max_len - 5)
        got = service.run(service.ask(prompt, GREEDY))
        assert got.finish is Finish.LENGTH
        assert 1 <= len(got.token_ids) <= 5
        self.check(lab, prompt, got, GREEDY)

    def test_a_seed_gives_the_same_tokens_alone_and_in_a_crowd(self, service: Service):
        async def crowd():
            others = [service.ask(service.lab.prompt(5 + n, n), replace(SAMPLED, seed=n)) for n in range(6)]
            return (await asyncio.gather(*others, service.ask(prompt, SAMPLED)))[-1]

        prompt = service.lab.prompt(40, seed=5)
        alone = service.run(service.ask(prompt, SAMPLED))
        assert service.run(crowd()).token_ids == alone.token_ids
        assert service.run(service.ask(prompt, replace(SAMPLED, seed=2))).token_ids != alone.token_ids
        unseeded = [service.run(service.ask(prompt, replace(SAMPLED, seed=None))).token_ids for _ in range(2)]
        assert unseeded[0] != unseeded[1]

    def test_a_passed_deadline_returns_what_was_written_so_far(self, service: Service):
        prompt, long = service.lab.prompt(3), replace(SAMPLED, max_new_tokens=400)
        service.run(service.ask(prompt, long))
        start = time.monotonic()
        service.run(service.ask(prompt, long))
        deadline_s = (time.monotonic() - start) / 2
        start = time.monotonic()
        got = service.run(service.ask(prompt, long, deadline_s=deadline_s))
        assert time.monotonic() - start < deadline_s + 2
        assert got.finish is Finish.DEADLINE
        assert len(got.token_ids) < 400
        self.check(service.lab, prompt, got, long)
        service.run(service.until(lambda health: health.running == 0))

    def test_a_deadline_holds_in_the_queue_too(self, service: Service):
        async def many():
            return await asyncio.gather(*(service.ask(prompt, long, deadline_s=0.02) for _ in range(2 * capacity)))

        prompt, long = service.lab.prompt(3), replace(SAMPLED, max_new_tokens=400)
        capacity = service.run(service.engine.health()).capacity
        start = time.monotonic()
        assert {got.finish for got in service.run(many())} == {Finish.DEADLINE}
        assert time.monotonic() - start < 15
        service.run(service.until(lambda health: health.running == health.waiting == 0))

    def test_cancelling_frees_the_places(self, service: Service):
        async def cancel_all():
            capacity = (await service.engine.health()).capacity
            tasks = [asyncio.ensure_future(service.ask(service.lab.prompt(n + 1), long)) for n in range(2 * capacity)]
            await service.until(lambda health: health.running > 0)
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
            await service.until(lambda health: health.running == health.waiting == 0)
            assert all(task.cancelled() for task in tasks)

        long = replace(SAMPLED, max_new_tokens=400)
        service.run(cancel_all())
        assert len(service.run(service.ask(service.lab.prompt(4), GREEDY)).token_ids) == GREEDY.max_new_tokens

    def test_a_later_turn_reads_only_what_is_new_and_answers_the_same(self, service: Service):
        prompt, grown = service.lab.prompt(50, seed=int(time.time())), []
        for turn in range(4):
            got = service.run(service.ask(prompt, GREEDY))
            self.check(service.lab, prompt, got, GREEDY)
            if self.caches_prefixes and turn:
                assert got.cached_tokens >= len(grown) // 2
            grown = [*prompt, *got.token_ids]
            prompt = [*grown, *service.lab.prompt(9 * turn + 1, seed=turn)]
        version = service.run(service.update())
        got = service.run(service.ask(prompt, GREEDY))
        assert (got.cached_tokens, got.versions) == (0, ((0, version),)), "reused what an old version computed"
        self.check(service.lab, prompt, got, GREEDY)

    def test_fifty_updates_under_a_queue_drop_hang_and_mix_up_nothing(self, service: Service):
        first, lab = service.version, service.lab
        for version in range(first + 1, first + 51):
            lab.publish(version)
        requests = service.run(self.updates_under_load(service, first))
        assert service.version == first + 50
        assert any(len(got.versions) > 1 for _, _, _, got, _ in requests), "no update met a running request"
        for prompt, sampling, before, got, after in requests:
            self.check(lab, prompt, got, sampling)
            assert before <= got.versions[0][1] <= got.versions[-1][1] <= after
            assert len(got.token_ids) == sampling.max_new_tokens
        # Each version is another model: a token under a wrong version would have been seen.
        logits = [log_softmax(lab.logits(version, lab.prompt(9))) for version in (first, first + 1)]
        assert np.abs(logits[0] - logits[1]).mean() > 0.05

    async def updates_under_load(self, service: Service, first: int) -> list[Any]:
        """Two-turn episodes, more than fit at once, while 50 versions go by."""
        done: list[Any] = []
        at_work = asyncio.Event()

        async def ask(prompt: list[int], sampling: Sampling) -> Completion:
            before = service.version
            got = await service.ask(prompt, sampling)
            done.append((prompt, sampling, before, got, service.version))
            return got

        async def worker(n: int) -> None:
            turn = 0
            while not over.is_set():
                prompt = service.lab.prompt(5 + n, seed=turn)
                got = await ask(prompt, replace(SAMPLED, seed=n, max_new_tokens=60))
                await ask([*prompt, *got.token_ids, 7], replace(SAMPLED, seed=n, max_new_tokens=10))
                at_work.set()
                turn += 1

        over = asyncio.Event()
        capacity = (await service.engine.health()).capacity
        workers = [asyncio.ensure_future(worker(n)) for n in range(capacity + 2)]
        await at_work.wait()
        for version in range(first + 1, first + 51):
            seconds = await service.engine.update_weights(service.lab.publish(version), version)
            assert 0 <= seconds < 60
            assert service.version == version
        over.set()
        await asyncio.gather(*workers)
        return done

    @pytest.mark.parametrize("harm", ["no marker", "a flipped byte", "a file less", "another version", "no folder"])
    def test_a_bad_folder_is_refused_and_the_old_version_goes_on(self, service: Service, harm: str):
        before, prompt = service.version, service.lab.prompt(6)
        wanted = service.run(service.ask(prompt, GREEDY)).token_ids
        good = service.lab.publish(1000)
        bad = harmed(good, good.parent / f"bad-{harm.replace(' ', '-')}", harm)
        with pytest.raises(EngineError) as refused:
            service.run(service.engine.update_weights(bad, 1000))
        assert refused.value.cause == "update_failed"
        assert str(bad) in str(refused.value)
        assert service.version == before
        assert service.run(service.ask(prompt, GREEDY)).token_ids == wanted

    def test_what_cannot_be_asked_is_rejected(self, service: Service):
        lab, prompt = service.lab, service.lab.prompt(4)
        bad = [([], GREEDY), ([lab.cfg.vocab_size], GREEDY), ([-1], GREEDY), (lab.prompt(lab.max_len + 1), GREEDY)]
        bad += [(prompt, replace(GREEDY, **{field: value})) for field, value in BAD_SAMPLING]
        for ids, sampling in bad:
            with pytest.raises(EngineError) as refused:
                service.run(service.ask(ids, sampling))
            assert refused.value.cause == "rejected", (ids, sampling)
        assert service.run(service.ask(prompt, GREEDY)).token_ids

    def test_nothing_is_generated_before_the_first_version(self, unready: Service):
        assert unready.engine.policy_version is None
        with pytest.raises(EngineError) as refused:
            unready.run(unready.ask([1, 2], GREEDY))
        assert refused.value.cause == "not_ready"


BAD_SAMPLING = [
    ("max_new_tokens", 0),
    ("temperature", -1.0),
    ("top_p", 0.0),
    ("top_p", 1.5),
    ("top_k", -2),
    ("min_p", 2),
]
