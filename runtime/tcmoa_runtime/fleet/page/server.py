"""The server of the page: uvicorn on its own thread."""

from __future__ import annotations

import socket
import threading
import time
from typing import Final

import uvicorn

from tcmoa_runtime.errors import TcmoaError
from tcmoa_runtime.fleet.page.application import FleetSource, fleet_document, make_application
from tcmoa_runtime.serving.connection import limited_protocol
from tcmoa_runtime.web.access import Access, choose_token
from tcmoa_runtime.web.address import Address
from tcmoa_runtime.web.connections import KEEPALIVE_SECONDS, MAX_BACKLOG, ConnectionCounter, max_connections

START_S: Final = 30.0
STOP_S: Final = 3.0
_SUBJECT: Final = "page of the fleet"


class FleetPage:
    """Serves the page of one fleet on one listening socket, which is bound at once.

    Attributes:
        url: URL to open in a browser, with the token if one is required.
    """

    def __init__(self, address: Address, token: str | None) -> None:
        """Bind the port.

        Args:
            address: What it listens on.
            token: Token that browsers need; generated if the address is not on loopback.

        Raises:
            InputError: The token has a wrong form.
            ListenError: The address cannot be listened on.
        """
        self._address = address
        self._token = choose_token(token, is_loopback=address.is_loopback)
        fleet_document()  # read before descriptors may run out
        self._socket: socket.socket = address.bind(subject=_SUBJECT)
        self._port: int = self._socket.getsockname()[1]
        self.url = f"http://{address.url_host}:{self._port}/" + (
            f"?token={self._token}" if self._token else ""
        )
        self._server: uvicorn.Server | None = None
        self._thread: threading.Thread | None = None

    def start(self, source: FleetSource) -> None:
        """Serve a fleet until `close`."""
        access = Access(
            is_loopback=self._address.is_loopback,
            token=self._token,
            port=self._port,
            subject="page",
            use="read this fleet",
            token_hint="Open the URL that `tcmoa fleet` printed",
        )
        limit = max_connections()
        config = uvicorn.Config(
            make_application(source, access),
            http=limited_protocol(ConnectionCounter(limit)),
            ws="none",
            lifespan="off",
            log_config=None,
            access_log=False,
            proxy_headers=False,
            server_header=False,
            timeout_keep_alive=int(KEEPALIVE_SECONDS),
            timeout_graceful_shutdown=1,
            backlog=min(MAX_BACKLOG, limit),
        )
        server = self._server = uvicorn.Server(config)
        self._thread = threading.Thread(
            target=server.run, args=([self._socket],), name="tcmoa-fleet-page", daemon=True
        )
        self._thread.start()
        deadline = time.monotonic() + START_S
        while not server.started:
            if not self._thread.is_alive() or time.monotonic() > deadline:
                raise TcmoaError("did not start", subject=_SUBJECT)
            time.sleep(0.01)

    def close(self) -> None:
        """Free the port; may be called twice."""
        if self._server is not None and self._thread is not None:
            self._server.should_exit = True
            self._thread.join(STOP_S)
        self._socket.close()
