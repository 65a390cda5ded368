"""Pushing to a server or a listener on the network."""

from __future__ import annotations

import contextlib
import time
from typing import Any, Final

from tcmoa_runtime.streams.interfaces import FusedFrame, SinkError, StreamFormat, without_password
from tcmoa_runtime.streams.pyav import import_av, reason
from tcmoa_runtime.streams.sinks import SinkOptions
from tcmoa_runtime.streams.sinks.encoder import Encoder, check_encoder

_CONTAINERS: Final = {
    "rtsp": "rtsp",
    "rtp": "rtp_mpegts",
    "udp": "mpegts",
    "srt": "mpegts",
    "tcp": "mpegts",
    "rtmp": "flv",
}
_OPTIONS: Final[dict[str, dict[str, str]]] = {
    "rtsp": {"rtsp_transport": "tcp"},
    "mpegts": {"mpegts_flags": "+resend_headers", "flush_packets": "1"},
    "rtp_mpegts": {"flush_packets": "1"},
    "flv": {"flvflags": "no_duration_filesize"},
}
_FIRST_PAUSE, _LONGEST_PAUSE = 0.5, 5.0
_TIMEOUT: Final = (5.0, 2.0)


class Push:
    """A network stream with as little delay as its codec allows; the newest frame wins where the network is slow.

    RTSP and RTMP want a server, TCP and SRT a listener, UDP and RTP nobody. When the other side goes away it is tried
    again, with pauses of up to 5 s; frames that come meanwhile are counted in `dropped`. The first connection must
    work, or SinkError is raised.
    """

    lossless = False

    def __init__(self, url: str, options: SinkOptions) -> None:
        """Raises SinkError where the codec does not fit, MissingError without PyAV."""
        self._av = import_av()
        self.name, self._url, self._options = without_password(url), url, options
        self._container_name = _CONTAINERS[url.partition("://")[0]]
        self._encoder_name = check_encoder(options.codec, self.name, self._container_name)
        self.dropped = self.reconnects = 0
        self._form: StreamFormat | None = None
        self._container: Any = None
        self._encoder: Encoder | None = None
        self._again_at, self._pause = 0.0, _FIRST_PAUSE
        self._first_pts: int | None = None

    def open(self, form: StreamFormat) -> None:
        """Connect; raises SinkError."""
        self._form = form
        try:
            self._connect(form)
        except (self._av.FFmpegError, OSError, ValueError) as error:
            self._drop_connection()
            raise SinkError(f"{self.name}: cannot be pushed to: {reason(error, self._url)}") from error

    def write(self, frame: FusedFrame) -> None:
        """Send a frame, or count it where there is no connection now."""
        if self._container is None and not self._reconnected():
            self.dropped += 1
            return
        if self._encoder is None:
            return
        try:
            for packet in self._encoder.encode(frame):
                self._container.mux(packet)
        except (self._av.FFmpegError, OSError, ValueError):
            self._drop_connection()
            self.dropped += 1
            self._again_at = time.monotonic() + self._pause

    def close(self) -> None:
        """End the stream."""
        if self._encoder is not None:
            with contextlib.suppress(self._av.FFmpegError, OSError, ValueError):  # nobody listens any more
                for packet in self._encoder.encode(None):
                    self._container.mux(packet)
        self._drop_connection()

    def _connect(self, form: StreamFormat) -> None:
        options = {**_OPTIONS.get(self._container_name, {})}
        self._container = self._av.open(
            self._url, "w", format=self._container_name, options=options, timeout=_TIMEOUT
        )
        self._encoder = Encoder(
            self._container,
            form,
            self._encoder_name,
            quality=self._options.quality,
            options=self._options.encoder_options,
            low_latency=True,
        )
        self._container.start_encoding()

    def _reconnected(self) -> bool:
        if self._form is None or time.monotonic() < self._again_at:
            return False
        try:
            self._connect(self._form)
        except (self._av.FFmpegError, OSError, ValueError):
            self._drop_connection()
            self._pause = min(2 * self._pause, _LONGEST_PAUSE)
            self._again_at = time.monotonic() + self._pause
            return False
        self._pause = _FIRST_PAUSE
        self.reconnects += 1
        return True

    def _drop_connection(self) -> None:
        container, self._container, self._encoder = self._container, None, None
        if container is not None:
            with contextlib.suppress(self._av.FFmpegError, OSError, ValueError):  # that is why it is dropped
                container.close()
