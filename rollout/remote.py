"""An engine of ours in another process, over HTTP (`ornith_jax.serve.http`): ids in, ids and log-probabilities out."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from rollout.engine import Health
from rollout.errors import EngineError
from rollout.run_dir import EngineCard
from rollout.sglang.http import Http
from rollout.sglang.request import read_answer
from rollout.types import Completion, Sampling

LOAD_S = 1800.0  # of an update
CONTROL_S = 30.0
GRACE_S = 30.0  # for the answer of a request whose deadline has passed: the engine ends it, and tells what it has


class RemoteEngine:
    """`engine = await RemoteEngine.connect(card)`. Use it in the event loop that connected it."""

    def __init__(self, http: Http, capacity: int) -> None:
        self._http, self.capacity = http, capacity
        self.load = 0  # requests that this client has given it and that are not answered
        self._policy_version: int | None = None

    @classmethod
    async def connect(cls, card: EngineCard) -> RemoteEngine:
        """Raises EngineError when nobody answers, or somebody else: ports of dead engines are given to others."""
        http = Http(card.url)
        try:
            found = await http.get("/identity", deadline_s=CONTROL_S)
            if (found.get("pid"), found.get("host")) != (card.pid, card.host):
                raise EngineError("unreachable", f"{card.url}: is not {card.name} any more; its card is old")
            return cls(http, found["capacity"])
        except (KeyError, AttributeError):
            await http.close()
            raise EngineError("bad_answer", f"{card.url}/identity: not an engine of ours") from None
        except BaseException:
            await http.close()
            raise

    @property
    def policy_version(self) -> int | None:
        return self._policy_version

    async def generate(self, prompt_ids: Sequence[int], sampling: Sampling, *, deadline_s: float) -> Completion:
        """See `Engine.generate`."""
        if self._policy_version is None:
            raise EngineError("not_ready", f"{self._http.url}: no confirmed policy version; update its weights first")
        names = ("max_new_tokens", "temperature", "top_p", "top_k", "min_p", "seed")
        body = {
            "input_ids": list(prompt_ids),
            "sampling_params": {name: getattr(sampling, name) for name in names}
            | {"stop_token_ids": list(sampling.stop_token_ids)},
            "deadline_s": deadline_s,
        }
        self.load += 1
        try:
            answer = await self._http.post("/generate", body, deadline_s=deadline_s + GRACE_S)
        finally:
            self.load -= 1
        seconds = float(answer["meta_info"]["e2e_latency"])
        return read_answer(answer, truncated=False, aborted=True, seconds=seconds)

    async def load_verified(self, path: Path, policy_version: int) -> float:
        """Seconds from pause to resume. The engine compares every file with its checksum."""
        body = {"model_path": str(path.absolute()), "weight_version": str(policy_version)}
        answer = await self._http.post("/update_weights_from_disk", body, deadline_s=LOAD_S)
        self._policy_version = policy_version
        return float(answer["pause_s"])

    async def update_weights(self, path: Path, policy_version: int) -> float:
        """See `Engine.update_weights`."""
        return await self.load_verified(path, policy_version)

    async def health(self) -> Health:
        found = await self._http.get("/identity", deadline_s=CONTROL_S)
        return Health(**{name: found[name] for name in ("policy_version", "running", "waiting", "capacity")})

    async def close(self) -> None:
        await self._http.close()
