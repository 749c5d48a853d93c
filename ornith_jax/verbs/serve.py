"""`ornith serve`: an OpenAI-compatible server over a model."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any


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
    verb.set_defaults(run=_run)


def _run(args: argparse.Namespace) -> None:
    ENGINES[args.engine](args)


def _embedded(args: argparse.Namespace) -> None:
    import asyncio

    from ornith_jax.convert.load import load
    from ornith_jax.serve.engine import EmbeddedEngine
    from ornith_jax.serve.http import Server
    from rollout.chat.chat import load_chat
    from rollout.settings import EngineSettings

    cfg, params = load(args.model)
    settings = EngineSettings(slots=args.slots, max_len=args.max_len, dtype=args.dtype or cfg.dtype)
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
    import asyncio
    import signal

    from aiohttp import web

    runner = web.AppRunner(app)
    await runner.setup()
    stop = asyncio.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        asyncio.get_running_loop().add_signal_handler(number, stop.set)
    try:
        await web.TCPSite(runner, host, port).start()
        print(f"ornith: serving on http://{host}:{port}", flush=True)
        await stop.wait()
    finally:
        await runner.cleanup()


ENGINES = {"embedded": _embedded}
