"""The report as a small server on this machine: made anew when the run has moved, and it takes decisions."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path

from aiohttp import web
from aiohttp.typedefs import Handler

from rollout.errors import RolloutError
from rollout.report import page, reviews
from rollout.report.gather import Reader, stamp

HOST = "127.0.0.1"
NAMES = ("127.0.0.1", "localhost", "[::1]")  # by which it may be called; others are pages that try to reach in
BODY_BYTES = 64 << 10


class Live:
    """One run. The page is kept until the run's files change."""

    def __init__(self, folder: Path, sample: int) -> None:
        self._reader, self._sample = Reader(folder), sample
        self._lock = asyncio.Lock()
        self._page, self._of = "", ""

    def app(self) -> web.Application:
        found = web.Application(middlewares=[_local_only], client_max_size=BODY_BYTES)
        found.add_routes(
            [web.get("/", self._show), web.get("/stamp", self._stamp), web.post("/reviews", self._take)],
        )
        return found

    async def _show(self, request: web.Request) -> web.Response:
        async with self._lock:
            now = await asyncio.to_thread(stamp, self._reader.folder)
            if now != self._of:
                self._page = await asyncio.to_thread(self._render, now)
                self._of = now
        return web.Response(text=self._page, content_type="text/html", headers={"Cache-Control": "no-store"})

    async def _stamp(self, request: web.Request) -> web.Response:
        return web.Response(text=await asyncio.to_thread(stamp, self._reader.folder))

    async def _take(self, request: web.Request) -> web.Response:
        """A decision as JSON; 400 says what is wrong with it."""
        if request.content_type != "application/json":  # a page of somebody else cannot send this without asking
            return web.Response(status=415, text="send application/json")
        try:
            review = reviews.stamped(reviews.parse(json.loads(await request.text()), "the decision"))
        except (ValueError, RecursionError, RolloutError) as error:
            return web.Response(status=400, text=str(error))
        async with self._lock:
            if not await asyncio.to_thread(self._reader.knows, review.trajectory):
                return web.Response(status=404, text=f"no trajectory {review.trajectory[:200]!r} in this run")
            await asyncio.to_thread(reviews.add, self._reader.folder, review)
        return web.json_response({"saved": review.trajectory})

    def _render(self, now: str) -> str:
        return page.render(self._reader, self._reader.read(), sample=self._sample, stamp=now)


async def serve(folder: Path, port: int, sample: int) -> None:
    """Until cancelled. Port 0: any free one. Raises RolloutError for a folder that is no run, OSError for the port."""
    runner = web.AppRunner(Live(folder, sample).app(), access_log=None)
    await runner.setup()
    try:
        site = web.TCPSite(runner, HOST, port)
        await site.start()
        print(f"http://{HOST}:{runner.addresses[0][1]}/  (Ctrl-C ends it)", flush=True)
        await asyncio.Event().wait()
    finally:
        await runner.cleanup()


@web.middleware
async def _local_only(request: web.Request, handler: Handler) -> web.StreamResponse:
    if request.host.rpartition(":")[0] not in NAMES and request.host not in NAMES:
        return web.Response(status=403, text=f"call it by one of {', '.join(NAMES)}")
    return await handler(request)
