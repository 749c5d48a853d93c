"""Turns -> sequences to train on. Turns whose prompts extend each other are one; nothing is tokenized again.

    turn 0: P0 -> A0        token_ids  P0   A0   E1   A1
    turn 1: P0 A0 E1 -> A1  loss_mask  0..  1..  0..  1..     (E1: what the environment said in between)

S tokens of a sequence.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from rollout.errors import RolloutError
from rollout.types import Completion, Stage, Turn


@dataclass(frozen=True, slots=True, kw_only=True)
class TokenSequence:
    """One chain of turns. Behaviour log-probabilities are 0 and versions -1 where `loss_mask` is False.

    `routed_experts` row s holds what the router chose when the engine read token s, all layers' choices in one row; -1
    where nobody recorded it, as for the last token, which no engine reads. None: no turn has a record.
    """

    stage: Stage
    token_ids: np.ndarray  # [S] int32
    loss_mask: np.ndarray  # [S] bool: written by the policy
    behavior_logprobs: np.ndarray  # [S] float32
    token_versions: np.ndarray  # [S] int32
    routed_experts: np.ndarray | None = None  # [S, layers * experts_per_token] int32


def sequences(turns: Sequence[Turn]) -> tuple[TokenSequence, ...]:
    """The turns of a trajectory as sequences: a new one starts with every stage and with every forked turn.

    Raises:
        RolloutError: a turn's prompt does not begin with all ids of the turn before and is not marked as forked, or
            its completion contradicts itself. It names the turn, counted from 0 in `turns`.
    """
    chains: list[list[tuple[int, Turn]]] = []
    for index, turn in enumerate(turns):
        _check_completion(turn.completion, index)
        before = chains[-1][-1][1] if chains else None
        if before is None or turn.forked or turn.stage is not before.stage:
            chains.append([])
        else:
            _check_prefix(before, turn, index)
        chains[-1].append((index, turn))
    return tuple(_join(chain) for chain in chains)


def token_versions(completion: Completion) -> np.ndarray:
    """int32, the policy version that wrote each token of it. Example: ((0, 4), (2, 5)) of 3 tokens: [4, 4, 5]."""
    if not completion.token_ids:
        return np.zeros(0, np.int32)
    starts = [start for start, _ in completion.versions]
    versions = np.array([version for _, version in completion.versions], np.int32)
    return np.repeat(versions, np.diff(starts, append=len(completion.token_ids)))


def _check_completion(completion: Completion, index: int) -> None:
    count = len(completion.token_ids)
    if len(completion.behavior_logprobs) != count:
        found = len(completion.behavior_logprobs)
        raise RolloutError(
            f"turn {index}: {count} token ids but {found} behavior_logprobs; the engine must give one each"
        )
    if not np.isfinite(completion.behavior_logprobs).all():
        raise RolloutError(
            f"turn {index}: behavior_logprobs are not all finite; the engine sampled an impossible token"
        )
    starts = [start for start, _ in completion.versions]
    if count and (starts[:1] != [0] or starts[-1] >= count or any(np.diff(starts) <= 0)):
        raise RolloutError(
            f"turn {index}: versions {completion.versions} do not divide {count} tokens; "
            "spans start at 0 and each begins after the one before"
        )


def _check_prefix(before: Turn, turn: Turn, index: int) -> None:
    known = before.prompt_ids + before.completion.token_ids
    if turn.prompt_ids[: len(known)] == known:
        return
    pairs = zip(known, turn.prompt_ids, strict=False)
    at = next((i for i, (a, b) in enumerate(pairs) if a != b), len(turn.prompt_ids))
    raise RolloutError(
        f"turn {index} ({turn.stage}): its prompt departs from the ids of turn {index - 1} at token {at} "
        f"of {len(known)}; append to the ids, or mark the turn as forked"
    )


def _join(chain: list[tuple[int, Turn]]) -> TokenSequence:
    last = chain[-1][1]
    token_ids = np.array(last.prompt_ids + last.completion.token_ids, np.int32)
    loss_mask = np.zeros(len(token_ids), bool)
    logprobs = np.zeros(len(token_ids), np.float32)
    versions = np.full(len(token_ids), -1, np.int32)
    for _, turn in chain:
        start = len(turn.prompt_ids)
        written = slice(start, start + len(turn.completion.token_ids))
        loss_mask[written] = True
        logprobs[written] = turn.completion.behavior_logprobs
        versions[written] = token_versions(turn.completion)
    return TokenSequence(
        stage=last.stage,
        token_ids=token_ids,
        loss_mask=loss_mask,
        behavior_logprobs=logprobs,
        token_versions=versions,
        routed_experts=_join_experts(chain, len(token_ids)),
    )


def _join_experts(chain: list[tuple[int, Turn]], length: int) -> np.ndarray | None:
    """Each turn's record counts from where the turn before ended: what was chosen while its own tokens were written."""
    joined: np.ndarray | None = None
    end = 0  # tokens that the turns before have read
    for index, turn in chain:
        if turn.completion.routed_experts:
            record = _read_experts(turn, index)
            if joined is None:
                joined = np.full((length, record.shape[1]), -1, np.int32)
            if record.shape[1] != joined.shape[1]:
                raise RolloutError(
                    f"turn {index}: routed_experts are {record.shape[1]} wide, in a turn before {joined.shape[1]}"
                )
            joined[end : len(record)] = record[end:]
        end = max(len(turn.prompt_ids) + len(turn.completion.token_ids) - 1, 0)
    return joined


def _read_experts(turn: Turn, index: int) -> np.ndarray:
    rows = len(turn.prompt_ids) + len(turn.completion.token_ids) - 1
    data = turn.completion.routed_experts
    if rows < 1 or len(data) % (4 * rows):
        raise RolloutError(f"turn {index}: {len(data)} bytes of routed_experts are no int32 table of {rows} rows")
    return np.frombuffer(data, "<i4").reshape(rows, -1)
