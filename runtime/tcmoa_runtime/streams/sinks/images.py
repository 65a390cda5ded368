"""An image file for each frame; needs no video library."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np

from tcmoa_runtime.errors import InputError
from tcmoa_runtime.images import IMAGE_SUFFIXES, write_image
from tcmoa_runtime.streams.interfaces import FusedFrame, SinkError, StreamFormat
from tcmoa_runtime.streams.sinks import SinkOptions


class ImageFiles:
    """`FOLDER/%06d.png` and the like, numbered by the frame's index from 0; an existing file is replaced.

    The folder is made where it is missing, and taken away again when no frame came.
    """

    lossless = True

    def __init__(self, text: str, options: SinkOptions) -> None:
        """Raises SinkError where the pattern, the format or the place is wrong."""
        path = Path(text)
        if not re.search(r"%0?\d*d", path.name):
            path = path / f"%06d.{options.image_format.lower().removeprefix('.')}"
        self.name = text
        self._folder, self._pattern = path.parent, path.name
        if path.suffix.lower() not in IMAGE_SUFFIXES:
            raise SinkError(
                f"{text}: '{path.suffix}' images are not written; expected {', '.join(sorted(IMAGE_SUFFIXES))}"
            )
        if len(re.findall("%", self._pattern)) != 1:
            raise SinkError(f"{text}: expected a pattern with one number, as FOLDER/%06d.png")
        above = next(p for p in (self._folder, *self._folder.parents) if p.exists())
        if not above.is_dir():
            raise SinkError(f"{text}: {above} is a file, expected a folder")
        self._made: list[Path] = []
        self._flip = False
        self._written = 0

    def open(self, form: StreamFormat) -> None:
        """Make the folder."""
        self._flip = form.channel_order == "bgr"
        self._made = [p for p in (self._folder, *self._folder.parents) if not p.exists()]
        try:
            self._folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise SinkError(f"{self._folder}: cannot be created: {error.strerror}") from error

    def write(self, frame: FusedFrame) -> None:
        """Write one file, beside its place and renamed."""
        image = np.ascontiguousarray(frame.image[..., ::-1]) if self._flip else frame.image
        try:
            write_image(self._folder / (self._pattern % frame.index), image)
        except InputError as error:
            raise SinkError(f"{error}; {self._written} frames are in {self._folder}") from error
        self._written += 1

    def close(self) -> None:
        """Take a folder away that stayed empty."""
        if not self._written:
            for folder in self._made:
                try:
                    folder.rmdir()
                except OSError:  # somebody else put something there
                    return
