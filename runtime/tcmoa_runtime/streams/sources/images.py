"""A folder or a numbered pattern of images; needs no video library."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import replace
from fractions import Fraction
from pathlib import Path

import numpy as np

from tcmoa_runtime.errors import InputError
from tcmoa_runtime.images import IMAGE_SUFFIXES, in_order, read_image
from tcmoa_runtime.location import NUMBER, printable
from tcmoa_runtime.options.source import DEFAULT_RATE, SourceOptions
from tcmoa_runtime.streams.interfaces import SourceError, SourceFrame
from tcmoa_runtime.streams.sources.matching import ListedImages, natural_key, numbers_in_names
from tcmoa_runtime.streams.stretch import SmoothStretch
from tcmoa_runtime.typing import Frame


class ImageSequence:
    """Images in the order of their numbers: frame2 before frame10.

    `pts` is the position of an image in the folder, or its number in a pattern, from 0. `set_times` changes it, e.g.
    for two folders whose images are paired by name. An image that cannot be read is skipped and counted in `errors`;
    the others keep their times.

    Attributes:
        listed: The images, in their order.
        first_error: Why the first image was skipped, empty if none was.
        has_shared_clock: Whether `pts` counts on a clock that another source shares.
    """

    live = False
    reconnects = 0

    def __init__(self, path: Path, options: SourceOptions) -> None:
        """List the images of a folder or pattern, or take one image file, and read the first.

        Raises:
            SourceError: There is no image, or none that can be read.
        """
        self.name = printable(str(path))
        self.rate = options.rate or DEFAULT_RATE
        self.time_base = Fraction(1) / self.rate
        self.frames = self.errors = 0
        self._order = options.channel_order
        self._stretch = SmoothStretch(options.stretch, time_constant=options.stretch_seconds)
        self.first_error, self.has_shared_clock = "", False
        self.listed, self._times = self._list(path)
        self._position = 0
        self._closed = False
        self._first = self._next()
        if self._first is None:
            raise SourceError(f"none of its {len(self._times)} images can be read", subject=path)
        self.size = (self._first.image.shape[0], self._first.image.shape[1])

    def set_times(self, times: Sequence[int]) -> None:
        """Set the `pts` of each image, on a clock that another source shares; before the first `read`."""
        self._times, self.has_shared_clock = times, True
        if self._first is not None:
            self._first = replace(self._first, pts=times[self._position - 1])

    def read(self) -> SourceFrame | None:
        """Return the next image; None at the end."""
        frame, self._first = self._first, None
        return self._next() if frame is None else frame

    def close(self) -> None:
        """Return no further image."""
        self._closed = True

    def _next(self) -> SourceFrame | None:
        while self._position < len(self._times) and not self._closed:
            pts, path = self._times[self._position], self.listed.paths[self._position]
            self._position += 1
            try:
                image = self._read_frame(path, float(pts * self.time_base))
            except InputError as error:
                self.errors += 1
                self.first_error = self.first_error or f"the first: {printable(error.render_problem())}"
                continue
            self.frames += 1
            return SourceFrame(image, pts, self.time_base, time.monotonic(), self.frames - 1)
        return None

    def _list(self, path: Path) -> tuple[ListedImages, Sequence[int]]:
        """Return the images and the `pts` of each."""
        if path.is_dir():
            paths = _list_folder(path)
            return ListedImages(self.name, paths, numbers_in_names(paths)), range(len(paths))
        if path.exists():
            return ListedImages(self.name, [path], numbers_in_names([path])), [0]
        found = _list_pattern(path)
        numbers = [number for number, _ in found]
        listed = ListedImages(self.name, [image for _, image in found], numbers)
        return listed, [number - numbers[0] for number in numbers]

    def _read_frame(self, path: Path, at: float) -> Frame:
        image = read_image(path)
        if image.dtype == np.uint16:
            image = self._stretch(image, at)
        return np.ascontiguousarray(in_order(image, self._order))


def _list_folder(folder: Path) -> list[Path]:
    found = [
        path
        for path in folder.iterdir()
        if path.suffix.lower() in IMAGE_SUFFIXES and not path.name.startswith(".")
    ]
    if not found:
        raise SourceError(
            f"a folder without images; expected files of {', '.join(sorted(IMAGE_SUFFIXES))}",
            subject=printable(str(folder)),
        )
    return sorted(found, key=lambda path: (natural_key(path.stem), path.name))


def _list_pattern(pattern: Path) -> list[tuple[int, Path]]:
    """Return the images of a pattern with their numbers."""
    matches = list(NUMBER.finditer(pattern.name))
    if len(matches) != 1 or not pattern.parent.is_dir():
        raise SourceError(
            "expected a pattern with one number in an existing folder, e.g. FOLDER/%06d.png", subject=pattern
        )
    (match,) = matches
    before, after = pattern.name[: match.start()], pattern.name[match.end() :]
    width = int(match[0].strip("%d") or 1)
    found = []
    for path in pattern.parent.iterdir():
        number = path.name[len(before) : len(path.name) - len(after)]
        fits = path.name.startswith(before) and path.name.endswith(after) and number.isdecimal()
        # As printf writes numbers: padded to the width, or longer.
        if fits and (len(number) == width or (len(number) > width and number[0] != "0")):
            found.append((int(number), path))
    if not found:
        raise SourceError("no image matches this pattern", subject=pattern)
    return sorted(found)
