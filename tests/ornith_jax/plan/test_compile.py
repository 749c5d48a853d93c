"""A real compilation for TPUs that are not there, and what is refused before or after one."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest

from ornith_jax.cli import main
from ornith_jax.errors import OrnithError
from ornith_jax.experiment import EngineSettings, Experiment, MeshSettings, TrainSettings
from ornith_jax.models.named import NAMED
from ornith_jax.plan import search
from ornith_jax.plan.compile import Compiled, compile_for
from ornith_jax.plan.report import make_plan, render
from ornith_jax.plan.topology import GIB, parse
from ornith_jax.plan.worker import out_of_memory

TINY = Experiment(
    name="tiny",
    model="tiny-qwen3.5",
    mesh=MeshSettings(fsdp=2),
    train=TrainSettings(seq_len=256, rows=2),
    engine=EngineSettings(slots=2, max_len=256),
)


@pytest.mark.slow
def test_the_train_step_compiles_for_tpus_that_are_not_there(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    """The whole verb, in the compiler of a v6e. Bytes of the arguments are those of shapes, up to the tiles of TPUs."""
    config = tmp_path / "tiny_plan.py"
    config.write_text(
        "from ornith_jax.experiment import *\n"
        "def get_config():\n"
        "    return Experiment(name='tiny', model='tiny-qwen3.5', mesh=MeshSettings(fsdp=2),"
        " train=TrainSettings(seq_len=256, rows=2))\n"
    )
    assert main(["plan", str(config), "--topology", "v6e:1x2", "--json", "--deadline", "600"]) == 0
    found = json.loads(capsys.readouterr().out)
    compiled = found["compiled"]
    assert found["fits"]
    assert found["devices"] == 2
    assert found["room"] == found["hbm_bytes"] - compiled["needed"]
    counted = sum(compiled["arguments"].values())
    assert counted <= compiled["argument_bytes"] < 20 * counted
    assert compiled["needed"] >= compiled["argument_bytes"] + compiled["temporary_bytes"]
    assert compiled["arguments"]["optimizer"] == pytest.approx(2 * compiled["arguments"]["parameters"], rel=0.01)
    # Every weight is gathered over fsdp at least once, in bfloat16, and its gradient comes back.
    weights = 2 * 2 * compiled["arguments"]["parameters"] // 4
    assert compiled["collectives"]["all-gather"] > weights / 2
    assert compiled["traffic"] > compiled["arguments"]["parameters"]
    estimate = found["estimate"]
    assert estimate["tokens"] == 512
    assert estimate["step_s"] == max(estimate["compute_s"], estimate["memory_s"], estimate["links_s"]) > 0
    assert 0 < estimate["mfu"] < 1


def test_a_mesh_that_does_not_fit_the_slice_is_refused_before_anything_compiles():
    with pytest.raises(OrnithError, match=r"mesh: fsdp 2 needs 2 devices, but there are 4"):
        compile_for(TINY, parse("v6e:2x2"), deadline_s=300)


def test_a_compilation_that_takes_too_long_is_ended():
    with pytest.raises(OrnithError, match=r"v6e:1x2: still compiling after 0 s; raise --deadline"):
        compile_for(TINY, parse("v6e:1x2"), deadline_s=0.3)


def test_the_command_line_names_what_is_wrong(capsys: pytest.CaptureFixture[str]):
    assert main(["plan", "ornith_9b", "--topology", "v7:2x2"]) == 2
    assert "unknown chip 'v7'" in capsys.readouterr().err
    assert main(["plan", "ornith_10b", "--topology", "v6e:2x2"]) == 2
    assert "no experiments/ornith_10b.py" in capsys.readouterr().err
    assert main(["plan", "ornith_9b", "mesh.fdsp=4", "--topology", "v6e:2x2"]) == 2
    assert "fdsp" in capsys.readouterr().err


OOM = (
    "RESOURCE_EXHAUSTED: E1000: CompileTimeHbmOom: Ran out of memory on HBM, the total memory required for HLO "
    "temporaries (305.18G) exceeds available HBM (31.24G). HLO module: jit__lambda."
)


def test_the_compilers_want_of_memory_is_an_answer_and_other_failures_are_errors():
    assert out_of_memory(OOM) == int(305.18 * GIB)
    with pytest.raises(OrnithError, match="the compiler failed: INTERNAL: boom"):
        out_of_memory("INTERNAL: boom")


def compiled_of(needed: int, complete: bool = True) -> Compiled:
    kinds = {"parameters": GIB, "optimizer": 2 * GIB, "batch": 0}
    size = 3 * GIB if complete else 0
    return Compiled(arguments=kinds, needed=needed, argument_bytes=size, temporary_bytes=needed - size)


def test_a_page_says_how_much_is_missing_and_by_whose_word():
    cfg = NAMED[TINY.model]
    page = render(make_plan(cfg, TINY, parse("v6e:1x2"), compiled_of(40 * GIB, complete=False), decode=False), cfg)
    assert "does NOT fit: 8.76 GiB too much (of 31.24 GiB per device)" in page
    assert "says XLA, which gave up" in page
    page = render(make_plan(cfg, TINY, parse("v6e:1x2"), compiled_of(30 * GIB), decode=False), cfg)
    assert "fits, 1.24 GiB to spare" in page


def test_a_search_goes_up_from_the_smallest_slice_and_compiles_only_what_is_hopeful(monkeypatch: pytest.MonkeyPatch):
    """The compiler is scripted here: each device needs 120 GiB / devices + 8 GiB / context."""
    asked = []

    def scripted(experiment, topology, *, decode, deadline_s):
        asked.append((topology.name, experiment.mesh.context, experiment.train.rows))
        return compiled_of(int(GIB * (120 / topology.num_devices + 8 / experiment.mesh.context)))

    monkeypatch.setattr(search, "compile_for", scripted)
    monkeypatch.setattr(search, "expected_bytes", lambda cfg, e, t, decode: 0 if t.num_devices > 1 else 1e15)
    plan = search.search(NAMED[TINY.model], TINY, "v6e", decode=False, deadline_s=1)
    # 4 devices need 38, 34 and 32 GiB, all more than 31.24; 8 devices need 23 GiB.
    assert asked == [("v6e:2x2", 1, 4), ("v6e:2x2", 2, 2), ("v6e:2x2", 4, 1), ("v6e:2x4", 1, 8)]
    assert plan.fits
    assert plan.topology.name == "v6e:2x4"


def test_a_search_without_an_answer_says_so(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(search, "compile_for", lambda *a, **k: compiled_of(90 * GIB))
    huge = replace(TINY, train=replace(TINY.train, seq_len=2**20))
    with pytest.raises(OrnithError, match=r"--search v5e: no slice in plan/topology.py is large enough"):
        search.search(NAMED[TINY.model], huge, "v5e", decode=False, deadline_s=1)
