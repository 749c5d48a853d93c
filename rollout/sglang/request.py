"""One /generate request and its answer, as sglang 0.5.23 has them (docs/engines.md). Pure."""

from __future__ import annotations

import base64
import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from rollout.engine import check_request
from rollout.errors import EngineError
from rollout.types import Completion, Finish, Sampling

MASK_TOKENS = 4096
"""The widest truncated distribution whose log-probabilities a server returns (its --sampling-mask-max-tokens)."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ServerInfo:
    """What a request must respect, read from the server once."""

    model_path: str
    vocab_size: int
    max_len: int  # tokens of one request, prompt and completion
    capacity: int
    deterministic: bool
    routed_experts: bool


def is_truncated(sampling: Sampling) -> bool:
    """True when the sampled distribution is not the whole softmax."""
    return sampling.temperature > 0 and (sampling.top_p < 1 or sampling.top_k > 0 or sampling.min_p > 0)


def check(prompt_ids: Sequence[int], sampling: Sampling, info: ServerInfo) -> None:
    """Refuse what the server would refuse, ignore in silence, or die of. Raises EngineError("rejected")."""
    check_request(prompt_ids, sampling, vocab_size=info.vocab_size, max_len=info.max_len)  # a bad id kills it
    if sampling.min_p > 0 and info.deterministic:  # an assertion in its sampler kills the server
        raise EngineError("rejected", "min_p: not with --enable-deterministic-inference; use top_p or top_k")
    if sampling.seed is not None and not info.deterministic:  # it would be ignored
        raise EngineError("rejected", "seed: the server needs --enable-deterministic-inference")
    if sampling.top_k > MASK_TOKENS:
        raise EngineError("rejected", f"top_k is {sampling.top_k}; logprobs come for at most {MASK_TOKENS}")


def build_body(
    prompt_ids: Sequence[int], sampling: Sampling, info: ServerInfo, *, request_id: str, policy_version: int
) -> dict[str, Any]:
    """The request. Its prefix cache is that of `policy_version` alone.

    A nucleus or min-p without top_k is cut to the MASK_TOKENS likeliest tokens: the server tells the log-probabilities
    of a truncated distribution only up to that width. They are those of what was really sampled from.
    """
    truncated = is_truncated(sampling)
    parameters: dict[str, Any] = {
        "max_new_tokens": min(sampling.max_new_tokens, info.max_len - len(prompt_ids)),
        "temperature": sampling.temperature,
        "top_p": sampling.top_p,
        "min_p": sampling.min_p,
        "top_k": (sampling.top_k or MASK_TOKENS) if truncated else -1,
        "stop_token_ids": list(sampling.stop_token_ids),
        "ignore_eos": not sampling.stop_token_ids,  # also switches stop_token_ids off
    }
    if info.deterministic:  # its own default is one seed for all
        parameters["sampling_seed"] = random.getrandbits(31) if sampling.seed is None else sampling.seed
    return {
        "input_ids": list(prompt_ids),
        "sampling_params": parameters,
        "return_logprob": True,
        "logprob_start_len": -1,
        "return_sampling_mask": truncated,
        "return_routed_experts": info.routed_experts,
        "rid": request_id,
        "extra_key": f"v{policy_version}",
    }


def read_answer(answer: Any, *, truncated: bool, aborted: bool, seconds: float) -> Completion:
    """The answer as a Completion. Raises EngineError for one that contradicts itself.

    Args:
        aborted: we asked the server to stop it; an abort that nobody asked for is a failure.
    """
    try:
        meta = answer["meta_info"]
        ids = tuple(answer["output_ids"])
        kind = meta["finish_reason"]["type"]
        spans = tuple((span["start"], int(span["version"])) for span in meta.get("weight_versions") or ())
        if truncated and ids:
            logprobs = tuple(meta["output_token_sampling_logprobs"])
        else:
            logprobs = tuple(triple[0] for triple in meta.get("output_token_logprobs") or ())
        routed = base64.b64decode(meta.get("routed_experts") or "")
    except (KeyError, TypeError, ValueError, IndexError) as error:
        raise EngineError("bad_answer", f"/generate: {type(error).__name__}: {error}") from None
    if kind == "abort" and not aborted:
        raise EngineError("dead", f"the server gave the request up: {meta['finish_reason'].get('message', '')}")
    if len(logprobs) != len(ids) or (ids and (not spans or spans[0][0] != 0)):
        raise EngineError("bad_answer", f"{len(ids)} ids, {len(logprobs)} logprobs, version spans {spans}")
    finish = {"stop": Finish.STOP, "length": Finish.LENGTH, "abort": Finish.DEADLINE}.get(kind)
    if finish is None:
        raise EngineError("bad_answer", f"finish_reason {kind!r}")
    return Completion(
        token_ids=ids,
        behavior_logprobs=logprobs,
        versions=spans if ids else (),
        finish=finish,
        routed_experts=routed,
        cached_tokens=meta.get("cached_tokens") or 0,  # missing when it never ran
        seconds=seconds,
    )


def read_info(answer: Mapping[str, Any], vocab_size: int) -> ServerInfo:
    """From /server_info. Raises EngineError("bad_answer")."""
    try:
        state = answer["internal_states"][0]
        return ServerInfo(
            model_path=answer["model_path"],
            vocab_size=vocab_size,
            max_len=answer["max_req_input_len"],  # a few less than its context
            capacity=state["effective_max_running_requests_per_dp"] * (answer.get("dp_size") or 1),
            deterministic=bool(answer["enable_deterministic_inference"]),
            routed_experts=bool(answer["enable_return_routed_experts"]),
        )
    except (KeyError, IndexError, TypeError) as error:
        raise EngineError(
            "bad_answer", f"/server_info: {type(error).__name__}: {error}; is it sglang 0.5.23?"
        ) from None
