"""`ornith report`: a run as one page to read, also while it goes on, and what people decided about it."""

from __future__ import annotations

import argparse
import asyncio
import contextlib
from pathlib import Path
from typing import Any

from ornith_jax.errors import OrnithError


def add_parser(verbs: Any) -> None:
    verb = verbs.add_parser("report", help="a run as one HTML file; --live serves it and takes reviews")
    verb.add_argument(
        "folder", type=Path, metavar="RUN", help="a run directory, of a run that goes on or was killed too"
    )
    verb.add_argument("--out", type=Path, metavar="FILE", help="default: RUN/report.html")
    verb.add_argument(
        "--sample", type=int, default=24, metavar="N", help="passing trajectories laid out for review (24)"
    )
    verb.add_argument("--figures", type=Path, metavar="DIR", help="the charts as SVG files too")
    verb.add_argument("--live", action="store_true", help="serve it on this machine, refreshed as the run goes on")
    verb.add_argument("--port", type=int, default=0, help="of --live (default: any free one)")
    verb.add_argument("--take", type=Path, metavar="FILE", help="merge decisions that the page gave for download")
    verb.set_defaults(run=_run)


def _run(args: argparse.Namespace) -> None:
    from rollout.errors import RolloutError
    from rollout.report.figures import write_figures
    from rollout.report.gather import Reader
    from rollout.report.learning import result
    from rollout.report.live import serve
    from rollout.report.page import write
    from rollout.report.reviews import take

    if args.sample < 0:
        raise OrnithError(f"--sample: {args.sample} is less than 0")
    try:
        reader = Reader(args.folder)
        if args.take:
            known = [trajectory.id for trajectory in reader.read().trajectories]
            print(f"{take(args.folder, args.take, known)} new decisions from {args.take}")
        if args.live:
            with contextlib.suppress(KeyboardInterrupt):
                asyncio.run(serve(args.folder, args.port, args.sample))
            return
        out = args.out or args.folder / "report.html"
        print(f"{result(write(reader, out, sample=args.sample))}\n{out}")
        if args.figures:
            print(f"{len(write_figures(out.read_text(encoding='utf-8'), args.figures))} figures in {args.figures}")
    except RolloutError as error:
        raise OrnithError(str(error)) from None
