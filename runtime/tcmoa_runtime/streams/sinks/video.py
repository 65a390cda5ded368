"""Video files that can be played even if writing them was interrupted."""

from __future__ import annotations

import os
import secrets
from pathlib import Path
from typing import TYPE_CHECKING, Final

from tcmoa_runtime.location import file_url, printable
from tcmoa_runtime.options.sink import SinkOptions
from tcmoa_runtime.streams.interfaces import FusedFrame, SinkError, StreamFormat
from tcmoa_runtime.streams.pyav import describe_error, import_av
from tcmoa_runtime.streams.sinks.audio_copy import AudioCopy, check_copyable
from tcmoa_runtime.streams.sinks.encoder import Encoder, choose_encoder, encoding_errors

if TYPE_CHECKING:
    from av.container import OutputContainer

CONTAINER_OF_SUFFIX: Final = {".mp4": "mp4", ".mov": "mov", ".mkv": "matroska"}
"""FFmpeg's names of containers by the suffix of the file."""

_MUXER_OPTIONS: Final[dict[str, dict[str, str]]] = {
    # A fragment for each frame, written at once: after a full disk or SIGKILL, all frames but the last can be played,
    # however slowly they came. It costs about 150 bytes a frame. The index, which makes an ordinary file of it, is
    # written at the end.
    "mp4": {"movflags": "+hybrid_fragmented+frag_every_frame", "flush_packets": "1"},
    "mov": {"movflags": "+hybrid_fragmented+frag_every_frame", "flush_packets": "1"},
    "matroska": {"cluster_time_limit": "1", "flush_packets": "1"},
}


class VideoFileSink:
    """Writes a hidden file in the same folder and renames it when it is closed; an existing file is replaced.

    Timestamps are kept; Matroska rounds them to milliseconds. If the disk is full, the frames that fit are kept under
    the file's name. After SIGKILL the hidden file can be played: it holds all frames but the last. Without frames no
    file is left.
    """

    lossless = True

    def __init__(self, path: Path, options: SinkOptions) -> None:
        """Check the path and the options.

        Raises:
            SinkError: The file cannot be written there, or the container cannot hold the codec.
            MissingError: PyAV is not installed.
        """
        self._av = import_av()
        self._errors = encoding_errors()
        self.name, self._path, self._options = printable(str(path)), path, options
        self.paths = (path,)
        if path.is_dir():
            raise SinkError("a folder; expected a file name", subject=path)
        if not path.parent.is_dir():
            raise SinkError(
                f"the folder {path.parent} does not exist", subject=path, remedy="Create the folder first."
            )
        if not os.access(path.parent, os.W_OK):
            raise SinkError(f"the folder {path.parent} is not writable", subject=path)
        self._container_name = CONTAINER_OF_SUFFIX[path.suffix.lower()]
        self._encoder_name = choose_encoder(options, self._container_name, self.name)
        if options.copy_from is not None:
            check_copyable(options.copy_from)
        self._partial_path = path.with_name(f".{path.name}.{secrets.token_hex(4)}.partial")
        self._container: OutputContainer | None = None
        self._encoder: Encoder | None = None
        self._audio: AudioCopy | None = None
        self._packet_count, self._last_time = 0, 0.0
        self._has_frames = self._has_failed = False

    def open(self, stream_format: StreamFormat) -> None:
        """Create the file and open its encoder.

        FFmpeg writes the header with the first packet: its muxer of fragments crashes on a file without packets.
        """
        options = self._options
        try:
            # FFmpeg creates the file with the first packet; create it now, so that an error is reported here.
            self._partial_path.touch()
            self._container = self._av.open(
                file_url(self._partial_path),
                "w",
                format=self._container_name,
                options=_MUXER_OPTIONS[self._container_name],
            )
            self._encoder = Encoder(
                self._container, stream_format, self._encoder_name, options, joinable=False
            )
            if options.copy_from is not None:
                self._audio = AudioCopy(options.copy_from, self._container, self.name)
        except SinkError:
            raise
        except self._errors as error:
            raise SinkError(f"cannot be written: {describe_error(error)}", subject=self.name) from error

    def write(self, frame: FusedFrame) -> None:
        """Encode and write a frame."""
        if self._container is None or self._encoder is None:
            raise SinkError("is not open", subject=self.name)
        try:
            for packet in self._encoder.encode(frame):
                if self._audio is not None:
                    self._audio.copy_until(frame.time)
                self._container.mux(packet)
                self._packet_count += 1
        except self._errors as error:
            self._has_failed = True
            kept = "; the frames before are kept in it" if self._packet_count else ""
            raise SinkError(f"writing failed: {describe_error(error)}{kept}", subject=self.name) from error
        self._has_frames, self._last_time = True, frame.time

    def close(self) -> None:
        """Complete the file and rename it."""
        container, encoder = self._container, self._encoder
        if container is None:
            self._partial_path.unlink(missing_ok=True)
            return
        error = self._complete(container, encoder)
        if self._audio is not None:
            self._audio.close()
        self._container = self._encoder = None
        if not self._packet_count:
            self._partial_path.unlink(missing_ok=True)
        else:
            try:
                self._partial_path.replace(self._path)
            except OSError as rename_error:
                raise SinkError(
                    f"{self._partial_path.name} cannot be renamed to it: {rename_error.strerror}",
                    subject=self._path,
                ) from rename_error
        if error is not None and not self._has_failed:
            raise SinkError(
                f"cannot be completed: {describe_error(error)}; the frames that fit are kept in it",
                subject=self.name,
            ) from error

    def _complete(self, container: OutputContainer, encoder: Encoder | None) -> Exception | None:
        """Write the packets that the encoder holds back, and the index; return the first error."""
        first_error: Exception | None = None
        if encoder is not None and self._has_frames and not self._has_failed:
            try:
                for packet in encoder.flush():
                    container.mux(packet)
                    self._packet_count += 1
                if self._audio is not None:
                    self._audio.copy_until(self._last_time)
            except self._errors as error:
                first_error = error
        try:
            container.close()
        except self._errors as error:
            first_error = first_error or error
        return first_error
