"""The command lines of the published sizes, and what no command line may lack."""

from dataclasses import replace
from pathlib import Path

import pytest

from ornith_jax.models.decoder import table
from ornith_jax.models.named import NAMED
from ornith_jax.params import count
from rollout.errors import RolloutError
from rollout.sglang.launch import Launch, build_argv, build_env, tensor_parallel_for

BASE = Launch(model=Path("/models/m"), family="qwen3_5", port=30000)
COMMON = (
    "--model-path /models/m --host 127.0.0.1 --port 30000 --tp-size {tp} --context-length 32768"
    " --max-running-requests 64 --dtype bfloat16 --random-seed 0{more} --mem-fraction-static 0.85{switches}"
)
QWEN = " --tool-call-parser qwen3_coder --reasoning-parser qwen3"
GEMMA = " --tool-call-parser gemma4 --reasoning-parser gemma4"


@pytest.mark.parametrize(
    ("launch", "tp", "more", "switches"),
    [
        (BASE, 1, QWEN, ""),
        (replace(BASE, tensor_parallel=2), 2, QWEN, ""),
        (
            replace(BASE, tensor_parallel=8, expert_parallel=8, routed_experts=True),
            8,
            " --ep-size 8" + QWEN,
            " --enable-return-routed-experts",
        ),
        (replace(BASE, family="gemma4", tensor_parallel=2), 2, GEMMA, ""),
        (replace(BASE, policy_version=12), 1, " --weight-version 12" + QWEN, ""),
    ],
    ids=["9b", "35b-a3b", "397b-a17b", "31b", "versioned"],
)
def test_the_command_line_of_each_published_size(launch, tp, more, switches):
    words = COMMON.format(tp=tp, more=more, switches=switches).split()
    assert build_argv(launch, "python") == ["python", "-m", "sglang.launch_server", *words]


@pytest.mark.parametrize(
    ("name", "accelerators"),
    [("qwen3.5-9b", 1), ("qwen3.5-35b-a3b", 2), ("gemma4-31b", 2), ("qwen3.5-397b-a17b", 8)],
)
def test_the_accelerators_of_each_published_size(name, accelerators):
    assert tensor_parallel_for(2 * count(table(NAMED[name]))) == accelerators


def test_extra_flags_come_last_and_win():
    argv = build_argv(replace(BASE, extra=("--mem-fraction-static", "0.7")))
    assert argv[-2:] == ["--mem-fraction-static", "0.7"]


def test_an_unknown_family_is_refused():
    with pytest.raises(RolloutError, match="llama"):
        build_argv(replace(BASE, family="llama"))


def test_convolution_states_are_float32_everywhere():
    assert build_env(BASE, {})["SGLANG_MAMBA_CONV_DTYPE"] == "float32"


def test_the_cpu_platform_is_never_sent_into_the_kernel_build_it_lacks():
    env = build_env(replace(BASE, cpu_torch=True), {"SGLANG_USE_CPU_ENGINE": "1", "HOME": "/h"})
    assert "SGLANG_USE_CPU_ENGINE" not in env
    assert env["SGLANG_PLATFORM"] == "cpu_torch"
    assert env["HOME"] == "/h"
