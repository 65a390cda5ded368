"""Errors about the sizes of frames, with the sizes as numbers: a run over many pairs counts them."""

from __future__ import annotations

import os
from collections.abc import Mapping

from tcmoa_runtime.errors import InputError
from tcmoa_runtime.images import format_size
from tcmoa_runtime.typing import FrameSize


class FrameSizeError(InputError):
    """A frame has a size that the bundle does not fuse with the chosen fit.

    Attributes:
        size: (height, width) of the frame.
        expected: What sizes are fused, e.g. `at most 640x480, the size of this bundle`.
    """

    def __init__(
        self,
        size: FrameSize,
        expected: str,
        *,
        subject: object = None,
        remedy: str | None = None,
        settings: Mapping[str, object] | None = None,
    ) -> None:
        super().__init__(
            f"{format_size(size)}; expected {expected}", subject=subject, remedy=remedy, settings=settings
        )
        self.size, self.expected = size, expected

    def _parts(self) -> dict[str, object]:
        return {**super()._parts(), "size": self.size, "expected": self.expected}


class SourceSizesError(InputError):
    """The two images of a pair differ in size, and nothing aligns them.

    Attributes:
        x_size: (height, width) of x.
        y_size: (height, width) of y.
    """

    def __init__(
        self,
        x_size: FrameSize,
        y_size: FrameSize,
        x: str | os.PathLike[str],
        y: str | os.PathLike[str],
    ) -> None:
        super().__init__(
            f"x is {format_size(x_size)} and y ({os.fspath(y)}) {format_size(y_size)}; "
            "expected two registered images of one size",
            subject=os.fspath(x),
        )
        self.x_size, self.y_size = x_size, y_size

    def _parts(self) -> dict[str, object]:
        return {**super()._parts(), "x_size": self.x_size, "y_size": self.y_size}
