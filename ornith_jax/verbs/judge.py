"""`ornith judge train | serve`: make the quickstart's judge, and answer with it."""

from __future__ import annotations

import argparse
import asyncio
from pathlib import Path
from typing import Any

from ornith_jax.errors import OrnithError


def add_parser(verbs: Any) -> None:
    judge = verbs.add_parser("judge", help="a small judge for the filter: trained, measured and served here")
    verbs = judge.add_subparsers(dest="judge", required=True, metavar="VERB")

    verb = verbs.add_parser("train", help="train and measure one on the labelled set; FOLDER/model serves")
    verb.add_argument("folder", type=Path, metavar="FOLDER")
    verb.add_argument("--seed", type=int, default=0)
    verb.add_argument("--updates", type=int, default=340, metavar="N", help="fewer are faster, and a worse judge (340)")
    verb.set_defaults(run=_train)

    verb = verbs.add_parser("serve", help="answer as an OpenAI-compatible server; set rollout.judge=URL/v1")
    verb.add_argument("model", type=Path, help="FOLDER/model of `ornith judge train`")
    verb.add_argument("--host", default="127.0.0.1")
    verb.add_argument("--port", type=int, default=30100, help="0: one that is free")
    verb.add_argument("--card", type=Path, help="a JSON file to write when it serves: url, model, fingerprint")
    verb.set_defaults(run=_serve)


def _train(args: argparse.Namespace) -> None:
    from ornith_jax.judge.train import recipe_of, train_judge
    from rollout.errors import RolloutError
    from rollout.judging.card import render

    if args.updates < 1:
        raise OrnithError(f"--updates: {args.updates} is less than 1")
    try:
        print(render(train_judge(args.folder, args.seed, recipe_of(args.updates))))
    except RolloutError as error:
        raise OrnithError(str(error)) from None


def _serve(args: argparse.Namespace) -> None:
    from ornith_jax.judge.reader import load_reader
    from rollout.errors import RolloutError

    try:
        reader = load_reader(args.model)
    except RolloutError as error:
        raise OrnithError(str(error)) from None
    asyncio.run(_answering(reader, args.host, args.port, args.card))


async def _answering(reader: Any, host: str, port: int, card: Path | None) -> None:
    """Until interrupted or terminated."""
    from aiohttp import web

    from ornith_jax.judge.server import MODEL, Server
    from ornith_jax.verbs.serve import interrupted
    from rollout.run_dir import write_json

    stop = interrupted()
    runner = web.AppRunner(Server(reader).app())
    await runner.setup()
    try:
        site = web.TCPSite(runner, host, port)
        await site.start()
        url = f"http://{host}:{runner.addresses[0][1]}/v1"
        if card:
            write_json(card, {"url": url, "model": MODEL, "fingerprint": reader.fingerprint})
        print(f"ornith: judge {MODEL} serves on {url}", flush=True)
        await stop.wait()
    finally:
        await runner.cleanup()
