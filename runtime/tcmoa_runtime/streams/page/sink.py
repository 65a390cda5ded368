"""The page as a sink of a stream."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from tcmoa_runtime.errors import MissingError, TcmoaError
from tcmoa_runtime.install import install_hint
from tcmoa_runtime.streams.interfaces import FusedFrame, SinkError, StreamFormat
from tcmoa_runtime.web.access import choose_token
from tcmoa_runtime.web.address import DEFAULT_HOST, DEFAULT_PORT, Address, ListenError

if TYPE_CHECKING:
    from tcmoa_runtime.streams.page.server import PageServer
    from tcmoa_runtime.streams.stream import Stream

DEFAULT_ADDRESS: Final = f"{DEFAULT_HOST}:{DEFAULT_PORT}"


class Page:
    """Shows a stream in browsers and lets them control its prompt.

        page = Page("127.0.0.1:8080")
        with Stream(fuser, "x.mp4", "y.mp4", sinks=[page]) as stream:
            print(page.url)
            stream.run()

    The port is bound at once and served while the stream runs. On loopback addresses every user of this machine has
    access; on other addresses a token is required. The traffic is not encrypted.

    Attributes:
        token: The required token, or None.
        port: The port that the page listens on.
    """

    name, lossless = "page", False

    def __init__(self, address: str = DEFAULT_ADDRESS, *, token: str | None = None) -> None:
        """Bind the port.

        Args:
            address: HOST, HOST:PORT, :PORT, PORT or [IPv6]:PORT; port 0 is any free port.
            token: Token that browsers need; generated if the address is not on loopback.

        Raises:
            InputError: The address or the token has a wrong form.
            SinkError: The address cannot be bound.
            MissingError: aiohttp is not installed.
        """
        self._address = Address.parse(address, subject="page")
        self.token = choose_token(token, is_loopback=self._address.is_loopback)
        try:
            import aiohttp  # noqa: F401
        except ImportError as error:
            raise MissingError(
                f"the package aiohttp is not installed ({error})",
                subject="page",
                remedy=install_hint("stream"),
            ) from error
        try:
            self._socket = self._address.bind(subject="page")
        except ListenError as error:
            raise SinkError(error.problem, subject=error.subject, remedy=error.remedy) from error
        self.port: int = self._socket.getsockname()[1]
        self._stream: Stream | None = None
        self._server: PageServer | None = None

    @property
    def url(self) -> str:
        """URL to open in a browser, with the token if one is required."""
        token = f"?token={self.token}" if self.token else ""
        return f"http://{self._address.url_host}:{self.port}/{token}"

    def attach(self, stream: Stream) -> None:
        """Set the stream to show; `Stream` calls this before `open`."""
        self._stream = stream

    def open(self, stream_format: StreamFormat) -> None:
        """Start serving."""
        if self._stream is None:
            raise TcmoaError("has no stream", subject="page", remedy="Pass the page to a Stream as a sink")
        from tcmoa_runtime.streams.page.access import page_access
        from tcmoa_runtime.streams.page.server import PageServer
        from tcmoa_runtime.streams.page.stream_info import StreamInfo

        access = page_access(is_loopback=self._address.is_loopback, token=self.token, port=self.port)
        self._server = PageServer(self._socket, access, StreamInfo(self._stream), stream_format)
        self._server.start()

    def write(self, frame: FusedFrame) -> None:
        """Show a frame; does not wait for browsers."""
        if self._server is not None:
            self._server.put(frame)

    def close(self) -> None:
        """Tell the browsers that the stream has ended, and free the port; may be called twice."""
        if self._server is not None:
            self._server.stop()
            self._server = None
        self._socket.close()
