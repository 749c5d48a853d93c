"""How a server is started: command line and environment, as pure functions of the settings."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from rollout.errors import RolloutError

PARSERS = {"qwen3_5": ("qwen3_coder", "qwen3"), "gemma4": ("gemma4", "gemma4")}
"""Family -> (tool-call parser, reasoning parser) of the chat endpoint. Training speaks ids and needs neither."""

GPU_WEIGHT_BYTES = 60 * 10**9
"""Weights on one accelerator of 80 GB; the rest is for caches. Eight, a node, are the most: 397B needs 141 GB each."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Launch:
    """One replica. `extra` goes to the server as it is, last."""

    model: Path
    family: str  # qwen3_5 | gemma4
    port: int
    host: str = "127.0.0.1"
    tensor_parallel: int = 1
    expert_parallel: int = 1
    context_tokens: int = 32768
    max_running: int = 64
    dtype: str = "bfloat16"
    memory_fraction: float = 0.85
    routed_experts: bool = False  # return the experts of every token, for a replayed router
    deterministic: bool = False  # seeds are ignored without it; min_p is impossible with it
    policy_version: int | None = None
    cpu_torch: bool = False  # plain torch on a CPU through the plugin of tests/sglang_cpu
    tokenizer: bool = True  # False: ids only; the chat endpoint is off
    extra: tuple[str, ...] = ()


def tensor_parallel_for(weight_bytes: int) -> int:
    """Accelerators of one replica: the smallest power of two that holds the weights, 8 at most."""
    return next((n for n in (1, 2, 4) if weight_bytes <= n * GPU_WEIGHT_BYTES), 8)


def build_argv(launch: Launch, python: str = sys.executable) -> list[str]:
    """The command line. Raises RolloutError for a family without known parsers."""
    if launch.family not in PARSERS:
        raise RolloutError(f"engine: family {launch.family!r} is not one of {', '.join(PARSERS)}")
    tool_parser, reasoning_parser = PARSERS[launch.family]
    flags: dict[str, object] = {
        "--model-path": launch.model,
        "--host": launch.host,
        "--port": launch.port,
        "--tp-size": launch.tensor_parallel,
        "--context-length": launch.context_tokens,
        "--max-running-requests": launch.max_running,
        "--dtype": launch.dtype,
        "--random-seed": 0,
    }
    if launch.expert_parallel > 1:
        flags["--ep-size"] = launch.expert_parallel
    if launch.policy_version is not None:
        flags["--weight-version"] = launch.policy_version
    if launch.tokenizer:
        flags |= {"--tool-call-parser": tool_parser, "--reasoning-parser": reasoning_parser}
    if launch.cpu_torch:
        flags |= {"--device": "cpu", "--attention-backend": "torch_native", "--sampling-backend": "pytorch"}
        flags |= {"--max-total-tokens": 8 * launch.context_tokens, "--max-mamba-cache-size": 4 * launch.max_running}
    else:
        flags["--mem-fraction-static"] = launch.memory_fraction
    switches = {
        "--skip-tokenizer-init": not launch.tokenizer,
        "--disable-overlap-schedule": launch.cpu_torch,
        "--enable-return-routed-experts": launch.routed_experts,
        "--enable-deterministic-inference": launch.deterministic,
    }
    words = [word for flag, value in flags.items() for word in (flag, str(value))]
    words += [flag for flag, on in switches.items() if on]
    return [python, "-m", "sglang.launch_server", *words, *launch.extra]


def build_env(launch: Launch, env: Mapping[str, str]) -> dict[str, str]:
    """The environment. Convolution states stay in float32: sglang's bfloat16 moves log-probabilities by 5e-3."""
    env = dict(env) | {
        "SGLANG_MAMBA_CONV_DTYPE": "float32",
        "SGLANG_CUDA_COREDUMP_BEFORE_CRASH_WAIT_SECS": "0",  # else a crashed server lingers for a minute
        "TOKENIZERS_PARALLELISM": "false",
    }
    if launch.cpu_torch:
        env.pop("SGLANG_USE_CPU_ENGINE", None)  # asks for a build of sgl_kernel that no registry carries
        env |= {"SGLANG_PLATFORM": "cpu_torch", "OMP_NUM_THREADS": "1", "TORCHDYNAMO_DISABLE": "1"}
        env["HF_HUB_OFFLINE"] = "1"
    return env
