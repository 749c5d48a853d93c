"""Refuse an experiment that cannot work, before anything compiles: one line with the field and the mend."""

from __future__ import annotations

import math
from dataclasses import asdict
from operator import attrgetter
from pathlib import Path
from typing import Any

from jax.sharding import AbstractMesh

from ornith_jax.config import ModelConfig
from ornith_jax.convert import manifest
from ornith_jax.convert.import_hf import check as check_hf
from ornith_jax.errors import OrnithError
from ornith_jax.experiment import Experiment
from ornith_jax.models.decoder import REMAT, table
from ornith_jax.models.named import NAMED
from ornith_jax.sharding import MESH_AXES, shardings
from rollout.types import Arm

DTYPES = ("float32", "bfloat16")

TRAIN_CHOICES = {
    "optim.kind": ("adamw", "muon"),
    "optim.moment_dtype": DTYPES,
    "train.remat": ("none", *REMAT),
    "train.dtype": DTYPES,
    "train.param_dtype": DTYPES,
    "loss.kind": ("grpo", "tis", "sequence_mask", "cispo", "gspo", "filtered"),  # the keys of rl.objectives.OBJECTIVES
    "loss.router": ("frozen", "trained", "replayed"),
}
CHOICES = {
    "advantage.baseline": ("leave_one_out", "mean"),
    "advantage.scale": ("none", "std"),
    "advantage.siblings": ("scaffold", "task"),
    "advantage.vetoed": ("included", "excluded"),
    "engine.kind": ("embedded", "sglang"),
    "engine.dtype": DTYPES,
    "rollout.scaffold_selection": ("last", "best", "softmax", "fresh"),
    "rollout.sandbox": ("auto", "apptainer", "bubblewrap"),
    "rollout.reward": ("filtered", "naive"),
}

# field -> (smallest, largest) value, both allowed; TINY stands for "more than nothing".
TINY = math.ulp(0.0)
TRAIN_RANGES = {
    "train.steps": (1, math.inf),
    "train.seq_len": (2, math.inf),
    "train.rows": (1, math.inf),
    "train.accumulation": (1, math.inf),
    "train.checkpoint_every": (1, math.inf),
    "train.keep_checkpoints": (1, math.inf),
    "train.keep_versions": (2, math.inf),  # while engines load the newest, they answer with the one before
    "optim.learning_rate": (TINY, math.inf),
    "optim.warmup_steps": (0, math.inf),
    "optim.decay_steps": (0, math.inf),
    "optim.final_fraction": (0, 1),
    "optim.b1": (0, 1 - 1e-9),
    "optim.b2": (0, 1 - 1e-9),
    "optim.eps": (TINY, math.inf),
    "optim.weight_decay": (0, math.inf),
    "optim.clip_norm": (TINY, math.inf),
    "loss.clip_low": (0, 1),
    "loss.clip_high": (0, math.inf),
    "loss.k1": (0, math.inf),
    "loss.k2": (0, math.inf),
    "loss.decay": (0, math.inf),
    "loss.ratio_cap": (1, math.inf),
    "loss.band_low": (0, 1),
    "loss.band_high": (1, math.inf),
    "loss.kl": (0, math.inf),
    "loss.entropy": (0, math.inf),
    "loss.chunk_tokens": (1, math.inf),
}
COUNTS = (  # of rollout: at least one of each
    *("scaffolds_per_task", "solutions_per_scaffold", "scaffold_attempts", "context_tokens", "scaffold_tokens"),
    *("turn_tokens", "episode_tokens", "max_turns", "format_errors"),
    *("groups_in_flight", "groups_per_step", "engine_attempts"),
)
RANGES = {
    "advantage.scaffold_weight": (0, math.inf),
    "suite.count": (1, math.inf),
    "suite.heldout": (0, 1 - 1e-9),
    "sampling.temperature": (TINY, math.inf),
    "sampling.top_p": (TINY, 1),
    "sampling.top_k": (0, math.inf),
    "sampling.min_p": (0, 1 - 1e-9),
    "rollout.selection_temperature": (TINY, math.inf),
    "rollout.fresh_share": (0, 1),
    "rollout.max_staleness": (0, math.inf),
    "rollout.warm_sandboxes": (0, math.inf),
    "engine.prefix_snapshots": (0, math.inf),
    **{f"rollout.{name}": (1, math.inf) for name in COUNTS},
    **{f"rollout.{name}": (TINY, math.inf) for name in ("turn_s", "episode_s", "group_s")},
    **{f"engine.{name}": (1, math.inf) for name in ("slots", "max_len", "tensor_parallel", "replicas")},
}


def check(experiment: Experiment, num_devices: int | None = None) -> None:
    """Raises OrnithError for what no run of the whole loop can work with.

    Args:
        num_devices: of the learner; None: the mesh is not compared with this machine.
    """
    check_training(experiment, num_devices)
    _check_choices(experiment, CHOICES)
    _check_ranges(experiment, RANGES)
    _check_groups(experiment)
    _check_budgets(experiment)


def check_training(experiment: Experiment, num_devices: int | None = None) -> None:
    """What supervised training needs too: model, mesh, optimizer, batch and loss; nothing of the rollout tier."""
    _check_choices(experiment, TRAIN_CHOICES)
    _check_ranges(experiment, TRAIN_RANGES)
    _check_optimizer(experiment)
    if experiment.loss.k2 < experiment.loss.k1:
        _refuse("loss.k2", experiment, f"is below loss.k1={experiment.loss.k1}; weights fall from k1 to k2")
    _check_mesh(experiment, num_devices)


def model_config(model: str) -> ModelConfig:
    """Of a published name, a checkpoint of ours or a Hugging Face folder. No weight is read.

    Raises OrnithError if it is none of them, or damaged.
    """
    path = Path(model)
    if model in NAMED and not path.exists():
        return NAMED[model]
    if not path.is_dir():
        raise OrnithError(f"model: {model!r} is neither a folder nor one of {', '.join(NAMED)}")
    return manifest.read_manifest(path).config if manifest.is_checkpoint(path) else check_hf(path)[0]


def _refuse(field: str, experiment: Experiment, problem: str) -> None:
    raise OrnithError(f"{field}={attrgetter(field)(experiment)}: {problem}")


def _check_choices(experiment: Experiment, choices: dict[str, tuple[str, ...]]) -> None:
    for field, known in choices.items():
        if attrgetter(field)(experiment) not in known:
            _refuse(field, experiment, f"unknown; choose one of {', '.join(known)}")


def _check_ranges(experiment: Experiment, ranges: dict[str, tuple[Any, Any]]) -> None:
    for field, (low, high) in ranges.items():
        value = attrgetter(field)(experiment)
        if not (math.isfinite(value) and low <= value <= high):
            least = "more than 0" if low == TINY else f"at least {low}"
            _refuse(field, experiment, f"must be {least}" + ("" if high == math.inf else f" and at most {high:.6g}"))


def _check_optimizer(experiment: Experiment) -> None:
    optim = experiment.optim
    if optim.moment_dtype == "bfloat16" and optim.b2 > 0.99:
        _refuse("optim.b2", experiment, "with bfloat16 moments, steps of 1 - b2 round to nothing; use 0.99 or less")


def _check_mesh(experiment: Experiment, num_devices: int | None) -> None:
    sizes, train = asdict(experiment.mesh), experiment.train
    for axis, size in sizes.items():
        if size < 1:
            _refuse(f"mesh.{axis}", experiment, "must be at least 1")
    need = math.prod(sizes.values())
    if num_devices is not None and need != num_devices:
        shape = " x ".join(f"{axis} {size}" for axis, size in sizes.items() if size > 1) or "all axes 1"
        raise OrnithError(
            f"mesh: {shape} needs {need} devices, but there are {num_devices}; set mesh.fsdp or mesh.data to fit"
        )
    params = table(model_config(experiment.model))
    for axis, size in sizes.items():  # one axis at a time, to name it
        try:
            shardings(params, _abstract_mesh({axis: size}))  # type: ignore[arg-type]
        except OrnithError as error:
            _refuse(f"mesh.{axis}", experiment, f"{error}; choose a size that divides it")
    shardings(params, _abstract_mesh(sizes))  # type: ignore[arg-type]
    shards = sizes["data"] * sizes["fsdp"] * sizes["expert"]
    if train.rows % shards:
        _refuse("train.rows", experiment, f"is not a multiple of mesh.data x mesh.fsdp x mesh.expert = {shards}")
    if train.seq_len % sizes["context"]:
        _refuse("train.seq_len", experiment, f"is not a multiple of mesh.context={sizes['context']}")


def _abstract_mesh(sizes: dict[str, int]) -> AbstractMesh:
    """A mesh of those axes without devices; the others have size 1."""
    return AbstractMesh(tuple(sizes.get(axis, 1) for axis in MESH_AXES), MESH_AXES)


def _check_groups(experiment: Experiment) -> None:
    rollout = experiment.rollout
    scaffolds, solutions = rollout.scaffolds_per_task, rollout.solutions_per_scaffold
    if scaffolds * solutions < 2:
        _refuse("rollout.solutions_per_scaffold", experiment, "with one scaffold the group has one member; at least 2")
    if rollout.arm is Arm.SELF and scaffolds < 2 and experiment.advantage.scaffold_weight:
        _refuse(
            "rollout.scaffolds_per_task",
            experiment,
            "a scaffold is measured against the others of its task; at least 2, or advantage.scaffold_weight=0",
        )
    if rollout.max_staleness > experiment.loss.k2:
        _refuse(
            "rollout.max_staleness",
            experiment,
            f"tokens older than loss.k2={experiment.loss.k2} weigh nothing; admit none of them",
        )


def _check_budgets(experiment: Experiment) -> None:
    at_most = (
        ("rollout.turn_tokens", "rollout.context_tokens"),
        ("rollout.scaffold_tokens", "rollout.context_tokens"),
        ("rollout.turn_tokens", "rollout.episode_tokens"),
        ("rollout.turn_s", "rollout.episode_s"),
        ("rollout.episode_s", "rollout.group_s"),
        ("rollout.groups_per_step", "rollout.groups_in_flight"),
        ("rollout.context_tokens", "engine.max_len"),
        ("rollout.context_tokens", "train.seq_len"),
    )
    for small, large in at_most:
        limit = attrgetter(large)(experiment)
        if attrgetter(small)(experiment) > limit:
            _refuse(small, experiment, f"is more than {large}={limit}")
