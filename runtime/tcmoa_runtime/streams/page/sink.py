"""The page as a sink of a stream."""

from __future__ import annotations

import re
import secrets
import socket
from typing import TYPE_CHECKING, Any, Final

from tcmoa_runtime.errors import InputError, MissingError, TcmoaError
from tcmoa_runtime.streams.control import PromptControl
from tcmoa_runtime.streams.interfaces import FusedFrame, StreamFormat
from tcmoa_runtime.streams.page.address import Address

if TYPE_CHECKING:
    from tcmoa_runtime.streams.page.server import PageServer
    from tcmoa_runtime.streams.stream import Stream

SHORTEST_TOKEN: Final = 8
_TOKEN: Final = re.compile(rf"[A-Za-z0-9._~-]{{{SHORTEST_TOKEN},}}")
"""What means itself in URLs, cookies and headers alike."""


class Page:
    """Shows a stream in browsers, and lets them steer it.

        page = Page("127.0.0.1:8080")
        with Stream(fuser, "x.mp4", "y.mp4", sinks=[page]) as stream:
            print(page.url)
            stream.run()

    Its port is taken at once, and served while the stream runs. On loopback addresses it is open to whoever is on this
    machine; elsewhere a token is needed, made up when none is given. Traffic is not encrypted.
    """

    lossless = False

    def __init__(self, address: str = "127.0.0.1:8080", *, token: str | None = None) -> None:
        """`address` as `Address.parse` reads it.

        Raises InputError on a wrong address or token, SinkError when the port cannot be had, MissingError without
        aiohttp.
        """
        self._address = Address.parse(address)
        if token is not None and not _TOKEN.fullmatch(token):
            raise InputError(
                f"token has {len(token)} characters: expected {SHORTEST_TOKEN} or more, of letters, digits, - . _ and ~"
            )
        try:
            import aiohttp  # noqa: F401
        except ImportError as error:
            raise MissingError(
                f"the page needs the package aiohttp ({error}); run `pip install 'tcmoa[stream]'`"
            ) from error
        self.token = token if token or self._address.loopback else secrets.token_urlsafe(16)
        self._socket = self._address.bind()
        self.port: int = self._socket.getsockname()[1]
        self._stream: Stream | None = None
        self._server: PageServer | None = None

    @property
    def name(self) -> str:
        """`page`, under which frames it could not take are counted."""
        return "page"

    @property
    def url(self) -> str:
        """What to open in a browser, with the token where one is needed."""
        host = self._address.host
        if host in ("0.0.0.0", "::"):
            host = socket.gethostname()
        shown = f"[{host}]" if ":" in host else host
        return f"http://{shown}:{self.port}/" + (f"?token={self.token}" if self.token else "")

    def attach(self, stream: Stream) -> None:
        """The stream that is shown and steered; `Stream` calls it."""
        self._stream = stream

    def open(self, form: StreamFormat) -> None:
        """Start serving."""
        if self._stream is None:
            raise TcmoaError("a page shows a Stream; give it to one as a sink")
        from tcmoa_runtime.streams.page.access import Access
        from tcmoa_runtime.streams.page.server import PageServer

        access = Access(self._address.loopback, self.token, self.port)
        self._server = PageServer(self._socket, access, _Shown(self._stream), form)
        self._server.start()

    def write(self, frame: FusedFrame) -> None:
        """Show a frame; waits for no browser."""
        if self._server is not None:
            self._server.put(frame)

    def close(self) -> None:
        """Tell the browsers that the stream has ended, and free the port. May be called twice."""
        if self._server is not None:
            self._server.stop()
            self._server = None
        self._socket.close()


class _Shown:
    """What the page needs of a stream."""

    def __init__(self, stream: Stream) -> None:
        self._stream = stream

    @property
    def control(self) -> PromptControl:
        return self._stream.control

    def figures(self) -> dict[str, Any]:
        return self._stream.stats.snapshot()

    def about(self) -> dict[str, Any]:
        bundle, form = self._stream.fuser.bundle, self._stream.format
        return {
            "x": self._stream.sources["x"].name,
            "y": self._stream.sources["y"].name,
            "task": bundle.task,
            "roles": bundle.roles,
            "backend": self._stream.fuser.backend.name,
            "live": form.live,
            "width": form.width,
            "height": form.height,
            "prompts": bundle.contract.prompts if bundle.contract.with_prompt else 0,
        }
