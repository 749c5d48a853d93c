"""The logprob canary: does an engine answer with the weights that were published?

A published folder carries `canary.json`, written by the learner: a few prompts and what its own forward pass expects
after each. After every update an engine is asked for the likeliest token after each prompt; the log-probability that it
claims must be the learner's. Checksums prove that files arrived; this proves that they were put where they belong.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rollout.engine import Health
from rollout.errors import EngineError, RolloutError
from rollout.run_dir import read_json
from rollout.sglang.replicas import Replica
from rollout.types import Completion, Sampling

FILE = "canary.json"
TOLERANCE = {"float32": 2e-3, "bfloat16": 0.15}
"""Of the mean difference over the prompts, by the engine's dtype. Another model is away by whole units; weights of a
neighbouring version may be nearer than this, and are told apart by their number and checksums alone."""
DEADLINE_S = 600.0  # of one request: an engine may compile first


@dataclass(frozen=True, slots=True, kw_only=True)
class Probe:
    """One prompt, and the learner's log-probabilities of the likeliest next tokens."""

    token_ids: tuple[int, ...]
    next_ids: tuple[int, ...]
    logprobs: tuple[float, ...]  # of next_ids, falling


def read_probes(folder: Path) -> list[Probe]:
    """Of a published version. Raises RolloutError when it has none."""
    found = read_json(folder / FILE)
    if found is None:
        raise RolloutError(f"{folder / FILE}: missing; `ornith train` writes it with every version")
    return [Probe(**{name: tuple(value) for name, value in probe.items()}) for probe in found["probes"]]


def to_json(probes: Sequence[Probe]) -> dict[str, Any]:
    """What `read_probes` reads."""
    names = ("token_ids", "next_ids", "logprobs")
    return {"probes": [{name: list(getattr(probe, name)) for name in names} for probe in probes]}


async def differences(engine: Replica, probes: Sequence[Probe]) -> list[float]:
    """Of each prompt: how far the engine's log-probability of its likeliest next token is from the learner's.

    The likeliest is asked for (temperature 0 tells log-probabilities of the plain softmax), because of a sampled one
    the learner may have written nothing down. A token beyond `next_ids` is as wrong as the learner is sure of others.
    """
    found = []
    for probe in probes:
        sampling = Sampling(max_new_tokens=1, temperature=0.0)
        got = await engine.generate(probe.token_ids, sampling, deadline_s=DEADLINE_S)
        if not got.token_ids:
            raise EngineError("dead", f"the canary got no token in {DEADLINE_S:.0f} s")
        expected = dict(zip(probe.next_ids, probe.logprobs, strict=True))
        best, least = probe.logprobs[0], probe.logprobs[-1]
        wanted = expected.get(got.token_ids[0], least - (best - least))
        found.append(abs(got.behavior_logprobs[0] - wanted))
    return found


class CheckedEngine:
    """A replica whose every update is checked. A difference beyond the tolerance: updated once more, then RolloutError.

    `note(version, seconds, difference)` is told of every update that holds.
    """

    def __init__(self, engine: Replica, name: str, dtype: str, note: Callable[[int, float, float], None]) -> None:
        self._engine, self._name, self._tolerance, self._note = engine, name, TOLERANCE[dtype], note

    @property
    def load(self) -> int:
        return self._engine.load

    @property
    def capacity(self) -> int:
        return self._engine.capacity

    async def generate(self, prompt_ids: Sequence[int], sampling: Sampling, *, deadline_s: float) -> Completion:
        return await self._engine.generate(prompt_ids, sampling, deadline_s=deadline_s)

    async def load_verified(self, path: Path, policy_version: int) -> float:
        """Seconds from pause to resume. Raises EngineError as the engine does, RolloutError of wrong weights."""
        probes = read_probes(path)
        for _ in range(2):
            seconds = await self._engine.load_verified(path, policy_version)
            found = await differences(self._engine, probes)
            mean = sum(found) / len(found)
            if mean <= self._tolerance:
                self._note(policy_version, seconds, max(found))
                return seconds
        raise RolloutError(
            f"engine {self._name}: after two updates to version {policy_version} its log-probabilities are {mean:.3g} "
            f"away from the learner's (at most {self._tolerance} is expected): it does not serve {path}"
        )

    async def health(self) -> Health:
        return await self._engine.health()

    async def close(self) -> None:
        await self._engine.close()
