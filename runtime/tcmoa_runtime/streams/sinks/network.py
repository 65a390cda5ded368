"""Network streams, pushed to a server or to a listener."""

from __future__ import annotations

import contextlib
import time
from typing import TYPE_CHECKING, Final

from tcmoa_runtime.location import connection_remedy, normalize_url, redact
from tcmoa_runtime.log import get_logger
from tcmoa_runtime.options.sink import SinkOptions
from tcmoa_runtime.streams.interfaces import FusedFrame, SinkError, StreamFormat
from tcmoa_runtime.streams.pyav import describe_error, import_av
from tcmoa_runtime.streams.sinks.encoder import Encoder, choose_encoder, encoding_errors

if TYPE_CHECKING:
    from av.container import OutputContainer

CONTAINER_OF_SCHEME: Final = {
    "rtsp": "rtsp",
    "rtp": "rtp_mpegts",
    "udp": "mpegts",
    "srt": "mpegts",
    "tcp": "mpegts",
    "rtmp": "flv",
}
"""FFmpeg's names of containers by the scheme of the URL."""

_MUXER_OPTIONS: Final[dict[str, dict[str, str]]] = {
    "rtsp": {"rtsp_transport": "tcp"},
    "mpegts": {"mpegts_flags": "+resend_headers", "flush_packets": "1"},
    "rtp_mpegts": {"flush_packets": "1"},
    "flv": {"flvflags": "no_duration_filesize"},
}
_MIN_RETRY_SECONDS: Final = 0.5
_MAX_RETRY_SECONDS: Final = 5.0
_log = get_logger("streams")

_TIMEOUT_SECONDS: Final = (5.0, 2.0)
"""Time limits of opening and of reading."""


class NetworkSink:
    """Pushes a low-latency stream; if the network is too slow, frames are dropped and the newest one is sent.

    RTSP and RTMP need a server, TCP and SRT need a listener, UDP and RTP need neither. A lost connection is opened
    again after 0.5 s, then after pauses that double up to 5 s.

    A connection that is lost at the end of the stream is an error.

    Attributes:
        url: The URL, with its passwords.
        dropped: Frames that came while there was no connection.
        reconnects: Number of times the connection was opened again.
    """

    lossless = False

    def __init__(self, url: str, options: SinkOptions) -> None:
        """Check the options.

        Raises:
            SinkError: The container of the protocol cannot hold the codec.
            MissingError: PyAV is not installed.
        """
        self._av = import_av()
        self._errors = encoding_errors()
        self.name, self.url, self._options = redact(url), normalize_url(url), options
        self._container_name = CONTAINER_OF_SCHEME[self.url.partition("://")[0]]
        self._encoder_name = choose_encoder(options, self._container_name, self.name)
        self.dropped = self.reconnects = 0
        self._format: StreamFormat | None = None
        self._container: OutputContainer | None = None
        self._encoder: Encoder | None = None
        self._retry_time, self._retry_delay = 0.0, _MIN_RETRY_SECONDS
        self._loss: str | None = None
        self._lost_frames = 0

    def open(self, stream_format: StreamFormat) -> None:
        """Connect.

        Raises:
            SinkError: The first connection failed.
        """
        self._format = stream_format
        try:
            self._connect(stream_format)
        except self._errors as error:
            self._disconnect()
            raise SinkError(
                f"connection failed: {describe_error(error, self.url)}",
                subject=self.name,
                remedy=connection_remedy(self.url),
            ) from error

    def write(self, frame: FusedFrame) -> None:
        """Send a frame; without a connection, drop it."""
        if self._container is None:
            self._reconnect()
        if self._container is None or self._encoder is None:
            self._drop()
            return
        try:
            for packet in self._encoder.encode(frame):
                self._container.mux(packet)
        except self._errors as error:
            self._loss = describe_error(error, self.url)
            _log.warning(
                "%s: connection lost (%s), reconnecting",
                self.name,
                self._loss,
                extra={"event": "connection-lost", "location": self.name},
            )
            self._disconnect()
            self._drop()
            self._retry_time = time.monotonic() + self._retry_delay

    def close(self) -> None:
        """End the stream and disconnect.

        Raises:
            SinkError: The connection was lost, and the last frames were not sent.
        """
        if self._container is not None and self._encoder is not None:
            with contextlib.suppress(*self._errors):  # the other side may be gone
                for packet in self._encoder.flush():
                    self._container.mux(packet)
        self._disconnect()
        if self._loss is not None:
            loss, self._loss = self._loss, None
            raise SinkError(
                f"connection lost: {loss}; the last {self._lost_frames} frames were not sent",
                subject=self.name,
            )

    def _drop(self) -> None:
        self.dropped += 1
        self._lost_frames += 1

    def _connect(self, stream_format: StreamFormat) -> None:
        self._container = self._av.open(
            self.url,
            "w",
            format=self._container_name,
            options=dict(_MUXER_OPTIONS[self._container_name]),
            timeout=_TIMEOUT_SECONDS,
        )
        self._encoder = Encoder(
            self._container, stream_format, self._encoder_name, self._options, joinable=True
        )
        self._container.start_encoding()

    def _reconnect(self) -> None:
        """Connect again if the pause is over."""
        if self._format is None or time.monotonic() < self._retry_time:
            return
        try:
            self._connect(self._format)
        except self._errors:
            self._disconnect()
            self._retry_delay = min(2 * self._retry_delay, _MAX_RETRY_SECONDS)
            self._retry_time = time.monotonic() + self._retry_delay
        else:
            self._retry_delay = _MIN_RETRY_SECONDS
            self._loss, self._lost_frames = None, 0
            self.reconnects += 1
            _log.warning(
                "%s: connected again", self.name, extra={"event": "reconnected", "location": self.name}
            )

    def _disconnect(self) -> None:
        container, self._container, self._encoder = self._container, None, None
        if container is not None:
            with contextlib.suppress(*self._errors):  # a broken connection cannot be closed properly
                container.close()
