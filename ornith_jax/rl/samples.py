"""Groups -> samples with an advantage. Scaffold tokens come once per scaffold, solution tokens once per trajectory."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence

from ornith_jax.errors import OrnithError
from ornith_jax.experiment import AdvantageSettings, Experiment
from ornith_jax.rl.advantage import Advantages, exclusion, group_advantages
from ornith_jax.rl.staleness import check_staleness
from ornith_jax.rl.types import Sample
from rollout.errors import RolloutError
from rollout.sequence import TokenSequence, sequences
from rollout.types import Group, Stage, Turn


def make_samples(
    groups: Sequence[Group], experiment: Experiment, policy_version: int, experts_per_token: int = 0
) -> tuple[list[Sample], Counter[str]]:
    """What the next update trains on, and what it does not and why.

    Counts: `samples/<stage>` and `tokens/<stage>` of what is kept; `excluded/<reason>` of trajectories and scaffolds
    (rl.advantage); `dropped/<reason>` of sequences: zero_advantage (kept when the KL or the entropy term is on), stale
    (every token is beyond k2), too_long (for seq_len; its group's advantages stand), empty (nothing written).

    Args:
        experts_per_token: the router's, which gives recorded experts their shape; 0 for a dense model.
    Raises:
        OrnithError: ids that break the exact-prefix law, versions from the future, siblings whose scaffold turns
            differ. It names the trajectory.
    """
    samples: list[Sample] = []
    counts: Counter[str] = Counter()
    for group in groups:
        advantages = group_advantages(group, experiment.advantage, experiment.rollout.solutions_per_scaffold)
        counts.update({f"excluded/{reason}": count for reason, count in advantages.excluded.items()})
        for name, turns, advantage in _credited(group, experiment.advantage, advantages):
            for sequence in _sequences(name, turns):
                reason = _drop_reason(name, sequence, advantage, experiment, policy_version)
                if reason:
                    counts[f"dropped/{reason}"] += 1
                    continue
                samples.append(_sample(sequence, advantage, experts_per_token))
                counts[f"samples/{sequence.stage}"] += 1
                counts[f"tokens/{sequence.stage}"] += int(sequence.loss_mask.sum())
    return samples, counts


def _credited(
    group: Group, settings: AdvantageSettings, advantages: Advantages
) -> Iterator[tuple[str, tuple[Turn, ...], float]]:
    """(trajectory id, turns of one stage, their advantage): every scaffold once, every solution once."""
    written: dict[int, tuple[Turn, ...]] = {}
    for trajectory in group.trajectories:
        if exclusion(trajectory, settings):
            continue
        index = trajectory.scaffold_index
        proposal = tuple(turn for turn in trajectory.turns if turn.stage is Stage.SCAFFOLD)
        if index not in written and index in advantages.scaffolds:
            yield trajectory.id, proposal, advantages.scaffolds[index]
        if written.setdefault(index, proposal) != proposal:
            raise OrnithError(f"{trajectory.id}: its scaffold turns are not those of its siblings; copy them")
        if trajectory.id in advantages.solutions:
            solution = tuple(turn for turn in trajectory.turns if turn.stage is Stage.SOLUTION)
            yield trajectory.id, solution, advantages.solutions[trajectory.id]


def _sequences(name: str, turns: tuple[Turn, ...]) -> tuple[TokenSequence, ...]:
    try:
        return sequences(turns)
    except RolloutError as error:
        raise OrnithError(f"{name}: {error}") from None


def _drop_reason(
    name: str, sequence: TokenSequence, advantage: float, experiment: Experiment, policy_version: int
) -> str:
    loss = experiment.loss
    staleness = check_staleness(sequence.token_versions, sequence.loss_mask, policy_version, name)
    if not staleness.size:
        return "empty"
    if staleness.min() > loss.k2:
        return "stale"
    if advantage == 0 and loss.kl == 0 and loss.entropy == 0:
        return "zero_advantage"
    return "too_long" if len(sequence.token_ids) > experiment.train.seq_len else ""


def _sample(sequence: TokenSequence, advantage: float, experts_per_token: int) -> Sample:
    experts = sequence.routed_experts
    if experts is not None and experts_per_token:
        experts = experts.reshape(len(experts), -1, experts_per_token)
    return Sample(
        token_ids=sequence.token_ids,
        loss_mask=sequence.loss_mask,
        behavior_logprobs=sequence.behavior_logprobs,
        token_versions=sequence.token_versions,
        advantage=advantage,
        routed_experts=experts if experts_per_token else None,
    )
