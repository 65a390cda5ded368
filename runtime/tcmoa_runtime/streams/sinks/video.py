"""Video files that are whole, whatever ends them."""

from __future__ import annotations

import os
import secrets
from pathlib import Path
from typing import Any

from tcmoa_runtime.streams.interfaces import FusedFrame, SinkError, StreamFormat
from tcmoa_runtime.streams.pyav import import_av, reason
from tcmoa_runtime.streams.sinks import CONTAINERS, SinkOptions
from tcmoa_runtime.streams.sinks.encoder import Encoder, check_encoder

_MUXER: dict[str, dict[str, str]] = {
    # Fragments: what is written can be played, also when the disk is full or the process is killed. The index that
    # makes an ordinary file of it is written at the end.
    "mp4": {"movflags": "+hybrid_fragmented", "frag_duration": "1000000"},
    "mov": {"movflags": "+hybrid_fragmented", "frag_duration": "1000000"},
    "matroska": {"cluster_time_limit": "1000"},
}


class VideoFile:
    """A video file, written beside its place and renamed when it is closed; an existing one is replaced.

    Timestamps are kept (Matroska rounds them to milliseconds). When the disk is full, what fits is kept under the
    file's own name, and playable. After a kill the hidden file beside it can be played. Without a frame no file stays.
    """

    lossless = True

    def __init__(self, path: Path, options: SinkOptions) -> None:
        """Raises SinkError where the file cannot be, or the codec does not fit; MissingError without PyAV."""
        self._av = import_av()
        self.name, self._path, self._options = str(path), path, options
        if path.is_dir():
            raise SinkError(f"{path}: is a folder, expected a file name")
        if not path.parent.is_dir():
            raise SinkError(f"{path}: the folder {path.parent} does not exist; create it first")
        if not os.access(path.parent, os.W_OK):
            raise SinkError(f"{path}: the folder {path.parent} cannot be written to")
        self._container_name = CONTAINERS[path.suffix.lower()]
        self._encoder_name = check_encoder(options.codec, self.name, self._container_name)
        if options.copy_from is not None:
            _check_copy(options.copy_from)
        self._partial = path.with_name(f".{path.name}.{secrets.token_hex(4)}.partial")
        self._container: Any = None
        self._encoder: Encoder | None = None
        self._copy: _Copied | None = None
        self._packets, self._last = 0, 0.0
        self._written = self._broken = False

    def open(self, form: StreamFormat) -> None:
        """Begin the file and its encoder."""
        options = self._options
        try:
            self._partial.touch()  # FFmpeg itself opens it with the first packet, which is late to hear that it cannot
            self._container = self._av.open(
                str(self._partial),
                "w",
                format=self._container_name,
                options=_MUXER.get(self._container_name, {}),
            )
            self._encoder = Encoder(
                self._container,
                form,
                self._encoder_name,
                quality=options.quality,
                options=options.encoder_options,
                low_latency=False,
            )
            if options.copy_from is not None:
                self._copy = _Copied(self._av, options.copy_from, self._container, self.name)
            # The header is written with the first packet: FFmpeg's muxer of fragments crashes on a file without any.
        except SinkError:
            raise
        except (self._av.FFmpegError, OSError, ValueError) as error:
            raise SinkError(f"{self.name}: cannot be written: {reason(error)}") from error

    def write(self, frame: FusedFrame) -> None:
        """Encode and write a frame."""
        if self._encoder is None:
            raise SinkError(f"{self.name}: is not open")
        try:
            for packet in self._encoder.encode(frame):
                if self._copy is not None:
                    self._copy.until(frame.time)
                self._container.mux(packet)
                self._packets += 1
        except (self._av.FFmpegError, OSError, ValueError) as error:
            self._broken = True
            raise SinkError(
                f"{self.name}: cannot be written any more: {reason(error)}"
                + ("; the frames before are kept in it" if self._packets else "")
            ) from error
        self._written, self._last = True, frame.time

    def close(self) -> None:
        """Finish the file and put it in its place."""
        if self._container is None:
            self._partial.unlink(missing_ok=True)
            return
        error = self._finish()
        if self._copy is not None:
            self._copy.close()
        self._container = self._encoder = None
        if not self._packets:
            self._partial.unlink(missing_ok=True)
        else:
            try:
                self._partial.replace(self._path)
            except OSError as failed:
                raise SinkError(f"{self._path}: cannot be put in its place: {failed.strerror}") from failed
        if error is not None and not self._broken:
            raise SinkError(
                f"{self.name}: cannot be finished: {reason(error)}; what fits is kept in it"
            ) from error

    def _finish(self) -> Exception | None:
        """Write what the encoder holds, and the file's index; the error where that fails."""
        failed: Exception | None = None
        if self._encoder is not None and self._written and not self._broken:
            try:
                for packet in self._encoder.encode(None):
                    self._container.mux(packet)
                    self._packets += 1
                if self._copy is not None:
                    self._copy.until(self._last)
            except (self._av.FFmpegError, OSError, ValueError) as error:
                failed = error
        try:
            self._container.close()
        except (self._av.FFmpegError, OSError, ValueError) as error:
            failed = failed or error
        return failed


class _Copied:
    """Audio of a file, packet by packet as it is, and its metadata."""

    def __init__(self, av: Any, source: Path, container: Any, name: str) -> None:
        self._input = av.open(str(source))
        container.metadata.update(self._input.metadata)
        self._streams: dict[int, Any] = {}
        for stream in self._input.streams.audio:
            try:
                self._streams[stream.index] = container.add_stream_from_template(stream)
            except (av.FFmpegError, ValueError) as error:
                codec = stream.codec_context.name
                self._input.close()
                raise SinkError(f"{name}: cannot hold the {codec} audio of {source}; choose .mkv") from error
            self._streams[stream.index].metadata.update(stream.metadata)
        self._container = container
        self._packets = self._input.demux(list(self._input.streams.audio)) if self._streams else iter(())
        self._next: Any = None

    def until(self, at: float) -> None:
        """Copy packets that begin before `at` seconds."""
        while True:
            packet = self._next if self._next is not None else next(self._packets, None)
            self._next = None
            if packet is None:
                return
            if packet.dts is None:  # the end of a stream
                continue
            if float(packet.dts * packet.time_base) > at:
                self._next = packet
                return
            packet.stream = self._streams[packet.stream.index]
            self._container.mux(packet)

    def close(self) -> None:
        self._input.close()


def _check_copy(source: Path) -> None:
    """Raise SinkError where x is no video file."""
    av = import_av()
    if not source.is_file():
        raise SinkError(f"{source}: audio and metadata are copied of a video file only, and x is none")
    try:
        av.open(str(source)).close()
    except (av.FFmpegError, OSError) as error:
        raise SinkError(f"{source}: audio and metadata cannot be copied: {reason(error)}") from error
