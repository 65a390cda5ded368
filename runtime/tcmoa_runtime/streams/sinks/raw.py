"""Raw video on stdout, for a pipe."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import BinaryIO

import numpy as np

from tcmoa_runtime.images import in_order
from tcmoa_runtime.streams.interfaces import FusedFrame, SinkError, StreamFormat
from tcmoa_runtime.typing import ChannelOrder


class RawVideoSink:
    """Writes uint8 [H, W, 3] in RGB, frame after frame, for `ffmpeg -f rawvideo -pix_fmt rgb24 -s WxH -i -`."""

    name, lossless = "stdout", True

    def __init__(self, stream: BinaryIO | None = None) -> None:
        """Write to a stream, to stdout by default.

        Raises:
            SinkError: stdout is a terminal.
        """
        self._stream: BinaryIO = sys.stdout.buffer if stream is None else stream
        self._is_stdout = stream is None
        self.paths = (Path("/dev/stdout"),) if self._is_stdout else ()
        self._channel_order: ChannelOrder = "rgb"
        if self._is_stdout and sys.stdout.isatty():
            raise SinkError(
                "a terminal; expected a pipe or a file",
                subject=self.name,
                remedy="Append e.g. `| ffplay -f rawvideo -pixel_format rgb24 -video_size 640x480 -`",
            )

    def open(self, stream_format: StreamFormat) -> None:
        """Note the channel order."""
        self._channel_order = stream_format.channel_order

    def write(self, frame: FusedFrame) -> None:
        """Write and flush one frame."""
        try:
            self._stream.write(np.ascontiguousarray(in_order(frame.image, self._channel_order)).data)
            self._stream.flush()
        except BrokenPipeError as error:
            self._discard_buffer()
            raise SinkError("the reader has closed the pipe", subject=self.name) from error
        except OSError as error:
            raise SinkError(f"cannot be written: {error.strerror}", subject=self.name) from error

    def close(self) -> None:
        """Do nothing: every frame was flushed."""

    def _discard_buffer(self) -> None:
        """Redirect stdout to the null device, or Python reports the broken pipe again when it exits."""
        if self._is_stdout:
            null = os.open(os.devnull, os.O_WRONLY)
            os.dup2(null, sys.stdout.fileno())
            os.close(null)
