"""What a viewer is shown: the fused picture, or a comparison with the sources."""

from __future__ import annotations

from dataclasses import replace
from typing import Final

import numpy as np

from tcmoa_runtime.errors import InputError
from tcmoa_runtime.images import resize_frame
from tcmoa_runtime.streams.interfaces import FusedFrame, Sink, SourceFrame, StreamFormat
from tcmoa_runtime.typing import Frame

VIEWS: Final = ("fused", "side-by-side", "blend")
"""fused: as it is. side-by-side: x, fused, y in a row. blend: the plain average of x and y on the left half, what one
would see without the model, and the fused picture on the right one."""


def check_view(view: str) -> str:
    """`view`, or InputError."""
    if view not in VIEWS:
        raise InputError(f"view is {view!r}: expected {', '.join(VIEWS)}")
    return view


def compose(frame: FusedFrame, view: str) -> Frame:
    """The picture uint8 [H, W, 3] of a view, [H, 3 W, 3] side by side; a source that is missing is black."""
    if view == "fused":
        return frame.image
    x, y = (_beside(source, frame.image) for source in (frame.x, frame.y))
    if view == "side-by-side":
        return np.concatenate([x, frame.image, y], axis=1)
    image, half = frame.image.copy(), frame.image.shape[1] // 2
    both = (x[:, :half].astype(np.uint16) + y[:, :half] + 1) // 2
    image[:, :half] = both.astype(np.uint8)
    return image


def _beside(source: SourceFrame | None, fused: Frame) -> Frame:
    """A source as a frame of the size of the fused one."""
    if source is None:
        return np.zeros_like(fused)
    image = source.image
    if image.shape[:2] != fused.shape[:2]:
        image = resize_frame(image, (fused.shape[0], fused.shape[1]))
    return image if image.ndim == 3 else np.repeat(image[..., None], 3, axis=2)


class Viewed:
    """A sink that shows another view than the fused picture to the sink that it wraps."""

    def __init__(self, sink: Sink, view: str) -> None:
        self._sink, self._view = sink, check_view(view)
        self.name, self.lossless = sink.name, sink.lossless

    def open(self, form: StreamFormat) -> None:
        """Open the sink for pictures of the view's size."""
        width = form.width * (3 if self._view == "side-by-side" else 1)
        self._sink.open(replace(form, width=width))

    def write(self, frame: FusedFrame) -> None:
        """Compose, and hand on."""
        self._sink.write(replace(frame, image=compose(frame, self._view)))

    def close(self) -> None:
        """Close the sink."""
        self._sink.close()
