"""Running the service under uvicorn, until it is stopped: first it takes no more requests, then those taken end."""

from __future__ import annotations

import asyncio
import contextlib
import socket
from collections.abc import Callable, Iterator
from typing import Final

import uvicorn
from starlette.applications import Starlette

from tcmoa_runtime.log import get_logger
from tcmoa_runtime.serving.application import Service
from tcmoa_runtime.serving.connection import Connection, limited_protocol
from tcmoa_runtime.web.connections import KEEPALIVE_SECONDS, MAX_BACKLOG, ConnectionCounter, max_connections

CLOSE_SECONDS: Final = 2.0
"""Time for the answers to requests that are cut off, and for connections to close."""
_POLL_SECONDS: Final = 0.02

_log = get_logger("service")


class _Server(uvicorn.Server):
    """A server of uvicorn that leaves signals to its caller."""

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        yield


class ServiceServer:
    """Serves an application of `make_application` on one listening socket."""

    def __init__(self, app: Starlette, listener: socket.socket) -> None:
        """Prepare to serve; the server closes the socket."""
        self._service: Service = app.state.service
        self._listener = listener
        limit = max_connections()
        self.connections = ConnectionCounter(limit)
        self._server = _Server(
            uvicorn.Config(
                app,
                http=limited_protocol(self.connections),
                ws="none",
                lifespan="off",
                log_config=None,
                access_log=False,
                proxy_headers=False,  # others would be counted under the address that they choose
                server_header=False,
                timeout_keep_alive=int(KEEPALIVE_SECONDS),
                timeout_graceful_shutdown=int(CLOSE_SECONDS),
                backlog=min(MAX_BACKLOG, limit),
            )
        )
        self._stopping, self._aborting = asyncio.Event(), asyncio.Event()
        self._loop: asyncio.AbstractEventLoop | None = None

    def run(self, grace: float, on_started: Callable[[], None] | None = None) -> bool:
        """Serve until `stop` is called.

        Args:
            grace: Seconds that requests have to end then.
            on_started: Called when connections are accepted.

        Returns:
            Whether all requests have ended in that time.
        """
        loop_factory = self._server.config.get_loop_factory()
        with asyncio.Runner(loop_factory=loop_factory) as runner:
            return runner.run(self._serve(grace, on_started))

    def stop(self) -> None:
        """Begin to stop; may be called from any thread and from a signal handler. A second call cuts requests off."""
        if self._loop is None:  # nothing waits yet
            self._stop_once()
        else:
            with contextlib.suppress(RuntimeError):  # the loop has been closed
                self._loop.call_soon_threadsafe(self._stop_once)

    def _stop_once(self) -> None:
        (self._aborting if self._stopping.is_set() else self._stopping).set()

    @property
    def _sending(self) -> list[Connection]:
        """Connections with a response that has not been sent to its end."""
        connections = self._server.server_state.connections
        return [found for found in connections if isinstance(found, Connection) and found.is_sending]

    async def _cut_off(self) -> None:
        """Let the requests that have not ended be answered with 503, and abort the connections that do not read."""
        tasks = list(self._server.server_state.tasks)
        for task in tasks:
            task.cancel()
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(CLOSE_SECONDS):
                if tasks:
                    await asyncio.wait(tasks)
                await self._wait_until_sent()
        for connection in self._sending:
            connection.transport.abort()

    async def _wait_until_sent(self) -> None:
        while self._sending:
            await asyncio.sleep(_POLL_SECONDS)

    async def _end_requests(self, grace: float) -> bool:
        """Take no more requests; return whether those that were taken were answered, and the answers sent, in time."""
        try:
            async with asyncio.timeout(grace):
                if not await self._service.stop(grace):
                    return False
                await self._wait_until_sent()
        except TimeoutError:
            return False
        return True

    async def _serve(self, grace: float, on_started: Callable[[], None] | None) -> bool:
        self._loop = asyncio.get_running_loop()
        serving = asyncio.create_task(self._server.serve([self._listener]))
        stopping = asyncio.create_task(self._stopping.wait())
        while not self._server.started and not serving.done():
            await asyncio.sleep(_POLL_SECONDS)
        if self._server.started and on_started is not None:
            on_started()
        await asyncio.wait((serving, stopping), return_when=asyncio.FIRST_COMPLETED)
        stopping.cancel()
        has_ended = await self._wait_for_requests(grace)
        if not has_ended:
            await self._cut_off()
        self._server.should_exit = True
        await serving
        return has_ended

    async def _wait_for_requests(self, grace: float) -> bool:
        """Take no more requests; return whether those that were taken have ended in time, and before a second stop."""
        ending = asyncio.create_task(self._end_requests(grace))
        aborting = asyncio.create_task(self._aborting.wait())
        await asyncio.wait((ending, aborting), return_when=asyncio.FIRST_COMPLETED)
        aborting.cancel()
        if not ending.done():
            ending.cancel()
            return False
        if not ending.result():
            _log.warning(
                "service: requests had not ended after %g s, and were cut off",
                grace,
                extra={"event": "requests-cut-off", "seconds": grace},
            )
        return ending.result()
