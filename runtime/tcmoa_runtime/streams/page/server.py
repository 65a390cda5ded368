"""The page's server: aiohttp on a thread of its own, so that no browser ever holds up the stream."""

from __future__ import annotations

import asyncio
import socket
import threading
from concurrent.futures import ThreadPoolExecutor
from typing import Any, Final

from aiohttp import web

from tcmoa_runtime.streams.interfaces import FusedFrame, StreamFormat
from tcmoa_runtime.streams.page.access import Access, guard
from tcmoa_runtime.streams.page.api import LARGEST_BODY, Api, Shown
from tcmoa_runtime.streams.page.live import Hub

GOODBYE_SECONDS: Final = 1.0
"""How long browsers have to take the last message."""


class PageServer:
    """Serves one stream on one listening socket."""

    def __init__(self, listening: socket.socket, access: Access, stream: Shown, form: StreamFormat) -> None:
        """The socket is the server's from here on."""
        self._socket, self._access, self._stream, self._form = listening, access, stream, form
        self._thread = threading.Thread(target=self._run, name="tcmoa-page", daemon=True)
        self._up = threading.Event()
        self._error: BaseException | None = None
        self._hub: Hub | None = None
        self._done: asyncio.Event | None = None

    def start(self) -> None:
        """Serve; raises what keeps it from that."""
        self._thread.start()
        self._up.wait()
        if self._error is not None:
            raise self._error

    def put(self, frame: FusedFrame) -> None:
        """Show a frame to whoever looks on; does not wait."""
        if self._hub is not None and self._thread.is_alive():
            self._hub.put(frame)

    def stop(self) -> None:
        """Tell the browsers that it is over, and end."""
        if self._hub is not None and self._done is not None and self._thread.is_alive():
            self._hub.loop.call_soon_threadsafe(self._done.set)
        if self._thread.ident is not None:
            self._thread.join(3 * GOODBYE_SECONDS)
        self._socket.close()

    def _run(self) -> None:
        try:
            asyncio.run(self._serve())
        except Exception as error:  # handed to the thread that started this one
            self._error = error
        finally:
            self._up.set()

    async def _serve(self) -> None:
        self._done = asyncio.Event()
        # Two at a time: a browser with large pictures does not keep the others waiting for theirs.
        with ThreadPoolExecutor(2, thread_name_prefix="tcmoa-page-jpeg") as executor:
            hub = Hub(self._form.channel_order, executor, self._figures)
            app = web.Application(client_max_size=LARGEST_BODY, middlewares=[guard(self._access)])
            Api(self._stream, hub, self._access).add_to(app)
            runner = web.AppRunner(app, access_log=None, shutdown_timeout=GOODBYE_SECONDS)
            await runner.setup()
            try:
                await web.SockSite(runner, self._socket).start()
                self._hub = hub
                self._up.set()
                await self._done.wait()
                hub.end()
                deadline = hub.loop.time() + GOODBYE_SECONDS
                while hub.clients and hub.loop.time() < deadline:
                    await asyncio.sleep(0.02)
                for client in list(hub.clients):  # whoever did not take it
                    client.drop()
            finally:
                await runner.cleanup()

    def _figures(self) -> dict[str, Any]:
        return {**self._stream.figures(), "control": self._stream.control.state()}
