"""Does the scaffold help, and does writing it oneself? Self-scaffolding, the fixed scaffold, no scaffold.

    python -m experiments.ablation_scaffold --seeds 0 1 2 --run runs/ablation_scaffold

What it runs: `experiments.quickstart`'s task distribution and settings in three arms, from one warm start for each
seed, in which all three forms were shown. Every arm samples eight solutions of a task. Under the controls all eight
are siblings; with self-scaffolding they are two under each of four scaffolds, whose proposals are tokens too.
The controls sample less in a batch, so they get more batches; arms are compared at equal sampled tokens.
On what, for how long: two CPU cores; a seed is a warm start, three trainings and nine evaluations. An hour a seed is
expected.
What was seen: not run yet.
Not covered: the judge (give rollout.judge=URL rollout.judge_model=NAME to all arms), larger models.
"""

from __future__ import annotations

from dataclasses import replace

from experiments import quickstart
from experiments.school import EVERY_ARM
from experiments.study import Study, StudyArm, main
from ornith_jax.experiment import Experiment

STEPS = 2 * quickstart.get_config().train.steps  # a proposal is about as long as the solutions under it
CONTROL = ("rollout.scaffolds_per_task=1", "rollout.solutions_per_scaffold=8", f"train.steps={STEPS}")
STUDY = Study(
    experiment="ablation_scaffold",
    question="Does self-scaffolding beat the fixed scaffold, and that no scaffold, at equal sampled tokens?",
    arms={
        "self": StudyArm(),
        "fixed": StudyArm(overrides=("rollout.arm=fixed", *CONTROL)),
        "none": StudyArm(overrides=("rollout.arm=none", *CONTROL)),
    },
    baseline="fixed",
    points=2,
    shares=EVERY_ARM,
)


def get_config() -> Experiment:
    """The quickstart."""
    return replace(quickstart.get_config(), name="ablation-scaffold")


if __name__ == "__main__":
    main(STUDY)
