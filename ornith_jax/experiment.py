"""An experiment as one typed, frozen value. `experiments/<name>.py` has `get_config() -> Experiment`.

Every default of a quantity that Ornith-1.0 did not publish is marked "unpublished"; `checks.check` refuses nonsense
before anything compiles and names the field.
"""

from __future__ import annotations

import importlib
import importlib.util
import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path

from ornith_jax.errors import OrnithError
from ornith_jax.overrides import build, override
from rollout.settings import EngineSettings, RolloutSettings, SamplingSettings, SuiteSettings


@dataclass(frozen=True, slots=True, kw_only=True)
class MeshSettings:
    """Sizes of the mesh axes; their product is the number of devices of the learner."""

    data: int = 1
    fsdp: int = 1
    expert: int = 1
    tensor: int = 1
    context: int = 1


@dataclass(frozen=True, slots=True, kw_only=True)
class LossSettings:
    """L_t = min(r_t A_t, clip(r_t, 1 - clip_low, 1 + clip_high) A_t) w(d_t); all values unpublished.

    Defaults: clip 0.2 / 0.28 (DAPO, arXiv 2503.14476, and slime's recipe for this architecture).
    """

    kind: str = "grpo"  # a key of rl.objectives.OBJECTIVES
    clip_low: float = 0.2
    clip_high: float = 0.28
    k1: int = 1  # updates of age with full weight
    k2: int = 8  # beyond it, weight zero
    decay: float = 0.5  # lambda, per update
    ratio_cap: float = 2.0  # of truncated importance sampling
    band_low: float = 0.999  # of the sequence mask, geometric mean of the ratio
    band_high: float = 1.002
    kl: float = 0.0  # weight of KL to the reference policy
    entropy: float = 0.0  # weight of the entropy bonus
    router: str = "frozen"  # frozen | trained | replayed
    chunk_tokens: int = 1024  # of each row: the logits that exist at once take the room of those of so many positions
    float32_head: bool = True  # logits are summed and kept in float32, not rounded to train.dtype


@dataclass(frozen=True, slots=True, kw_only=True)
class AdvantageSettings:
    """Group-relative, nested: solutions against siblings, scaffolds against each other. All unpublished."""

    baseline: str = "leave_one_out"  # leave_one_out | mean
    scale: str = "none"  # none | std
    siblings: str = "scaffold"  # scaffold | task: against whom a solution is measured
    vetoed: str = "included"  # included: reward 0 in the baseline | excluded: as if it were flagged
    scaffold_weight: float = 1.0  # of the scaffold stage's advantages


@dataclass(frozen=True, slots=True, kw_only=True)
class OptimSettings:
    """AdamW (or Muon for matrices) with fp32 master weights. Rate and schedule are unpublished."""

    kind: str = "adamw"  # adamw | muon
    learning_rate: float = 1e-6
    warmup_steps: int = 0
    decay_steps: int = 0  # 0: constant after the warm-up; else cosine to `final_fraction`
    final_fraction: float = 0.1
    b1: float = 0.9
    b2: float = 0.98
    eps: float = 1e-8
    weight_decay: float = 0.1  # of matrices only: norms, biases, decay rates and routers' scales are left alone
    clip_norm: float = 1.0
    moment_dtype: str = "float32"


@dataclass(frozen=True, slots=True, kw_only=True)
class TrainSettings:
    """One optimizer update: `accumulation` micro-batches of `rows` packed rows of `seq_len` tokens."""

    steps: int = 100
    seq_len: int = 32768
    rows: int = 8
    accumulation: int = 1
    remat: str = "full"  # none | dots | full
    dtype: str = "bfloat16"  # of activations
    param_dtype: str = "float32"  # of the master weights
    checkpoint_every: int = 10
    keep_checkpoints: int = 3
    keep_versions: int = 4  # published ones, for engines and evaluations that still read an older one


@dataclass(frozen=True, slots=True, kw_only=True)
class Experiment:
    """Everything that a run needs to know. `model` is a published name (models.named) or a checkpoint folder."""

    name: str
    model: str
    seed: int = 0
    mesh: MeshSettings = MeshSettings()
    suite: SuiteSettings = field(default_factory=SuiteSettings)
    rollout: RolloutSettings = field(default_factory=RolloutSettings)
    sampling: SamplingSettings = field(default_factory=SamplingSettings)
    engine: EngineSettings = field(default_factory=EngineSettings)
    advantage: AdvantageSettings = AdvantageSettings()
    loss: LossSettings = LossSettings()
    optim: OptimSettings = OptimSettings()
    train: TrainSettings = TrainSettings()


def load(name_or_path: str, overrides: Sequence[str] = ()) -> Experiment:
    """The experiment of `experiments/<name>.py` or of any .py file with `get_config()`, with `field=value`s applied.

    Raises OrnithError for a file that is not there or has no such function, and for a bad override, by name.
    """
    path = Path(name_or_path)
    if path.suffix == ".py":
        if not path.is_file():
            raise OrnithError(f"{path}: no such file; give the path of an experiment, or a name in experiments/")
        spec = importlib.util.spec_from_file_location(path.stem, path)
        assert spec is not None
        assert spec.loader is not None
        module = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(module)
    else:
        wanted = f"experiments.{name_or_path}"
        try:
            module = importlib.import_module(wanted)
        except ModuleNotFoundError as error:
            if error.name not in (wanted, "experiments"):
                raise
            raise OrnithError(
                f"{name_or_path}: no experiments/{name_or_path}.py; give its name or a .py file"
            ) from None
    if not hasattr(module, "get_config"):
        raise OrnithError(
            f"{name_or_path}: has no get_config(); an experiment is a file with get_config() -> Experiment"
        )
    return override(module.get_config(), overrides)


def to_json(experiment: Experiment) -> str:
    """For the run directory; `from_json` gives the same value back."""
    return json.dumps(asdict(experiment), indent=1) + "\n"


def from_json(text: str) -> Experiment:
    """Raises OrnithError naming an unknown field, one of the wrong type, or what is not JSON."""
    try:
        values = json.loads(text)
    except ValueError as error:
        raise OrnithError(f"experiment: not JSON ({error})") from None
    return build(Experiment, values)
