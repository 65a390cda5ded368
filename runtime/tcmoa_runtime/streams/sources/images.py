"""A folder or a numbered pattern of images; needs no video library."""

from __future__ import annotations

import re
import time
from fractions import Fraction
from pathlib import Path

import numpy as np

from tcmoa_runtime.errors import InputError
from tcmoa_runtime.images import IMAGE_SUFFIXES, in_order, read_image
from tcmoa_runtime.options.source import DEFAULT_RATE, SourceOptions
from tcmoa_runtime.streams.interfaces import SourceError, SourceFrame
from tcmoa_runtime.streams.stretch import SmoothStretch
from tcmoa_runtime.typing import Frame


class ImageSequence:
    """Images in the order of their numbers: frame2 before frame10.

    `pts` is the position of an image in the folder, or its number in a pattern, from 0. An image that cannot be read
    is skipped and counted in `errors`; the others keep their times.
    """

    live = False
    reconnects = 0

    def __init__(self, path: Path, options: SourceOptions) -> None:
        """List the images and read the first.

        Raises:
            SourceError: There is no image, or none that can be read.
        """
        self.name = str(path)
        self.rate = options.rate or DEFAULT_RATE
        self.time_base = Fraction(1) / self.rate
        self.frames = self.errors = 0
        self._order = options.channel_order
        self._stretch = SmoothStretch(options.stretch, time_constant=options.stretch_seconds)
        self._images = _list_folder(path) if path.is_dir() else _list_pattern(path)
        self._position = 0
        self._closed = False
        self._first = self._next()
        if self._first is None:
            raise SourceError(f"none of its {len(self._images)} images can be read", subject=path)
        self.size = (self._first.image.shape[0], self._first.image.shape[1])

    def read(self) -> SourceFrame | None:
        """Return the next image; None at the end."""
        frame, self._first = self._first, None
        return self._next() if frame is None else frame

    def close(self) -> None:
        """Return no further image."""
        self._closed = True

    def _next(self) -> SourceFrame | None:
        while self._position < len(self._images) and not self._closed:
            pts, path = self._images[self._position]
            self._position += 1
            try:
                image = self._read_frame(path, float(pts * self.time_base))
            except InputError:
                self.errors += 1
                continue
            self.frames += 1
            return SourceFrame(image, pts, self.time_base, time.monotonic(), self.frames - 1)
        return None

    def _read_frame(self, path: Path, at: float) -> Frame:
        image = read_image(path)
        if image.dtype == np.uint16:
            image = self._stretch(image, at)
        return np.ascontiguousarray(in_order(image, self._order))


def _list_folder(folder: Path) -> list[tuple[int, Path]]:
    found = [
        path
        for path in folder.iterdir()
        if path.suffix.lower() in IMAGE_SUFFIXES and not path.name.startswith(".")
    ]
    if not found:
        raise SourceError(
            f"a folder without images; expected files of {', '.join(sorted(IMAGE_SUFFIXES))}", subject=folder
        )
    return list(enumerate(sorted(found, key=_natural_key)))


def _natural_key(path: Path) -> tuple[list[tuple[int, int, str]], str]:
    """Compare numbers by value and the rest as text; equal numbers (frame1, frame01) by the whole name."""
    parts = re.split(r"(\d+)", path.name)
    return [(0, int(p), "") if p.isdigit() else (1, 0, p) for p in parts if p], path.name


def _list_pattern(pattern: Path) -> list[tuple[int, Path]]:
    match = re.search(r"%(0?)(\d*)d", pattern.name)
    if match is None or "%" in pattern.name[match.end() :] or not pattern.parent.is_dir():
        raise SourceError(
            "expected a pattern with one number in an existing folder, e.g. FOLDER/%06d.png", subject=pattern
        )
    before, after = pattern.name[: match.start()], pattern.name[match.end() :]
    width = int(match[2] or 1)
    found = []
    for path in pattern.parent.iterdir():
        number = path.name[len(before) : len(path.name) - len(after)]
        fits = path.name.startswith(before) and path.name.endswith(after) and number.isdecimal()
        # As printf writes numbers: padded to the width, or longer.
        if fits and (len(number) == width or (len(number) > width and number[0] != "0")):
            found.append((int(number), path))
    if not found:
        raise SourceError("no image matches this pattern", subject=pattern)
    found.sort()
    return [(number - found[0][0], path) for number, path in found]
