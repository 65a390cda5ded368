"""The server of the page: aiohttp on its own thread, so that no browser delays the stream."""

from __future__ import annotations

import asyncio
import errno
import socket
import threading
from concurrent.futures import ThreadPoolExecutor
from typing import Any, Final

from aiohttp import web

from tcmoa_runtime.log import get_logger
from tcmoa_runtime.streams.interfaces import FusedFrame, StreamFormat
from tcmoa_runtime.streams.page.api import Api
from tcmoa_runtime.streams.page.connections import Connection
from tcmoa_runtime.streams.page.document import page_document
from tcmoa_runtime.streams.page.hub import Hub
from tcmoa_runtime.streams.page.middleware import page_middleware
from tcmoa_runtime.streams.page.routes import MAX_BODY_MIB
from tcmoa_runtime.streams.page.stream_info import StreamInfo
from tcmoa_runtime.web.access import Access
from tcmoa_runtime.web.connections import MAX_BACKLOG, ConnectionCounter, max_connections

SHUTDOWN_SECONDS: Final = 1.0
"""Time that browsers have to receive the last message."""
NUM_ENCODERS: Final = 2
"""Threads that encode JPEGs: a browser with large images does not block one with small images."""
WARNING_SECONDS: Final = 60.0
"""Time between two warnings that connections cannot be accepted."""
_NO_RESOURCES: Final = (errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM)

_log = get_logger("page")


class PageServer:
    """Serves one stream on one listening socket."""

    def __init__(
        self, listener: socket.socket, access: Access, stream: StreamInfo, stream_format: StreamFormat
    ) -> None:
        """Prepare the thread; the server closes the socket."""
        self._socket, self._access, self._stream, self._format = listener, access, stream, stream_format
        self._thread = threading.Thread(target=self._run, name="tcmoa-page", daemon=True)
        self._started = threading.Event()
        self._error: BaseException | None = None
        self._hub: Hub | None = None
        self.connections: ConnectionCounter | None = None
        self._stop: asyncio.Event | None = None

    def start(self) -> None:
        """Start serving; raise the error that prevents it."""
        self._thread.start()
        self._started.wait()
        if self._error is not None:
            raise self._error

    def put(self, frame: FusedFrame) -> None:
        """Show a frame; does not block."""
        if self._hub is not None and self._thread.is_alive():
            self._hub.put(frame)

    def stop(self) -> None:
        """Tell the browsers that the stream has ended, and stop."""
        if self._hub is not None and self._stop is not None and self._thread.is_alive():
            self._hub.loop.call_soon_threadsafe(self._stop.set)
        if self._thread.ident is not None:
            self._thread.join(3 * SHUTDOWN_SECONDS)
        self._socket.close()

    def _run(self) -> None:
        try:
            # asyncio's own loop, whatever the program has installed: uvloop, which Ray installs in its workers, makes
            # transports that are no `asyncio.Transport`.
            with asyncio.Runner(loop_factory=asyncio.SelectorEventLoop) as runner:
                runner.run(self._serve())
        except Exception as error:  # raised by `start`
            self._error = error
        finally:
            self._started.set()

    async def _serve(self) -> None:
        self._stop = asyncio.Event()
        asyncio.get_running_loop().set_exception_handler(_LoopErrors().handle)
        page_document()  # read before descriptors may run out
        with ThreadPoolExecutor(NUM_ENCODERS, thread_name_prefix="tcmoa-page-jpeg") as executor:
            hub = Hub(self._format.channel_order, executor, self._stream.browser_stats)
            app = web.Application(
                client_max_size=MAX_BODY_MIB << 20, middlewares=[page_middleware(self._access)]
            )
            Api(self._stream, hub, self._access).add_routes(app)
            runner = web.AppRunner(app, shutdown_timeout=SHUTDOWN_SECONDS)
            await runner.setup()
            try:
                listening = await self._listen(runner)
                self._hub = hub
                self._started.set()
                await self._stop.wait()
                hub.end()
                deadline = hub.loop.time() + SHUTDOWN_SECONDS
                while hub.connections and hub.loop.time() < deadline:
                    await asyncio.sleep(0.02)
                for connection in list(hub.connections):
                    connection.abort()
                listening.close()
            finally:
                await runner.cleanup()

    async def _listen(self, runner: web.AppRunner) -> asyncio.Server:
        """Accept connections, within their limits."""
        server = runner.server
        if server is None:
            raise RuntimeError("the runner has not been set up")
        limit = max_connections()
        counter = self.connections = ConnectionCounter(limit)
        return await asyncio.get_running_loop().create_server(
            lambda: Connection(server, counter), sock=self._socket, backlog=min(MAX_BACKLOG, limit)
        )


class _LoopErrors:
    """Handles the errors of an event loop that no task receives."""

    def __init__(self) -> None:
        self._next_warning = 0.0

    def handle(self, loop: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
        """Log that a connection cannot be accepted, once a minute; asyncio tries again after a second."""
        error = context.get("exception")
        if not (isinstance(error, OSError) and error.errno in _NO_RESOURCES):
            loop.default_exception_handler(context)
        elif loop.time() >= self._next_warning:
            self._next_warning = loop.time() + WARNING_SECONDS
            _log.warning(
                "page: cannot accept connections: %s", error.strerror, extra={"event": "cannot-accept"}
            )
