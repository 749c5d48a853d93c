"""Requests and answers, without a server: what is refused before it is sent, and answers that contradict themselves."""

import base64
from dataclasses import replace

import numpy as np
import pytest

from rollout.errors import EngineError
from rollout.sglang.request import MASK_TOKENS, ServerInfo, build_body, check, is_truncated, read_answer, read_info
from rollout.types import Finish, Sampling

INFO = ServerInfo(
    model_path="m",
    vocab_size=100,
    max_len=64,
    capacity=4,
    deterministic=True,
    routed_experts=False,
)
PLAIN = Sampling(max_new_tokens=8)

ANSWER = {
    "output_ids": [7, 9],
    "meta_info": {
        "finish_reason": {"type": "stop", "matched": 9},
        "weight_versions": [{"version": "3", "start": 0, "end": 1}, {"version": "4", "start": 1, "end": 2}],
        "output_token_logprobs": [[-0.5, 7, None], [-1.5, 9, None]],
        "output_token_sampling_logprobs": [-0.25, -1.0],
        "cached_tokens": 5,
    },
}


def changed(**meta) -> dict:
    return {**ANSWER, "meta_info": {**ANSWER["meta_info"], **meta}}


def rejected(prompt, sampling, info=INFO) -> str:
    with pytest.raises(EngineError) as caught:
        check(prompt, sampling, info)
    assert caught.value.cause == "rejected"
    return str(caught.value)


def test_what_would_kill_or_mislead_the_server_is_never_sent():
    assert "empty" in rejected([], PLAIN)
    assert "not in 0..99" in rejected([1, 100], PLAIN)
    assert "64 tokens" in rejected([1] * 64, PLAIN)
    assert "min_p" in rejected([1], replace(PLAIN, min_p=0.1))
    assert "seed" in rejected([1], replace(PLAIN, seed=3), replace(INFO, deterministic=False))
    assert "top_k" in rejected([1], replace(PLAIN, top_k=MASK_TOKENS + 1))
    check([1] * 63, replace(PLAIN, seed=3, top_k=MASK_TOKENS), INFO)


@pytest.mark.parametrize(
    ("sampling", "truncated", "top_k"),
    [
        (PLAIN, False, -1),
        (replace(PLAIN, temperature=0.0, top_p=0.5), False, -1),
        (replace(PLAIN, top_p=0.9), True, MASK_TOKENS),
        (replace(PLAIN, top_k=20), True, 20),
        (replace(PLAIN, min_p=0.1, top_k=3), True, 3),
    ],
)
def test_a_truncated_distribution_asks_for_its_own_logprobs(sampling, truncated, top_k):
    body = build_body([1, 2], sampling, INFO, request_id="r", policy_version=4)
    assert is_truncated(sampling) is body["return_sampling_mask"] is truncated
    assert body["sampling_params"]["top_k"] == top_k
    assert body["extra_key"] == "v4"


def test_the_completion_never_exceeds_the_context():
    body = build_body([1] * 50, replace(PLAIN, max_new_tokens=100), INFO, request_id="r", policy_version=0)
    assert 50 + body["sampling_params"]["max_new_tokens"] == INFO.max_len


def test_a_server_that_takes_seeds_gets_one_with_every_request():
    bodies = [build_body([1], PLAIN, INFO, request_id="r", policy_version=0) for _ in range(2)]
    seeds = [body["sampling_params"]["sampling_seed"] for body in bodies]
    assert seeds[0] != seeds[1]
    other = build_body([1], PLAIN, replace(INFO, deterministic=False), request_id="r", policy_version=0)
    assert "sampling_seed" not in other["sampling_params"]


def test_stop_tokens_work_and_without_them_nothing_stops():
    stopping = build_body([1], replace(PLAIN, stop_token_ids=(5,)), INFO, request_id="r", policy_version=0)
    endless = build_body([1], PLAIN, INFO, request_id="r", policy_version=0)
    assert not stopping["sampling_params"]["ignore_eos"]
    assert endless["sampling_params"]["ignore_eos"]


def test_an_answer_becomes_a_completion_with_exact_spans():
    completion = read_answer(ANSWER, truncated=False, aborted=False, seconds=1.0)
    assert completion.token_ids == (7, 9)
    assert completion.behavior_logprobs == (-0.5, -1.5)
    assert completion.versions == ((0, 3), (1, 4))
    assert (completion.finish, completion.cached_tokens) == (Finish.STOP, 5)
    assert read_answer(ANSWER, truncated=True, aborted=False, seconds=1.0).behavior_logprobs == (-0.25, -1.0)


def test_routed_experts_are_passed_on_as_they_are():
    indices = np.arange(24, dtype="<i4")
    answer = changed(routed_experts=base64.b64encode(indices.tobytes()).decode())
    routed = read_answer(answer, truncated=False, aborted=False, seconds=0.0).routed_experts
    np.testing.assert_array_equal(np.frombuffer(routed, "<i4"), indices)


def test_an_abort_is_a_deadline_only_when_we_asked_for_it():
    answer = changed(finish_reason={"type": "abort", "message": "Aborted"})
    assert read_answer(answer, truncated=False, aborted=True, seconds=0.0).finish is Finish.DEADLINE
    with pytest.raises(EngineError, match="gave the request up: Aborted"):
        read_answer(answer, truncated=False, aborted=False, seconds=0.0)


def test_a_request_aborted_in_the_queue_has_no_tokens_and_fewer_fields():
    answer = {"output_ids": [], "meta_info": {"finish_reason": {"type": "abort", "message": "Abort in waiting queue"}}}
    completion = read_answer(answer, truncated=True, aborted=True, seconds=0.0)
    assert (completion.token_ids, completion.versions, completion.finish) == ((), (), Finish.DEADLINE)


@pytest.mark.parametrize(
    "answer",
    [
        "not json",
        {},
        changed(output_token_logprobs=[[-0.5, 7, None]]),
        changed(weight_versions=[]),
        changed(weight_versions=[{"version": "default", "start": 0}]),
        changed(weight_versions=[{"version": "3", "start": 1}]),
        changed(finish_reason={"type": "tea"}),
    ],
)
def test_an_answer_that_contradicts_itself_is_a_failure_of_the_engine(answer):
    with pytest.raises(EngineError) as caught:
        read_answer(answer, truncated=False, aborted=False, seconds=0.0)
    assert caught.value.cause == "bad_answer"


def test_another_server_is_recognised_as_such():
    with pytest.raises(EngineError, match="server_info"):
        read_info({"model_path": "m"}, 100)
