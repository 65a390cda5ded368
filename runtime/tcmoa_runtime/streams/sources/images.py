"""A folder or a numbered pattern of images as a source; needs no video library."""

from __future__ import annotations

import re
import time
from fractions import Fraction
from pathlib import Path

import numpy as np

from tcmoa_runtime.errors import InputError
from tcmoa_runtime.images import IMAGE_SUFFIXES, read_image
from tcmoa_runtime.streams.interfaces import SourceError, SourceFrame
from tcmoa_runtime.streams.sources import DEFAULT_RATE, SourceOptions
from tcmoa_runtime.streams.stretch import SmoothStretch
from tcmoa_runtime.typing import Frame


class ImageSequence:
    """Images by number: frame2 before frame10. `pts` is an image's place, or its number in a pattern, from 0.

    An image that cannot be read is left out and counted in `errors`; the others keep their times.
    """

    live = False
    reconnects = 0

    def __init__(self, path: Path, options: SourceOptions) -> None:
        """Raises SourceError where there is no image, or none that can be read."""
        self.name = str(path)
        self.rate = options.rate or DEFAULT_RATE
        self.time_base = Fraction(1) / self.rate
        self.frames = self.errors = 0
        self._flip = options.channel_order == "bgr"
        self._stretch = SmoothStretch(options.percentiles, time_constant=options.stretch_seconds)
        self._images = _numbered(path) if not path.is_dir() else _in_folder(path)
        self._place = 0
        self._closed = False
        self._first = self._next()
        if self._first is None:
            raise SourceError(f"{path}: none of its {len(self._images)} images can be read")
        self.size = (self._first.image.shape[0], self._first.image.shape[1])

    def read(self) -> SourceFrame | None:
        """The next image; None at the end."""
        frame, self._first = self._first, None
        return self._next() if frame is None else frame

    def close(self) -> None:
        """Give no further frame."""
        self._closed = True

    def _next(self) -> SourceFrame | None:
        while self._place < len(self._images) and not self._closed:
            pts, path = self._images[self._place]
            self._place += 1
            try:
                image = self._as_frame(path, float(pts * self.time_base))
            except InputError:
                self.errors += 1
                continue
            self.frames += 1
            return SourceFrame(image, pts, self.time_base, time.monotonic(), self.frames - 1)
        return None

    def _as_frame(self, path: Path, at: float) -> Frame:
        image = read_image(path)
        if image.dtype == np.uint16:
            image = self._stretch(image, at)
        if self._flip and image.ndim == 3:
            image = image[..., ::-1]
        return np.ascontiguousarray(image)


def _in_folder(folder: Path) -> list[tuple[int, Path]]:
    found = [
        path
        for path in folder.iterdir()
        if path.suffix.lower() in IMAGE_SUFFIXES and not path.name.startswith(".")
    ]
    if not found:
        raise SourceError(f"{folder}: holds no image ({', '.join(sorted(IMAGE_SUFFIXES))})")
    return list(enumerate(sorted(found, key=_natural)))


def _natural(path: Path) -> tuple[list[tuple[int, int, str]], str]:
    """Numbers in names by value, the rest by letters; equal ones as frame1 and frame01 by the whole name."""
    parts = re.split(r"(\d+)", path.name)
    return [(0, int(p), "") if p.isdigit() else (1, 0, p) for p in parts if p], path.name


def _numbered(pattern: Path) -> list[tuple[int, Path]]:
    match = re.search(r"%(0?)(\d*)d", pattern.name)
    if match is None or "%" in pattern.name[match.end() :] or not pattern.parent.is_dir():
        raise SourceError(f"{pattern}: expected a pattern with one number, as FOLDER/%06d.png, in a folder")
    before, after = pattern.name[: match.start()], pattern.name[match.end() :]
    width = int(match[2] or 1)
    found = []
    for path in pattern.parent.iterdir():
        inside = path.name[len(before) : len(path.name) - len(after)]
        fits = path.name.startswith(before) and path.name.endswith(after) and inside.isdecimal()
        # As printf writes it: padded to the width, or longer where the number is.
        if fits and (len(inside) == width or (len(inside) > width and inside[0] != "0")):
            found.append((int(inside), path))
    if not found:
        raise SourceError(f"{pattern}: no image is named so")
    found.sort()
    return [(number - found[0][0], path) for number, path in found]
