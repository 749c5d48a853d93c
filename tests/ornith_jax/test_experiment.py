"""Experiments: read, overridden, written and read again, and refused by the name of the field."""

from dataclasses import replace
from pathlib import Path

import pytest

from ornith_jax import checks
from ornith_jax.checks import check, check_training
from ornith_jax.cli import main
from ornith_jax.errors import OrnithError
from ornith_jax.experiment import Experiment, from_json, load, to_json
from ornith_jax.models.named import NAMED
from ornith_jax.overrides import override
from ornith_jax.rl.objectives import OBJECTIVES
from rollout.types import Arm

TINY = Experiment(name="tiny", model="tiny-qwen3.5-moe")


def test_the_defaults_are_accepted_for_every_named_model():
    for name in NAMED:
        check(replace(TINY, model=name), num_devices=1)


def test_overrides_take_the_type_of_their_field():
    words = ["loss.k1=2", "rollout.arm=fixed", "optim.learning_rate=3e-4", "mesh.fsdp=8", "engine.urls=a:1, b:2"]
    e = override(TINY, [*words, "loss.float32_head=false", "suite.categories=", "name=x=y"])
    assert (e.loss.k1, e.rollout.arm, e.optim.learning_rate, e.mesh.fsdp) == (2, Arm.FIXED, 3e-4, 8)
    assert (e.engine.urls, e.loss.float32_head, e.suite.categories, e.name) == (("a:1", "b:2"), False, (), "x=y")
    assert TINY.loss.k1 == 1


@pytest.mark.parametrize(
    ("word", "message"),
    [
        ("loss.k3=1", "loss.k3: no such field"),
        ("loss.decy=1", "loss.decy: no such field; did you mean loss.decay?"),
        ("los.k1=1", "los: no such field; did you mean loss?"),
        ("loss=1", "loss: is a group of settings"),
        ("loss.k1.x=1", "loss.k1: has no fields"),
        ("loss.k1", "write field=value"),
        ("loss.k1=1.5", "loss.k1: '1.5' is not a whole number"),
        ("loss.decay=much", "loss.decay: 'much' is not a number"),
        ("loss.float32_head=1", "loss.float32_head: '1' is not true or false"),
        ("rollout.arm=both", "rollout.arm: 'both' is none of self, fixed, none"),
    ],
)
def test_a_bad_override_is_refused_by_name(word, message):
    with pytest.raises(OrnithError, match=message.replace("?", r"\?")):
        override(TINY, [word])


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["mesh.fsdp=3"], "mesh: fsdp 3 needs 3 devices, but there are 8"),
        (["mesh.fsdp=0"], "mesh.fsdp=0: must be at least 1"),
        (["mesh.expert=16"], "mesh.expert=16: .*experts.* is not divisible"),
        (["mesh.tensor=8"], "mesh.tensor=8: .* is not divisible"),
        (["mesh.fsdp=48"], "mesh.fsdp=48: .*dimension of 64 is not divisible"),
        (["model=tiny-qwen3.5", "mesh.tensor=3"], "mesh.tensor=3: .* is not divisible"),
        (["mesh.data=2", "train.rows=3"], "train.rows=3: is not a multiple"),
        (["mesh.context=2", "train.seq_len=32769"], "train.seq_len=32769: is not a multiple of mesh.context=2"),
        (["loss.k1=-1"], "loss.k1=-1: must be at least 0"),
        (["loss.k1=3", "loss.k2=2"], "loss.k2=2: is below loss.k1=3"),
        (["loss.decay=-0.1"], "loss.decay=-0.1: must be at least 0"),
        (["loss.clip_low=-0.1"], "loss.clip_low=-0.1: must be at least 0 and at most 1"),
        (["loss.clip_low=1.1"], "loss.clip_low=1.1: must be"),
        (["loss.clip_high=nan"], "loss.clip_high=nan: must be"),
        (["loss.kind=ppo"], "loss.kind=ppo: unknown; choose one of grpo"),
        (["loss.router=fixed"], "loss.router=fixed: unknown"),
        (["optim.kind=sgd"], "optim.kind=sgd: unknown; choose one of adamw, muon"),
        (["optim.learning_rate=0"], "optim.learning_rate=0.0: must be more than 0"),
        (["optim.b2=1"], "optim.b2=1.0: must be"),
        (["optim.moment_dtype=bfloat16", "optim.b2=0.999"], "optim.b2=0.999: with bfloat16 moments"),
        (["train.remat=some"], "train.remat=some: unknown"),
        (["rollout.scaffolds_per_task=1", "rollout.solutions_per_scaffold=1"], "rollout.solutions_per_scaffold=1: "),
        (["rollout.scaffolds_per_task=1"], "rollout.scaffolds_per_task=1: a scaffold is measured against the others"),
        (["advantage.baseline=median"], "advantage.baseline=median: unknown"),
        (["rollout.max_staleness=9"], "rollout.max_staleness=9: tokens older than loss.k2=8 weigh nothing"),
        (["rollout.turn_tokens=40000"], "rollout.turn_tokens=40000: is more than rollout.context_tokens=32768"),
        (["train.seq_len=16384"], "rollout.context_tokens=32768: is more than train.seq_len=16384"),
        (["engine.max_len=16384"], "rollout.context_tokens=32768: is more than engine.max_len=16384"),
        (["rollout.turn_s=3000"], "rollout.turn_s=3000.0: is more than rollout.episode_s=1800.0"),
        (["sampling.top_p=0"], "sampling.top_p=0.0: must be more than 0 and at most 1"),
        (["model=gpt-2"], "model: 'gpt-2' is neither a folder nor one of"),
    ],
)
def test_nonsense_is_refused_before_anything_compiles(words, message):
    devices = 8 if message.startswith("mesh: ") else None
    with pytest.raises(OrnithError, match=message):
        check(override(TINY, words), devices)


def test_a_control_arm_needs_no_second_scaffold():
    check(override(TINY, ["rollout.arm=fixed", "rollout.scaffolds_per_task=1"]))
    check(override(TINY, ["advantage.scaffold_weight=0", "rollout.scaffolds_per_task=1"]))


def test_supervised_training_asks_nothing_of_the_rollout_tier():
    check_training(override(TINY, ["train.seq_len=64"]))


def test_every_objective_is_a_choice_and_every_checked_field_exists():
    assert set(checks.TRAIN_CHOICES["loss.kind"]) == set(OBJECTIVES)


def test_json_gives_the_same_experiment_back_and_refuses_what_it_does_not_know():
    e = override(TINY, ["rollout.arm=none", "engine.urls=a,b", "loss.k1=0"])
    assert from_json(to_json(e)) == e
    with pytest.raises(OrnithError, match=r"loss\.k9: no such field"):
        from_json(to_json(e).replace('"k1"', '"k9"'))
    with pytest.raises(OrnithError, match=r"loss\.k1: is '0'; it must be a whole number"):
        from_json(to_json(e).replace('"k1": 0', '"k1": "0"'))
    with pytest.raises(OrnithError, match="not JSON"):
        from_json("{")
    with pytest.raises(OrnithError, match="model: is missing"):
        from_json('{"name": "x"}')


def test_an_experiment_is_read_from_a_file_and_printed(tmp_path: Path, capsys):
    file = tmp_path / "mine.py"
    file.write_text(
        "from ornith_jax.experiment import Experiment\n"
        "def get_config():\n    return Experiment(name='mine', model='tiny-gemma4')\n"
    )
    assert main(["config", str(file), "loss.k1=0"]) == 0
    assert from_json(capsys.readouterr().out) == load(str(file), ["loss.k1=0"])
    assert main(["config", str(file), "loss.k1=-1"]) == 2
    assert "loss.k1=-1" in capsys.readouterr().err


def test_an_experiment_that_is_not_there_is_refused(tmp_path: Path):
    with pytest.raises(OrnithError, match=r"no experiments/nowhere\.py"):
        load("nowhere")
    with pytest.raises(OrnithError, match="no such file"):
        load(str(tmp_path / "nowhere.py"))
    (tmp_path / "empty.py").write_text("")
    with pytest.raises(OrnithError, match=r"has no get_config\(\)"):
        load(str(tmp_path / "empty.py"))
