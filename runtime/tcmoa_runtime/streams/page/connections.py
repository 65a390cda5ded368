"""Limits of connections: how many may be open, and how long each may take to send a request and to read the response.

aiohttp limits the size of headers and bodies and closes idle connections. It has no limit on the number of connections
and none on the time of a request line with its headers, which a client can send byte by byte.
"""

from __future__ import annotations

import asyncio
from http import HTTPStatus

from aiohttp import web

from tcmoa_runtime.log import get_logger
from tcmoa_runtime.web import connections as limits
from tcmoa_runtime.web.connections import ConnectionCounter, client_network, raw_refusal

_log = get_logger("page")


class Connection(web.RequestHandler):
    """A connection of aiohttp's server, with a place in the count of connections and a deadline for its headers."""

    def __init__(self, server: web.Server, counter: ConnectionCounter) -> None:
        """Create the protocol of one connection.

        Args:
            server: aiohttp's server.
            counter: Open connections.
        """
        super().__init__(
            server,
            loop=asyncio.get_running_loop(),
            keepalive_timeout=limits.KEEPALIVE_SECONDS,
            lingering_time=limits.LINGERING_SECONDS,
            access_log=None,  # type: ignore[arg-type]  # None is no log of requests, as in `AppRunner`
            auto_decompress=False,
        )
        self._counter = counter
        self._network: str | None = None
        self._timer: asyncio.TimerHandle | None = None
        self._client: asyncio.Transport
        self._has_partial_request = False

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Start to serve the connection, or answer 503 if there is no place for it."""
        assert isinstance(transport, asyncio.Transport)
        self._client = transport
        network = client_network(transport.get_extra_info("peername"))
        refusal = self._counter.add(network)
        if refusal is not None:
            self._refuse(HTTPStatus.SERVICE_UNAVAILABLE, refusal)
            return
        self._network = network
        super().connection_made(transport)
        self._set_deadline(limits.HEADER_SECONDS)

    def data_received(self, data: bytes) -> None:
        """Parse data; a refused connection has none."""
        if self._network is not None:
            self._has_partial_request = True
            super().data_received(data)

    def connection_lost(self, exc: BaseException | None) -> None:
        """Free the place of the connection."""
        self._cancel_deadline()
        if self._network is not None:
            self._counter.remove(self._network)
            super().connection_lost(exc)

    def begin_request(self) -> None:
        """End the time for headers; called when those of a request are complete."""
        self._cancel_deadline()

    def end_request(self) -> None:
        """Begin the time for the next request; called after a response."""
        self._has_partial_request = False
        self._set_deadline(limits.IDLE_SECONDS)

    def handle_error(
        self,
        request: web.BaseRequest,
        status: int = 500,
        exc: BaseException | None = None,
        message: str | None = None,
    ) -> web.StreamResponse:
        """Answer what no handler has seen, mostly requests that are not HTTP, in one line and without a traceback."""
        if request.writer.output_size > 0:  # the response has begun
            raise ConnectionError from exc
        if status >= HTTPStatus.INTERNAL_SERVER_ERROR:
            _log.error(
                "page: a request failed (%s)",
                type(exc).__name__,
                exc_info=exc,
                extra={"event": "request-failed"},
            )
        lines = [line.strip() for line in (message or "").splitlines() if line.strip()]
        reason = lines[0].rstrip(":") if lines else HTTPStatus(status).phrase
        response = web.Response(status=status, text=f"request: {reason[:200]}\n")
        response.force_close()
        return response

    def _set_deadline(self, seconds: float) -> None:
        self._cancel_deadline()
        self._timer = asyncio.get_running_loop().call_later(seconds, self._on_deadline)

    def _cancel_deadline(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _on_deadline(self) -> None:
        self._timer = None
        if self._has_partial_request and not self._client.is_closing():
            self._refuse(HTTPStatus.REQUEST_TIMEOUT, "request: its headers were not complete in time.")
        else:
            self._client.abort()

    def _refuse(self, status: HTTPStatus, line: str) -> None:
        """Send one line and close the connection, whether or not the client reads it."""
        self._client.write(raw_refusal(status, line))
        self._client.close()
        asyncio.get_running_loop().call_later(limits.CLOSE_SECONDS, self._client.abort)
