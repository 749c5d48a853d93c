"""`ornith rollout`, `show`, `export-trajectories` on real sandboxes and the scripted engine; the split of a suite."""

import json
from collections import Counter

import pytest

from envs.suites import fledgling
from ornith_jax.cli import main
from rollout.errors import RolloutError
from rollout.settings import SuiteSettings
from rollout.store.reader import Trajectories
from rollout.suite import load_suite, split
from rollout.types import Stage
from tests.envs.conftest import base_image  # noqa: F401
from tests.rollout.tokenizers import folder

EXPERIMENT = """
from ornith_jax.experiment import Experiment
from rollout.settings import RolloutSettings, SuiteSettings

def get_config():
    return Experiment(name="t", model="tiny-qwen3.5", suite=SuiteSettings(count=12), rollout=RolloutSettings(
        scaffolds_per_task=1, solutions_per_scaffold=2, groups_in_flight=2, warm_sandboxes=2))
"""


def test_rollout_stores_what_show_tells_and_export_gives(tmp_path, capsys, base_image):  # noqa: F811
    (tmp_path / "e.py").write_text(EXPERIMENT)
    run = str(tmp_path / "run")
    words = ["rollout", str(tmp_path / "e.py"), "--run", run, "--engine", "scripted"]
    words += ["--weights", str(folder("qwen3_5"))]
    for count in ("1", "2", "2"):  # the second start goes on, the third has nothing to do
        assert main([*words, "--tasks", count]) == 0
    out, err = capsys.readouterr()
    assert [line.split(" ")[0] for line in out.splitlines()] == ["1", "1", "0"]
    assert "pass 100%" in err
    source = Trajectories(tmp_path / "run" / "trajectories")
    found = [source[place] for place in range(len(source))]
    assert Counter(t.group_id for t in found) == dict.fromkeys({t.group_id for t in found}, 2)
    assert len(found) == 4
    for trajectory in found:
        assert [turn.stage for turn in trajectory.turns][:2] == [Stage.SCAFFOLD, Stage.SOLUTION]

    assert main(["show", run]) == 0
    assert main(["show", run, found[0].id]) == 0
    assert "verdict passed" in capsys.readouterr().out
    assert main(["show", run, "@"]) == 2
    assert "4 trajectories have '@' in their id" in capsys.readouterr().err
    assert main(["export-trajectories", run, str(tmp_path / "a.jsonl"), "--only", "passed"]) == 0
    rows = [json.loads(line) for line in (tmp_path / "a.jsonl").read_text().splitlines()]
    assert {row["id"] for row in rows} == {t.id for t in found}


def test_errors_are_one_line(tmp_path, capsys):
    (tmp_path / "e.py").write_text(EXPERIMENT)
    experiment, words = str(tmp_path / "e.py"), ["--run", str(tmp_path / "run")]
    assert main(["rollout", experiment, "suite.categories=nonsense", *words]) == 2
    assert "suite.categories, suite.levels: fledgling has no category 'nonsense'" in capsys.readouterr().err
    assert main(["rollout", experiment, *words, "--weights", str(tmp_path / "nowhere")]) == 2
    assert "no such folder; name one with --weights" in capsys.readouterr().err
    assert main(["rollout", experiment, *words, "--engine", "sglang"]) == 2
    assert "engine.urls" in capsys.readouterr().err
    assert main(["show", str(tmp_path / "run")]) == 2
    assert "there is no such folder" in capsys.readouterr().err


def test_the_share_held_out_is_of_every_category_and_goes_by_content():
    tasks = fledgling.generate(0, 60)
    train, heldout = split(tasks, 0.2)
    assert len(train) + len(heldout) == 60
    of_all, of_held = Counter(t.category for t in tasks), Counter(t.category for t in heldout)
    assert all(of_held[category] == round(0.2 * count) for category, count in of_all.items())
    assert split(tasks[::-1], 0.2)[1] == heldout[::-1]
    assert split(tasks, 0)[1] == []


def test_a_suite_is_made_or_read_and_narrowed_to_its_categories(tmp_path):
    train, heldout = load_suite(SuiteSettings(count=20, seed=3, categories=("edge", "format")))
    assert {task.category for task in train + heldout} == {"edge", "format"}
    with pytest.raises(RolloutError, match=r"suite.path: .*there is no such"):
        load_suite(SuiteSettings(path=str(tmp_path / "nowhere")))
