"""Copying the audio and the metadata of a video file into another one."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from tcmoa_runtime.location import file_url
from tcmoa_runtime.streams.interfaces import SinkError
from tcmoa_runtime.streams.pyav import describe_error, import_av

if TYPE_CHECKING:
    from av.container import OutputContainer


def check_copyable(source: Path) -> None:
    """Raise SinkError if `source` is not a video file that can be opened."""
    av = import_av()
    if not source.is_file():
        raise SinkError(
            "not a file; expected a video file, whose audio and metadata can be copied", subject=source
        )
    try:
        av.open(file_url(source)).close()
    except (av.FFmpegError, OSError) as error:
        raise SinkError(
            f"audio and metadata cannot be copied: {describe_error(error)}", subject=source
        ) from error


class AudioCopy:
    """Copies audio packets without decoding them, interleaved with the video."""

    def __init__(self, source: Path, container: OutputContainer, subject: str) -> None:
        """Copy the metadata, and add an audio stream to the container for each one of the source.

        Raises:
            SinkError: The container cannot hold a codec of the source; the message names `subject`.
        """
        av = import_av()
        self._input: Any = av.open(file_url(source))
        container.metadata.update(self._input.metadata)
        self._streams: dict[int, Any] = {}
        for stream in self._input.streams.audio:
            try:
                copy = container.add_stream_from_template(stream)
            except (av.FFmpegError, ValueError) as error:
                codec = stream.codec_context.name
                self._input.close()
                raise SinkError(
                    f"the container cannot hold the {codec} audio of {source}",
                    subject=subject,
                    remedy="Write a .mkv file.",
                ) from error
            copy.metadata.update(stream.metadata)
            self._streams[stream.index] = copy
        self._container = container
        self._packets = self._input.demux(list(self._input.streams.audio)) if self._streams else iter(())
        self._pending: Any = None

    def copy_until(self, time: float) -> None:
        """Copy the packets that begin before `time`, in seconds."""
        while True:
            packet = self._pending if self._pending is not None else next(self._packets, None)
            self._pending = None
            if packet is None:
                return
            if packet.dts is None:  # marks the end of a stream
                continue
            if float(packet.dts * packet.time_base) > time:
                self._pending = packet
                return
            packet.stream = self._streams[packet.stream.index]
            self._container.mux(packet)

    def close(self) -> None:
        """Close the source."""
        self._input.close()
