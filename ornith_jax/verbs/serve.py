"""`ornith serve`: an OpenAI-compatible server over a model."""

from __future__ import annotations

import argparse
import asyncio
import signal
import sys
from pathlib import Path
from typing import Any

from ornith_jax.errors import OrnithError


def add_parser(verbs: Any) -> None:
    verb = verbs.add_parser(
        "serve", help="answer requests over HTTP: OpenAI's completions and chat, SGLang's /generate"
    )
    verb.add_argument("model", type=Path, help="a Hugging Face folder or a checkpoint")
    verb.add_argument("--engine", choices=tuple(ENGINES), default="embedded")
    verb.add_argument("--host", default="127.0.0.1")
    verb.add_argument("--port", type=int, default=30000)
    verb.add_argument("--slots", type=int, default=8, help="requests that run at once")
    verb.add_argument("--max-len", type=int, default=4096, help="tokens of a request, prompt and completion")
    verb.add_argument("--dtype", choices=("float32", "bfloat16"), help="default: the model's")
    verb.add_argument("--version", type=int, default=0, help="the policy version that these weights are")
    verb.add_argument("--routed-experts", action="store_true", help="return experts, for a replayed router")
    sglang = verb.add_argument_group("with --engine sglang")
    sglang.add_argument("--tensor-parallel", type=int, help="accelerators of the server (default: by the model's size)")
    sglang.add_argument("--deterministic", action="store_true", help="take seeds (and no min_p)")
    sglang.add_argument("--log", type=Path, default=Path("sglang.log"), help="of the server")
    sglang.add_argument("--python", default=sys.executable, help="an interpreter that has sglang")
    sglang.add_argument("--extra", nargs=argparse.REMAINDER, default=[], help="flags for the server, last on the line")
    verb.set_defaults(run=_run)


def _run(args: argparse.Namespace) -> None:
    ENGINES[args.engine](args)


def _embedded(args: argparse.Namespace) -> None:
    from ornith_jax.convert.load import load
    from ornith_jax.serve.engine import EmbeddedEngine
    from ornith_jax.serve.http import Server
    from rollout.chat.chat import load_chat
    from rollout.settings import EngineSettings

    cfg, params = load(args.model)
    settings = EngineSettings(
        slots=args.slots, max_len=args.max_len, dtype=args.dtype or cfg.dtype, routed_experts=args.routed_experts
    )
    folder = next((f for f in (args.model, args.model / "hf") if (f / "tokenizer.json").is_file()), None)
    chat = None if folder is None else load_chat(folder, cfg.family)

    async def serve() -> None:
        engine = EmbeddedEngine(cfg, settings)
        try:
            await engine.update_params(params, args.version)
            await _forever(Server(engine, args.model.name, chat).app(), args.host, args.port)
        finally:
            await engine.close()

    asyncio.run(serve())


async def _forever(app: Any, host: str, port: int) -> None:
    """Until interrupted or terminated."""
    from aiohttp import web

    runner = web.AppRunner(app, handler_cancellation=True)  # a client that hangs up frees its row
    await runner.setup()
    try:
        await web.TCPSite(runner, host, port).start()
        print(f"ornith: serving on http://{host}:{port}", flush=True)
        await interrupted().wait()
    finally:
        await runner.cleanup()


def _sglang(args: argparse.Namespace) -> None:
    import subprocess

    from ornith_jax.models.decoder import table
    from ornith_jax.models.registry import config_from_hf
    from ornith_jax.params import count
    from rollout.errors import EngineError
    from rollout.sglang.launch import Launch, tensor_parallel_for
    from rollout.sglang.process import ServerProcess

    cfg = config_from_hf(args.model)
    if subprocess.run([args.python, "-c", "import sglang"], capture_output=True).returncode:
        raise OrnithError(f"{args.python} has no sglang: pip install 'ornith-jax[sglang]', or name one with --python")
    launch = Launch(
        model=args.model,
        family=cfg.family,
        host=args.host,
        port=args.port,
        tensor_parallel=args.tensor_parallel or tensor_parallel_for(2 * count(table(cfg))),
        context_tokens=args.max_len,
        max_running=args.slots,
        dtype=args.dtype or cfg.dtype,
        routed_experts=args.routed_experts,
        deterministic=args.deterministic,
        policy_version=args.version,
        tokenizer=(args.model / "tokenizer.json").is_file(),
        extra=tuple(args.extra),
    )

    async def serve() -> None:
        server = await ServerProcess.start(launch, args.log, python=args.python)
        try:
            print(f"ornith: sglang serves on {server.url}, log in {args.log}", flush=True)
            await server.ended(interrupted())
        finally:
            await server.stop()

    try:
        asyncio.run(serve())
    except EngineError as error:
        raise OrnithError(str(error)) from None


def interrupted() -> asyncio.Event:
    """Set by an interrupt or by SIGTERM. Needs a running event loop."""
    stop = asyncio.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        asyncio.get_running_loop().add_signal_handler(number, stop.set)
    return stop


ENGINES = {"embedded": _embedded, "sglang": _sglang}
