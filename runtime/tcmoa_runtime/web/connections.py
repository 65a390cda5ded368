"""Limits of connections: how many may be open, and how long each may take to send and to read."""

from __future__ import annotations

import ipaddress
from collections import Counter
from http import HTTPStatus
from typing import Final

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
CLOSE_SECONDS: Final = 1.0
"""Time for which a refused client may read its answer."""


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


def raw_refusal(status: HTTPStatus, line: str) -> bytes:
    """Return the bytes of a response that refuses a connection in one line and closes it."""
    body = f"{line}\n".encode()
    head = (
        f"HTTP/1.1 {status.value} {status.phrase}\r\nContent-Type: text/plain; charset=utf-8\r\n"
        f"Content-Length: {len(body)}\r\nConnection: close\r\nCache-Control: no-store\r\n\r\n"
    )
    return head.encode() + body
