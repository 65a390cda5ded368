"""A sequence of image files, one for each frame. Needs no video library."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from tcmoa_runtime.errors import InputError
from tcmoa_runtime.images import IMAGE_SUFFIXES, in_order, write_image
from tcmoa_runtime.location import NUMBER
from tcmoa_runtime.options.sink import SinkOptions
from tcmoa_runtime.streams.interfaces import FusedFrame, SinkError, StreamFormat
from tcmoa_runtime.typing import ChannelOrder


class ImageSequenceSink:
    """Writes files like FOLDER/%06d.png, numbered by the index of the frame from 0; existing files are replaced.

    A missing folder is created, and removed at the end if no frame was written.
    """

    lossless = True

    def __init__(self, path: Path, options: SinkOptions, *, is_folder: bool, name: str) -> None:
        """Check the target.

        Args:
            path: A folder, or a pattern of files.
            options: The format of the images in a folder.
            is_folder: Whether `path` is a folder.
            name: Name in messages.

        Raises:
            SinkError: The pattern, the image format or the folder is wrong.
        """
        if is_folder:
            path = path / f"%06d.{options.image_format}"
        self.name = target = name
        self._folder, self._pattern = path.parent, path.name
        if path.suffix.lower() not in IMAGE_SUFFIXES:
            raise SinkError(
                f"image format {path.suffix!r}; expected {', '.join(sorted(IMAGE_SUFFIXES))}", subject=target
            )
        if len(NUMBER.findall(self._pattern)) != 1:
            raise SinkError("expected a pattern with one number, e.g. FOLDER/%06d.png", subject=target)
        parent = next(folder for folder in (self._folder, *self._folder.parents) if folder.exists())
        if not parent.is_dir():
            raise SinkError(f"{parent} is a file; expected a folder", subject=target)
        self._created: list[Path] = []
        self._channel_order: ChannelOrder = "rgb"
        self._written = 0

    def open(self, stream_format: StreamFormat) -> None:
        """Create the folder."""
        self._channel_order = stream_format.channel_order
        self._created = [folder for folder in (self._folder, *self._folder.parents) if not folder.exists()]
        try:
            self._folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise SinkError(f"cannot be created: {error.strerror}", subject=self._folder) from error

    def write(self, frame: FusedFrame) -> None:
        """Write the file of a frame; it appears under its name when it is complete."""
        image = in_order(frame.image, self._channel_order)
        try:
            write_image(self._folder / self._file_name(frame.index), image)
        except InputError as error:
            raise SinkError(
                f"{error.problem}; {self._written} frames are in {self._folder}",
                subject=error.subject,
                remedy=error.remedy,
            ) from error
        self._written += 1

    @property
    def paths(self) -> Sequence[Path]:
        """The pattern of the files."""
        return (self._folder / self._pattern,)

    def _file_name(self, index: int) -> str:
        """Return the name of a file; other characters of the pattern than the number are taken as they are."""
        return NUMBER.sub(lambda number: number[0] % index, self._pattern)

    def close(self) -> None:
        """Remove the created folders if no frame was written."""
        if not self._written:
            for folder in self._created:
                try:
                    folder.rmdir()
                except OSError:  # another program wrote into it
                    return
