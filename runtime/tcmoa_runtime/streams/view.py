"""Views of a stream: the fused frame, or a comparison with the sources."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import get_args

import numpy as np

from tcmoa_runtime.images import resize_frame
from tcmoa_runtime.options.option import check_choice
from tcmoa_runtime.options.sink import View
from tcmoa_runtime.streams.interfaces import FusedFrame, Sink, SourceFrame, StreamFormat
from tcmoa_runtime.typing import Frame


def compose(frame: FusedFrame, view: View) -> Frame:
    """Return the image of a view, uint8 [H, W, 3], or [H, 3 W, 3] side by side; a missing source is black."""
    if view == "fused":
        return frame.image
    x, y = (_match_fused(source, frame.image) for source in (frame.x, frame.y))
    if view == "side-by-side":
        return np.concatenate([x, frame.image, y], axis=1)
    image, half = frame.image.copy(), frame.image.shape[1] // 2
    average = (x[:, :half].astype(np.uint16) + y[:, :half] + 1) // 2
    image[:, :half] = average.astype(np.uint8)
    return image


def _match_fused(source: SourceFrame | None, fused: Frame) -> Frame:
    """Return a source's image with the size and the three channels of the fused one."""
    if source is None:
        return np.zeros_like(fused)
    image = source.image
    if image.shape[:2] != fused.shape[:2]:
        image = resize_frame(image, (fused.shape[0], fused.shape[1]))
    return image if image.ndim == 3 else np.repeat(image[..., None], 3, axis=2)


class ViewSink:
    """A sink that composes a view of each frame and passes it to another sink."""

    def __init__(self, sink: Sink, view: View) -> None:
        """Wrap a sink.

        Raises:
            InputError: `view` is not a view.
        """
        check_choice("view", view, get_args(View))
        self._sink, self._view = sink, view
        self.name, self.lossless = sink.name, sink.lossless

    @property
    def dropped(self) -> int:
        """Frames that the sink itself dropped."""
        return int(getattr(self._sink, "dropped", 0))

    @property
    def paths(self) -> Sequence[Path]:
        """Files and folders that the sink writes."""
        return tuple(getattr(self._sink, "paths", ()))

    @property
    def url(self) -> str | None:
        """URL to which the sink pushes; None for other sinks."""
        url: str | None = getattr(self._sink, "url", None)
        return url

    def open(self, stream_format: StreamFormat) -> None:
        """Open the sink for images of the view's size."""
        width = stream_format.width * (3 if self._view == "side-by-side" else 1)
        self._sink.open(replace(stream_format, width=width))

    def write(self, frame: FusedFrame) -> None:
        """Compose the view and write it."""
        self._sink.write(replace(frame, image=compose(frame, self._view)))

    def close(self) -> None:
        """Close the sink."""
        self._sink.close()
