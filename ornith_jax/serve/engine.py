"""The embedded engine: `rollout.engine.Engine` on this process's accelerator, with nothing to install.

asyncio on this side, the loop's thread on the other; between them a queue of orders and one future per request.
"""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import jax
import jax.numpy as jnp

from ornith_jax.config import ModelConfig
from ornith_jax.convert.load import load
from ornith_jax.errors import OrnithError
from ornith_jax.models import decoder
from ornith_jax.params import Params, is_spec
from ornith_jax.serve.loop import CLOSE_S, Loop, Swap
from ornith_jax.serve.request import Request, check
from rollout.engine import Health
from rollout.errors import EngineError, RolloutError
from rollout.published import verify
from rollout.settings import EngineSettings
from rollout.types import Completion, Finish, Sampling

UPDATE_S = 600.0  # a dispatch that compiles can take minutes; then something is wrong


class EmbeddedEngine:
    """One model of configuration `cfg` on the first device, `settings.slots` requests at once.

    It starts without weights. While new ones load, both they and the old are in memory.
    """

    def __init__(self, cfg: ModelConfig, settings: EngineSettings) -> None:
        if settings.tensor_parallel != 1 or settings.replicas != 1:
            raise OrnithError("engine: the embedded engine runs on one device; set tensor_parallel=1 and replicas=1")
        if settings.slots < 1:
            raise OrnithError(f"engine: slots={settings.slots}; at least 1 request must run at once")
        self.cfg, self.settings = cfg, settings
        self.max_len = min(settings.max_len, cfg.max_positions)
        self._loop = Loop(cfg, settings, self.max_len)

    @property
    def policy_version(self) -> int | None:
        return self._loop.policy_version

    async def generate(self, prompt_ids: Sequence[int], sampling: Sampling, *, deadline_s: float) -> Completion:
        """See `Engine`. The same prompt, seed and weights give the same tokens, whatever else runs."""
        if self.policy_version is None and not self._loop.fault:
            raise EngineError("not_ready", "no weights yet: call update_weights first")
        prompt = check(prompt_ids, sampling, self.cfg.vocab_size, self.max_len)
        seed = secrets.randbits(64) if sampling.seed is None else sampling.seed
        room = self.max_len - len(prompt)
        request = Request(prompt_ids=prompt, sampling=sampling, seed=seed, budget=min(sampling.max_new_tokens, room))
        self._loop.order(request)
        try:
            async with asyncio.timeout(deadline_s):  # `wait_for` of Python 3.11 can swallow a cancellation
                return await asyncio.wrap_future(request.future)
        except TimeoutError:  # it has cancelled the future, which frees the row
            return request.completion(Finish.DEADLINE)

    async def update_weights(self, path: Path, policy_version: int) -> float:
        """See `Engine`. Reads and checks the folder beside the running requests; they pause only for the swap."""
        return await self._swap(await asyncio.to_thread(self._load, path, policy_version), policy_version)

    async def update_params(self, params: Params, policy_version: int) -> float:
        """`update_weights` from the learner's own arrays, copied; for a learner in the same process."""
        return await self._swap(await asyncio.to_thread(self._place, params), policy_version)

    async def health(self) -> Health:
        if self._loop.fault:
            raise EngineError("dead", self._loop.fault)
        running, waiting = self._loop.counts()
        return Health(
            policy_version=self.policy_version, running=running, waiting=waiting, capacity=self.settings.slots
        )

    async def close(self) -> None:
        await asyncio.to_thread(self._loop.end, CLOSE_S)

    async def _swap(self, params: Params, policy_version: int) -> float:
        swap = Swap(params, policy_version)
        self._loop.order(swap)
        try:
            async with asyncio.timeout(UPDATE_S):
                return await asyncio.wrap_future(swap.future)
        except TimeoutError:
            raise EngineError("update_failed", f"the engine's thread has not answered for {UPDATE_S:.0f} s") from None

    def _load(self, path: Path, policy_version: int) -> Params:
        try:
            verify(path, policy_version)
            cfg, params = load(path, dtype=self.settings.dtype)
        except (RolloutError, OrnithError, OSError) as error:
            raise EngineError("update_failed", f"{error}") from error
        if replace(cfg, dtype=self.cfg.dtype) != self.cfg:
            raise EngineError("update_failed", f"{path}: another model than the engine was started with")
        return self._place(params)

    def _place(self, params: Params) -> Params:
        """Copies in the engine's dtype on its device, one layer after the other (see `decoder.unstack`)."""
        device = jax.devices()[0]

        def one(spec, value):  # type: ignore[no-untyped-def]
            return jax.device_put(value.astype(spec.dtype(self.settings.dtype)), device)

        placed = jax.tree.map(one, decoder.table(self.cfg), params, is_leaf=is_spec)
        # Taking the layers apart copies them; what stands beside them may still be the learner's own arrays.
        own = {name: x if name == "layers" else jnp.copy(x) for name, x in placed.items()}
        return jax.block_until_ready(decoder.unstack(own, self.cfg))
