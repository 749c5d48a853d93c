"""Self-scaffolding by rejection sampling: the likelihood of what did better than its siblings, against GRPO.

    python -m experiments.star --seeds 0 1 2 --run runs/star

What it runs: the quickstart with loss.kind=filtered (log p of tokens with a positive advantage, nothing else: the
relative of STaR, arXiv 2203.14465, and RFT, arXiv 2308.01825), and the quickstart itself, from one warm start.
Both keep their groups, baselines and staleness weights, so the loss alone is different.
On what, for how long: two CPU cores; a seed is a warm start, two trainings and five evaluations. Forty minutes a seed
are expected.
What was seen: not run yet.
Not covered: STaR's restart from the base model in every round, and its hints after a failure.
"""

from __future__ import annotations

from dataclasses import replace

from experiments import quickstart
from experiments.study import Study, StudyArm, main
from ornith_jax.experiment import Experiment

STUDY = Study(
    experiment="star",
    question="Is the likelihood of what did better than its siblings enough, or do the failures teach too?",
    arms={"filtered": StudyArm(), "grpo": StudyArm(overrides=("loss.kind=grpo",))},
    baseline="grpo",
    points=2,
)


def get_config() -> Experiment:
    """The quickstart with the other loss."""
    base = quickstart.get_config()
    return replace(base, name="star", loss=replace(base.loss, kind="filtered"))


if __name__ == "__main__":
    main(STUDY)
