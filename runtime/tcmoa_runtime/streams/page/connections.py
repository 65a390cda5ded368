"""Limits of connections: how many may be open, and how long each may take to send a request and to read the response.

aiohttp limits the size of headers and bodies and closes idle connections. It has no limit on the number of connections
and none on the time of a request line with its headers, which a client can send byte by byte.
"""

from __future__ import annotations

import asyncio
import ipaddress
import logging
from collections import Counter
from http import HTTPStatus
from typing import Final

from aiohttp import web

MAX_CONNECTIONS: Final = 128
MAX_CONNECTIONS_PER_ADDRESS: Final = 32
"""A browser opens up to 7 for a page: 6 for requests and its WebSocket."""
DESCRIPTOR_SHARE: Final = 4
"""Connections take at most one in this many of the descriptors that the process may open; the stream needs others."""
MAX_BACKLOG: Final = 32
"""Connections that wait to be accepted; all of them are accepted at once, before the first is counted."""

HEADER_SECONDS: Final = 10.0
"""Time from the connection to the end of the headers of its first request."""
IDLE_SECONDS: Final = 30.0
"""Time from a response to the end of the headers of the next request."""
KEEPALIVE_SECONDS: Final = 15.0
"""Time from a response to the first byte of the next request."""
WRITE_SECONDS: Final = 30.0
"""Time that a client may take to read a response."""
LINGERING_SECONDS: Final = 2.0
"""Time for which the rest of a body that no handler has read is read and dropped."""
_CLOSE_SECONDS: Final = 1.0

_log = logging.getLogger("tcmoa")


def max_connections() -> int:
    """Return how many connections this process may serve: 128, or a quarter of its descriptors if that is less."""
    try:
        import resource
    except ImportError:  # Windows, where sockets are no descriptors
        return MAX_CONNECTIONS
    descriptors, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    if descriptors == resource.RLIM_INFINITY:
        return MAX_CONNECTIONS
    return max(1, min(MAX_CONNECTIONS, descriptors // DESCRIPTOR_SHARE))


def client_network(peer: object) -> str:
    """Return what limits count by: the IPv4 address of a client, or the /64 network of its IPv6 address.

    Args:
        peer: Address of the other end of a socket: (host, port, ...).
    """
    host = str(peer[0]) if isinstance(peer, tuple) and peer else ""
    try:
        address = ipaddress.ip_address(host.partition("%")[0])
    except ValueError:
        return host
    if isinstance(address, ipaddress.IPv6Address):
        if address.ipv4_mapped is not None:
            return str(address.ipv4_mapped)
        return str(ipaddress.ip_network((address, 64), strict=False))
    return str(address)


class ConnectionCounter:
    """Number of open connections, in all and by network."""

    def __init__(self, max_total: int, max_per_address: int = MAX_CONNECTIONS_PER_ADDRESS) -> None:
        """Count from zero."""
        self._max_total, self._max_per_address = max_total, max_per_address
        self._counts: Counter[str] = Counter()

    def add(self, network: str) -> str | None:
        """Count a connection, or return why there is no place for it."""
        if self._counts[network] >= self._max_per_address:
            return f"connections: {self._max_per_address} are open from your address, which is the maximum."
        if self.total >= self._max_total:
            return f"connections: {self._max_total} are open, which is the maximum."
        self._counts[network] += 1
        return None

    @property
    def total(self) -> int:
        """Number of open connections."""
        return self._counts.total()

    def remove(self, network: str) -> None:
        """Count the end of a connection."""
        self._counts[network] -= 1
        if self._counts[network] <= 0:
            del self._counts[network]


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
            keepalive_timeout=KEEPALIVE_SECONDS,
            lingering_time=LINGERING_SECONDS,
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
        self._set_deadline(HEADER_SECONDS)

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
        self._set_deadline(IDLE_SECONDS)

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
            _log.error("page: a request failed (%s)", type(exc).__name__, exc_info=exc)
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
        body = f"{line}\n".encode()
        self._client.write(
            f"HTTP/1.1 {status.value} {status.phrase}\r\nContent-Type: text/plain; charset=utf-8\r\n"
            f"Content-Length: {len(body)}\r\nConnection: close\r\nCache-Control: no-store\r\n\r\n".encode()
            + body
        )
        self._client.close()
        asyncio.get_running_loop().call_later(_CLOSE_SECONDS, self._client.abort)
