"""Everything that an episode is given, in one frozen bundle."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, field

from envs.guard.boundary import Grade
from envs.guard.judge import Judge
from envs.sandbox.protocol import OpenSandbox
from rollout.chat.types import Chat
from rollout.engine import Engine
from rollout.settings import RolloutSettings, SamplingSettings


@dataclass(frozen=True, slots=True, kw_only=True)
class World:
    """`grade` is `envs.guard.boundary.grader(open_sandbox)`; `judge` None is a decision, so it has no default."""

    engine: Engine
    chat: Chat
    open_sandbox: OpenSandbox
    grade: Grade
    judge: Judge | None
    settings: RolloutSettings
    sampling: SamplingSettings = field(default_factory=SamplingSettings)
    seed: int = 0

    def seed_of(self, key: str) -> int:
        """31 bits for one request: the same run, trajectory and turn draw the same tokens."""
        return int.from_bytes(hashlib.sha256(f"{self.seed}/{key}".encode()).digest()[:4], "big") >> 1
