"""Connections of uvicorn, with limits that it has not: their number, the time of a request's headers and of reading."""

from __future__ import annotations

import asyncio
from http import HTTPStatus
from typing import Any, Final

from uvicorn.config import Config
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol
from uvicorn.server import ServerState

from tcmoa_runtime.web import connections as limits
from tcmoa_runtime.web.connections import ConnectionCounter, client_network, raw_refusal

MAX_HEAD_BYTES: Final = 32 << 10
"""Bytes of a request line with its headers."""


def limited_protocol(counter: ConnectionCounter) -> type[HttpToolsProtocol]:
    """Return the class of connections that count themselves.

    Args:
        counter: Open connections.
    """

    class Counted(Connection):
        def __init__(
            self,
            config: Config,
            server_state: ServerState,
            app_state: dict[str, Any],
            _loop: asyncio.AbstractEventLoop | None = None,
        ) -> None:
            super().__init__(config, server_state, app_state, _loop)
            self.counter = counter

    return Counted


class Connection(HttpToolsProtocol):
    """A connection of uvicorn, with a place in the count of connections and deadlines."""

    counter: ConnectionCounter
    _network: str | None = None
    _deadline: asyncio.TimerHandle | None = None
    _write_deadline: asyncio.TimerHandle | None = None
    _head_bytes = 0
    """Bytes received of a head that is not complete."""
    _parsed_bytes = 0
    """Bytes of the URL and the headers that were parsed."""
    _is_in_head = True

    @property
    def is_sending(self) -> bool:
        """Whether a response has not been sent to its end."""
        is_responding = self.cycle is not None and not self.cycle.response_complete
        return is_responding or self.transport.get_write_buffer_size() > 0

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]  # as uvicorn's
        """Start to serve the connection, or answer 503 if there is no place for it."""
        network = client_network(transport.get_extra_info("peername"))
        refusal = self.counter.add(network)
        if refusal is not None:
            self.transport = transport
            self._refuse(HTTPStatus.SERVICE_UNAVAILABLE, refusal)
            return
        self._network = network
        super().connection_made(transport)
        self._set_deadline(limits.HEADER_SECONDS)

    def connection_lost(self, exc: Exception | None) -> None:
        """Free the place of the connection."""
        self._cancel_deadlines()
        if self._network is not None:
            self.counter.remove(self._network)
            super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        """Parse data; a refused connection has none."""
        if self._network is None or self.transport.is_closing():
            return
        if self._is_in_head:
            self._head_bytes += len(data)
        super().data_received(data)
        if self._is_in_head and self._head_bytes > MAX_HEAD_BYTES:
            self._refuse_head()

    def on_message_begin(self) -> None:
        """Begin the head of a request."""
        self._is_in_head = True
        self._parsed_bytes = 0
        super().on_message_begin()

    def on_url(self, url: bytes) -> None:
        """Take a part of the URL."""
        self._parsed_bytes += len(url)
        super().on_url(url)

    def on_header(self, name: bytes, value: bytes) -> None:
        """Take a header."""
        self._parsed_bytes += len(name) + len(value)
        super().on_header(name, value)

    def on_headers_complete(self) -> None:
        """End the time for headers."""
        self._is_in_head, self._head_bytes = False, 0
        if self._parsed_bytes > MAX_HEAD_BYTES:
            self._refuse_head()
            return
        if self._deadline is not None:
            self._deadline.cancel()
            self._deadline = None
        super().on_headers_complete()

    def on_response_complete(self) -> None:
        """Begin the time for the next request, unless a client has sent it before this response."""
        super().on_response_complete()
        is_next_begun = self.cycle is not None and not self.cycle.response_complete
        if not is_next_begun and not self.transport.is_closing():
            self._is_in_head = True
            self._set_deadline(limits.IDLE_SECONDS)

    def send_400_response(self, msg: str) -> None:
        """Answer a request that is not HTTP, in one line."""
        self._refuse(HTTPStatus.BAD_REQUEST, f"request: {msg}")

    def pause_writing(self) -> None:
        """Begin the time that the client has to read."""
        super().pause_writing()
        self._write_deadline = self.loop.call_later(limits.WRITE_SECONDS, self.transport.abort)

    def resume_writing(self) -> None:
        """End the time that the client has to read."""
        super().resume_writing()
        if self._write_deadline is not None:
            self._write_deadline.cancel()
            self._write_deadline = None

    def _set_deadline(self, seconds: float) -> None:
        if self._deadline is not None:
            self._deadline.cancel()
        self._deadline = self.loop.call_later(seconds, self._on_deadline)

    def _cancel_deadlines(self) -> None:
        for timer in (self._deadline, self._write_deadline):
            if timer is not None:
                timer.cancel()
        self._deadline = self._write_deadline = None

    def _on_deadline(self) -> None:
        self._deadline = None
        if self._head_bytes:
            self._refuse(HTTPStatus.REQUEST_TIMEOUT, "request: its headers were not complete in time.")
        else:
            self.transport.abort()

    def _refuse_head(self) -> None:
        self._refuse(
            HTTPStatus.REQUEST_HEADER_FIELDS_TOO_LARGE,
            f"request: its headers are longer than {MAX_HEAD_BYTES} bytes.",
        )

    def _refuse(self, status: HTTPStatus, line: str) -> None:
        """Send one line and close the connection, whether or not the client reads it."""
        if self.transport.is_closing():
            return
        self.transport.write(raw_refusal(status, line))
        self.transport.close()
        self.loop.call_later(limits.CLOSE_SECONDS, self.transport.abort)
