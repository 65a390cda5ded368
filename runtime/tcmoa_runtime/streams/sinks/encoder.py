"""Video encoding by FFmpeg, for files and network streams."""

from __future__ import annotations

from fractions import Fraction
from typing import TYPE_CHECKING, Any, Final

from tcmoa_runtime.options.sink import Codec, SinkOptions
from tcmoa_runtime.streams.interfaces import FusedFrame, SinkError, StreamFormat
from tcmoa_runtime.streams.pyav import import_av

if TYPE_CHECKING:
    from av.container import OutputContainer
    from av.packet import Packet
    from av.video.stream import VideoStream

ENCODER_OF_CODEC: Final[dict[Codec, str]] = {
    "h264": "libx264",
    "hevc": "libx265",
    "ffv1": "ffv1",
    "mjpeg": "mjpeg",
}
DEFAULT_QUALITY: Final = {"libx264": 20, "libx265": 23, "mjpeg": 3}
"""CRF of x264 and x265, quantizer scale of mjpeg."""
DEFAULT_RATE: Final = Fraction(25)
"""Frames per second for the rate control if the rate is unknown; it does not change the timestamps."""
MIN_HD_LINES: Final = 720
"""Players assume BT.709 from this height on, and BT.601 below."""

_CONTAINERS_OF_ENCODER: Final = {"ffv1": ("matroska",), "mjpeg": ("matroska", "mov", "mp4")}
"""Encoders whose codec only some containers can hold."""
_SETTINGS: Final[dict[str, dict[str, str]]] = {
    # Each frame is encoded at once, so that no frame is lost if the process ends. Without looking ahead, a file of
    # M3SVD at 640x480 is 13 % larger, at 0.3 dB more PSNR. No B-frames either: their delay would be at the start of a
    # fragmented file.
    "libx264": {"preset": "veryfast", "tune": "zerolatency", "bf": "0"},
    "libx265": {"preset": "ultrafast", "tune": "zerolatency", "x265-params": "log-level=error:bframes=0"},
    "ffv1": {"level": "3", "slices": "4", "slicecrc": "1"},
}
_JOINABLE_SETTINGS: Final[dict[str, dict[str, str]]] = {
    # Headers in each key frame, so that a receiver can join later.
    "libx264": {"x264-params": "repeat-headers=1"},
    "libx265": {"x265-params": "log-level=error:bframes=0:repeat-headers=1"},
}
_KEY_FRAME_SECONDS: Final = 2
_COLOR_SPACES: Final = {"ITU709": 1, "ITU601": 6}
"""Color spaces by PyAV's names, with FFmpeg's codes of matrix, primaries and transfer."""
_LIMITED_RANGE, _FULL_RANGE = 1, 2


def choose_encoder(options: SinkOptions, container: str, subject: str) -> str:
    """Return the name of FFmpeg's encoder for the codec or the encoder of `options`.

    Raises:
        SinkError: The encoder is unknown, does not encode video, or the container cannot hold its codec.
    """
    av = import_av()
    name = options.encoder or ENCODER_OF_CODEC[options.codec or "h264"]
    try:
        codec = av.Codec(name, "w")
    except (av.codec.codec.UnknownCodecError, ValueError) as error:
        raise SinkError(
            f"FFmpeg has no encoder {name!r} here; expected the codec {', '.join(ENCODER_OF_CODEC)} "
            "or a video encoder of FFmpeg",
            subject=subject,
        ) from error
    if codec.type != "video":
        raise SinkError(f"the encoder {name!r} encodes {codec.type}; expected video", subject=subject)
    container_name = av.format.ContainerFormat(container, "w").name.split(",")[0]
    containers = _CONTAINERS_OF_ENCODER.get(name)
    if containers is not None and container_name not in containers:
        raise SinkError(
            f"the container {container} cannot hold {name}; expected {', '.join(containers)}", subject=subject
        )
    return name


def encoding_errors() -> tuple[type[Exception], ...]:
    """Return the exceptions that PyAV raises when it opens, encodes or writes."""
    return import_av().FFmpegError, OSError, ValueError


class Encoder:
    """One video stream in a container."""

    def __init__(
        self,
        container: OutputContainer,
        stream_format: StreamFormat,
        encoder: str,
        options: SinkOptions,
        *,
        joinable: bool,
    ) -> None:
        """Add the stream to the container and open its encoder, so that wrong options fail before the first frame.

        Args:
            container: An open container.
            stream_format: Format of the frames.
            encoder: FFmpeg's name of the encoder.
            options: Quality and encoder options.
            joinable: Whether a receiver may join at any time: with frequent key frames that hold all headers.
        """
        self._av = import_av()
        rate = stream_format.rate or DEFAULT_RATE
        quality = DEFAULT_QUALITY.get(encoder) if options.quality is None else options.quality
        settings = dict(_SETTINGS.get(encoder, {}))
        if joinable:
            settings |= _JOINABLE_SETTINGS.get(encoder, {})
        if encoder in ("libx264", "libx265"):
            settings["crf"] = str(quality)
        stream: Any = container.add_stream(
            encoder, rate=rate, options={**settings, **options.encoder_options}
        )
        context = stream.codec_context
        stream.width, stream.height = stream_format.width, stream_format.height
        self._pixel_format = stream.pix_fmt = _pixel_format(encoder, stream_format)
        # Threads that work on one frame each hold frames back.
        context.thread_type = "SLICE"
        context.sample_aspect_ratio = stream_format.sample_aspect_ratio
        context.time_base = stream.time_base = self._time_base = stream_format.time_base
        if joinable:
            context.gop_size = max(1, round(_KEY_FRAME_SECONDS * rate))
        if encoder == "mjpeg":
            context.qmin = context.qmax = quality
            context.qscale = True
        if encoder == "libx265":
            context.codec_tag = "hvc1"
        self._color_space = "ITU709" if stream_format.height >= MIN_HD_LINES else "ITU601"
        self._is_yuv = self._pixel_format.startswith("yuv")
        self._is_full_range = self._pixel_format.startswith("yuvj")
        if self._is_yuv:
            code = _COLOR_SPACES[self._color_space]
            context.colorspace = context.color_primaries = context.color_trc = code
            context.color_range = _FULL_RANGE if self._is_full_range else _LIMITED_RANGE
        context.open()
        self._stream: VideoStream = stream
        self._input_format = f"{stream_format.channel_order}24"

    def encode(self, frame: FusedFrame) -> list[Packet[VideoStream]]:
        """Encode a frame; return the packets that are complete."""
        image = self._av.VideoFrame.from_ndarray(frame.image, format=self._input_format)
        if self._is_yuv:
            image = image.reformat(
                format=self._pixel_format,
                dst_colorspace=self._color_space,
                dst_color_range="JPEG" if self._is_full_range else "MPEG",
            )
        image.pts, image.time_base = frame.pts, self._time_base
        return self._stream.encode(image)

    def flush(self) -> list[Packet[VideoStream]]:
        """Return the packets of the frames that the encoder holds back, at the end of the stream."""
        return self._stream.encode(None)


def _pixel_format(encoder: str, stream_format: StreamFormat) -> str:
    """Return the pixel format that players support best; a lossless one for ffv1."""
    if encoder == "ffv1":
        return "bgr0"
    # 4:2:0 halves the color resolution and needs even sizes; an odd size keeps the full resolution.
    is_even = stream_format.width % 2 == 0 and stream_format.height % 2 == 0
    if encoder == "mjpeg":
        return "yuvj420p" if is_even else "yuvj444p"
    return "yuv420p" if is_even else "yuv444p"
