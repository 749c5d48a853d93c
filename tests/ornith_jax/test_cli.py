"""The command line: exit codes, errors without a traceback, and no heavy import before it is needed."""

import subprocess
import sys
from pathlib import Path

import pytest

from ornith_jax import cli

ROOT = Path(__file__).resolve().parents[2]


def test_help_names_every_verb(capsys: pytest.CaptureFixture[str]):
    with pytest.raises(SystemExit) as done:
        cli.main(["--help"])
    assert done.value.code == 0
    out = capsys.readouterr().out
    assert "convert" in out
    assert "score" in out


@pytest.mark.parametrize("argv", [[], ["nonsense"], ["convert"], ["convert", "export", "a", "b", "--dtype=int8"]])
def test_a_wrong_command_line_exits_with_2(argv: list[str], capsys: pytest.CaptureFixture[str]):
    with pytest.raises(SystemExit) as done:
        cli.main(argv)
    assert done.value.code == 2
    assert "usage: ornith" in capsys.readouterr().err


def test_an_error_is_one_line_without_a_traceback(tmp_path: Path):
    command = [sys.executable, "-m", "ornith_jax.cli", "convert", "check", str(tmp_path)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 2
    file = tmp_path / "config.json"
    assert done.stderr == f"ornith: error: {file}: not found; a Hugging Face checkpoint folder needs its config.json\n"


def test_an_error_of_the_system_is_one_line_too(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    (tmp_path / "config.json").mkdir()
    assert cli.main(["convert", "check", str(tmp_path)]) == 2
    assert capsys.readouterr().err == f"ornith: error: {tmp_path / 'config.json'}: Is a directory\n"


def test_the_command_line_itself_loads_neither_jax_nor_numpy():
    code = (
        "import sys; from ornith_jax import cli; cli._parser().parse_args(['convert', 'check', 'x']); "
        "print(sorted({'jax', 'numpy', 'torch', 'orbax'} & sys.modules.keys()))"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stdout == "[]\n"


def test_inspect_of_nothing_names_the_published_sizes(capsys: pytest.CaptureFixture[str]):
    assert cli.main(["convert", "inspect", "no-such-size"]) == 2
    error = capsys.readouterr().err
    assert "no-such-size: neither a folder nor a published size" in error
    assert "qwen3.5-397b-a17b" in error


@pytest.mark.parametrize(
    "words",
    [
        ["quickstart", "train.stepz=2", "--run", "never"],
        ["quickstart", "--run", "never", "train.stepz=2"],
        ["--run", "never", "quickstart", "loss.k1=2", "--name", "e", "train.stepz=2"],
    ],
)
def test_overrides_stand_before_options_and_after_them(words: list[str], capsys: pytest.CaptureFixture[str]):
    assert cli.main(["train", *words]) == 2
    assert "train.stepz: no such field" in capsys.readouterr().err


@pytest.mark.parametrize("words", [["train", "quickstart", "--run", "never", "word"], ["convert", "check", "a", "b=c"]])
def test_what_is_no_override_is_not_taken_for_one(words: list[str], capsys: pytest.CaptureFixture[str]):
    with pytest.raises(SystemExit) as done:
        cli.main(words)
    assert done.value.code == 2
    assert f"unrecognized arguments: {words[-1]}" in capsys.readouterr().err
