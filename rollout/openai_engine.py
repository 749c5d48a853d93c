"""Any OpenAI-compatible server as an `Engine`, for evaluation: `POST /v1/completions` with token ids both ways.

What it needs: a server that takes ids as `prompt` and gives them back as `token_ids` when asked for
`return_token_ids` (vLLM since pull request 22587, SGLang since 30917, `ornith serve`). Text alone is refused: reading
it back into ids would give the model another conversation than the one it had.

What it cannot do: train on what it gives. The log-probabilities are NaN, weights are not updated here, and a server
that does not tell its version (all but ours) is taken to stand still. What was written before a deadline is lost.
"""

from __future__ import annotations

import math
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from rollout.engine import Health
from rollout.errors import EngineError
from rollout.sglang.http import Http
from rollout.types import Completion, Finish, Sampling

CONTROL_S = 30.0


class OpenAIEngine:
    """`engine = await OpenAIEngine.connect("http://host:8000")`. Use it in the event loop that connected it."""

    def __init__(self, http: Http, model: str, policy_version: int) -> None:
        self._http, self._model, self._version = http, model, policy_version
        self._running = 0

    @classmethod
    async def connect(cls, url: str, *, model: str = "", policy_version: int = 0, token: str = "") -> OpenAIEngine:
        """Raises EngineError when nothing answers, or there is no such model.

        Args:
            url: with or without the "/v1" at its end.
            model: "" is the first that the server lists.
            policy_version: of a server that does not tell.
        """
        http = Http(url.rstrip("/").removesuffix("/v1"), token)
        try:
            listed = await http.get("/v1/models", deadline_s=CONTROL_S)
            names = [one["id"] for one in listed["data"]]
            if not names or (model and model not in names):
                raise EngineError("rejected", f"{http.url}: no model {model!r}; it serves {', '.join(names) or 'none'}")
            engine = cls(http, model or names[0], policy_version)
            await engine.health()
        except (KeyError, TypeError):
            await http.close()
            raise EngineError("bad_answer", f"{http.url}/v1/models: not the list that OpenAI's API gives") from None
        except EngineError:
            await http.close()
            raise
        return engine

    @property
    def policy_version(self) -> int | None:
        return self._version

    async def generate(self, prompt_ids: Sequence[int], sampling: Sampling, *, deadline_s: float) -> Completion:
        start = time.monotonic()
        self._running += 1
        try:
            body = build_body(self._model, prompt_ids, sampling)
            answer = await self._http.post("/v1/completions", body, deadline_s=deadline_s)
        except EngineError as error:
            if error.cause == "unreachable" and time.monotonic() - start >= deadline_s:
                return _completion((), Finish.DEADLINE, self._version, deadline_s)
            raise
        finally:
            self._running -= 1
        ids, finish = read_answer(self._http.url, answer, sampling)
        return _completion(ids, finish, self._version, time.monotonic() - start)

    async def update_weights(self, path: Path, policy_version: int) -> float:
        raise EngineError("update_failed", f"{self._http.url}: its weights are its owner's; serve {path} there")

    async def health(self) -> Health:
        """How many wait over there is not known: as many run as were sent."""
        answer = await self._http.get("/health", deadline_s=CONTROL_S)
        if isinstance(answer, dict) and type(answer.get("policy_version")) is int:
            self._version = answer["policy_version"]
        return Health(policy_version=self._version, running=self._running, waiting=0, capacity=self._running + 1)

    async def close(self) -> None:
        await self._http.close()


def build_body(model: str, prompt_ids: Sequence[int], sampling: Sampling) -> dict[str, Any]:
    """The request. What is neutral is left out: not every server knows OpenAI's extensions."""
    body: dict[str, Any] = {
        "model": model,
        "prompt": list(prompt_ids),
        "max_tokens": sampling.max_new_tokens,
        "temperature": sampling.temperature,
        "top_p": sampling.top_p,
        "return_token_ids": True,
    }
    extensions = {
        "top_k": sampling.top_k,
        "min_p": sampling.min_p,
        "stop_token_ids": list(sampling.stop_token_ids),
    }
    body |= {name: value for name, value in extensions.items() if value}
    return body if sampling.seed is None else {**body, "seed": sampling.seed}


def read_answer(url: str, answer: Any, sampling: Sampling) -> tuple[tuple[int, ...], Finish]:
    """(ids, why they ended). A server may leave the stop token out that ended them; here it is their last id.

    Raises EngineError("bad_answer") that says what is missing.
    """
    try:
        [choice] = answer["choices"]
        reason = choice["finish_reason"]
    except (KeyError, TypeError, ValueError):
        raise EngineError("bad_answer", f"{url}/v1/completions: not the one choice that OpenAI's API gives") from None
    ids = choice.get("token_ids")
    if not isinstance(ids, list) or not all(type(token) is int for token in ids):
        raise EngineError(
            "bad_answer",
            f"{url}/v1/completions: no token_ids in the answer; text alone is not used. A newer vLLM or SGLang gives "
            "them, and so does `ornith serve`",
        )
    if reason != "stop":
        return tuple(ids), Finish.LENGTH
    stops = sampling.stop_token_ids
    if stops and (not ids or ids[-1] not in stops):
        ids = [*ids, stops[0]]
    return tuple(ids), Finish.STOP


def _completion(ids: tuple[int, ...], finish: Finish, version: int, seconds: float) -> Completion:
    return Completion(
        token_ids=ids,
        behavior_logprobs=(math.nan,) * len(ids),
        versions=((0, version),) if ids else (),
        finish=finish,
        seconds=seconds,
    )
