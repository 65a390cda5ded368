"""Raw frames on stdout, for a pipe."""

from __future__ import annotations

import os
import sys
from typing import Any, BinaryIO

import numpy as np

from tcmoa_runtime.streams.interfaces import FusedFrame, SinkError, StreamFormat


class RawOut:
    """uint8 [H, W, 3] after one another, red first, as `ffmpeg -f rawvideo -pix_fmt rgb24 -s WxH -i -` reads them."""

    name, lossless = "stdout", True

    def __init__(self, stream: BinaryIO | None = None) -> None:
        """`stream` is stdout when not given. Raises SinkError where that is a terminal."""
        self._stream: Any = sys.stdout.buffer if stream is None else stream
        self._ours = stream is None
        self._flip = False
        if self._ours and sys.stdout.isatty():
            raise SinkError(
                "-: stdout is a terminal; pipe it, as | ffplay -f rawvideo -pixel_format rgb24 ..."
            )

    def open(self, form: StreamFormat) -> None:
        """Nothing to get ready but the channel order."""
        self._flip = form.channel_order == "bgr"

    def write(self, frame: FusedFrame) -> None:
        """Write one frame, whole."""
        image = frame.image[..., ::-1] if self._flip else frame.image
        try:
            self._stream.write(np.ascontiguousarray(image).data)
            self._stream.flush()
        except BrokenPipeError as error:
            self._give_up()
            raise SinkError("stdout: whoever read it has gone") from error
        except OSError as error:
            raise SinkError(f"stdout: cannot be written: {error.strerror}") from error

    def close(self) -> None:
        """Nothing: each frame was flushed."""

    def _give_up(self) -> None:
        """What Python still holds goes nowhere, or it would complain of the broken pipe when it ends."""
        if self._ours:
            nowhere = os.open(os.devnull, os.O_WRONLY)
            os.dup2(nowhere, sys.stdout.fileno())
            os.close(nowhere)
