"""`ornith eval` on a run of random weights (embedded) and on a server; `ornith compare` of the two; real sandboxes."""

import asyncio
import contextlib
import json
import threading
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from aiohttp.test_utils import TestServer

from ornith_jax.cli import main
from ornith_jax.experiment import Experiment, to_json
from ornith_jax.models.named import TINY_QWEN
from ornith_jax.serve.http import Server
from ornith_jax.verbs.evaluate import locate
from rollout.chat.chat import load_chat
from rollout.expert import expert_script
from rollout.scripted import ScriptedEngine
from rollout.settings import EngineSettings, RolloutSettings, SuiteSettings
from rollout.suite import load_suite
from rollout.types import Arm
from tests.envs.conftest import base_image  # noqa: F401
from tests.rollout.lab import Lab
from tests.rollout.tokenizers import folder

EXPERIMENT = Experiment(
    name="t",
    model="tiny-qwen3.5",
    suite=SuiteSettings(count=30),
    rollout=RolloutSettings(arm=Arm.NONE, turn_tokens=8, max_turns=2, groups_in_flight=2, warm_sandboxes=2),
    engine=EngineSettings(slots=2, max_len=4096, dtype="float32"),
)


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run directory with two published versions of random weights."""
    root = tmp_path_factory.mktemp("eval") / "run"
    cfg = replace(TINY_QWEN, vocab_size=2048, num_layers=4)
    lab = Lab(root / "weights", cfg, side_files={f.name: f.read_bytes() for f in folder("qwen3_5").iterdir()})
    lab.publish(0)
    lab.publish(3)
    (root / "config.json").write_text(to_json(EXPERIMENT))
    return root


@contextlib.contextmanager
def serving(settings: RolloutSettings) -> Iterator[str]:
    """The scripted expert behind our own HTTP server; its URL."""
    talk = load_chat(folder("qwen3_5"), "qwen3_5")
    _, tasks = load_suite(EXPERIMENT.suite)
    engine = ScriptedEngine(talk, expert_script(talk, tasks, settings))
    loop, server = asyncio.new_event_loop(), TestServer(Server(engine, "expert", talk).app())
    thread = threading.Thread(target=loop.run_forever)
    thread.start()
    try:
        asyncio.run_coroutine_threadsafe(server.start_server(), loop).result(30)
        yield str(server.make_url("/"))
    finally:
        asyncio.run_coroutine_threadsafe(server.close(), loop).result(30)
        loop.call_soon_threadsafe(loop.stop)
        thread.join(30)
        loop.close()


def test_a_run_is_evaluated_and_a_server_compared_with_it(run, capsys, base_image):  # noqa: F811
    words = ["eval", str(run), "--tasks", "2", "--samples", "2"]
    assert main(words) == 0
    out = capsys.readouterr().out
    found = json.loads((run / "evals" / "v0000003-none.json").read_text())
    assert (found["policy_version"], found["tasks"], found["pass@1"]["value"]) == (3, 2, 0.0)
    assert found["tokens"]["sampled"] > 0
    assert "4 failed (ended by max_turns 4" in out
    assert "0.0 [0.0, 65.8]" in out, "two of two tasks at zero, by Wilson"
    assert main(words) == 0
    assert capsys.readouterr().out == out

    with serving(RolloutSettings()) as url:
        more = ["--engine", url, "--arm", "self", "--name", "expert"]
        budgets = ["--experiment", _experiment(run), "rollout.turn_tokens=4096", "rollout.max_turns=30"]
        assert main([*words, *more, *budgets]) == 0
    expert = json.loads((run / "evals" / "expert.json").read_text())
    assert (expert["pass@1"]["value"], expert["policy_version"]) == (1.0, 0)
    assert set(expert["per_task"]) == set(found["per_task"])
    _, heldout = load_suite(EXPERIMENT.suite)
    assert set(found["per_task"]) < {task.id for task in heldout}

    capsys.readouterr()
    assert main(["compare", *(str(run / "evals" / f"{name}.json") for name in ("v0000003-none", "expert"))]) == 0
    out = capsys.readouterr().out
    assert "expert minus v0000003-none" in out
    assert "arm none -> self; policy_version 3 -> 0" in out
    assert "+100.0 [+100.0, +100.0]" in out


def _experiment(run: Path) -> str:
    """The experiment of the run as a file, for `--experiment FILE`."""
    file = run.parent / "e.py"
    file.write_text(
        "from pathlib import Path\nfrom ornith_jax.experiment import from_json\n"
        f"def get_config():\n    return from_json(Path({str(run / 'config.json')!r}).read_text())\n"
    )
    return str(file)


def test_a_run_stands_for_its_newest_version(run, tmp_path):
    newest, first = run / "weights" / "v0000003", run / "weights" / "v0000000"
    assert locate(run) == (newest, run)
    assert locate(first) == (first, run.resolve())
    (tmp_path / "hf").mkdir()
    assert locate(tmp_path / "hf") == (tmp_path / "hf", None)


def test_errors_are_one_line(run, tmp_path, capsys):
    hf, empty = str(folder("qwen3_5")), tmp_path / "empty"
    (empty / "weights").mkdir(parents=True)
    (tmp_path / "bad.json").write_text("{}")
    for words, said in (
        (["eval", str(tmp_path / "nowhere")], "nowhere: no such folder"),
        (["eval", str(empty)], "no version is published yet"),
        (["eval", hf], "--out"),
        (["eval", hf, "--out", str(tmp_path)], "--experiment"),
        (["eval", str(run), "--engine", "torch"], "--engine: 'torch' is not"),
        (["eval", str(run), "--samples", "0"], "samples: 0"),
        (["eval", str(run), "suite.heldout=0"], "no task to evaluate"),
        (["eval", str(run), "--name", "a/b"], "name: 'a/b'"),
        (["eval", str(run), "--suite", "nowhere"], "suite.path"),
        (["eval", str(run), "--library", str(tmp_path)], "has no scaffolds/"),
        (["compare", str(tmp_path / "a.json"), str(tmp_path / "a.json")], "a.json: no such file"),
        (["compare", str(tmp_path / "bad.json"), str(tmp_path / "bad.json")], "bad.json: has no 'name'"),
    ):
        assert main(words) == 2, words
        err = capsys.readouterr().err
        assert said in err, (words, err)
        assert err.startswith("ornith: error: ")
