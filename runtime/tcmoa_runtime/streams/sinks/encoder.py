"""Pictures into packets: the encoder that files and network streams share."""

from __future__ import annotations

from collections.abc import Mapping
from fractions import Fraction
from typing import Any, Final

from tcmoa_runtime.streams.interfaces import FusedFrame, SinkError, StreamFormat
from tcmoa_runtime.streams.pyav import import_av

ENCODERS: Final = {"h264": "libx264", "hevc": "libx265", "ffv1": "ffv1", "mjpeg": "mjpeg"}
"""FFmpeg's encoders by the codec's name."""
QUALITY: Final = {"libx264": 20, "libx265": 23, "mjpeg": 3}
GUESSED_RATE: Final = Fraction(25)
"""Frames a second that encoders are told where none is known; timestamps stay what they are."""
HIGH_DEFINITION: Final = 720
"""Lines from which on BT.709 is the matrix, below BT.601, as players assume."""

_SETTINGS: Final[dict[str, dict[str, str]]] = {
    # No B-frames: they begin a fragmented file with their delay, and hold frames back.
    "libx264": {"preset": "veryfast", "bf": "0"},
    "libx265": {"preset": "ultrafast", "x265-params": "log-level=error:bframes=0"},
    "ffv1": {"level": "3", "slices": "4", "slicecrc": "1"},
}
_LOW_LATENCY: Final[dict[str, dict[str, str]]] = {
    # Headers in each key frame: who joins later can decode, too.
    "libx264": {"tune": "zerolatency", "x264-params": "repeat-headers=1"},
    "libx265": {"tune": "zerolatency", "x265-params": "log-level=error:bframes=0:repeat-headers=1"},
}
_BT709, _BT601 = 1, 6


def check_encoder(codec: str | None, where: str, container: str) -> str:
    """FFmpeg's encoder for `codec`; SinkError where it is unknown, no video, or does not fit the container."""
    av = import_av()
    name = ENCODERS.get(codec or "h264", codec or "")
    try:
        found = av.Codec(name, "w")
    except (av.codec.codec.UnknownCodecError, ValueError) as error:
        raise SinkError(
            f"{where}: encoder '{codec}' is not known here; expected {', '.join(ENCODERS)} or one of FFmpeg's"
        ) from error
    if found.type != "video":
        raise SinkError(f"{where}: '{codec}' encodes {found.type}, no video")
    form = av.format.ContainerFormat(container, "w")
    fits = {"ffv1": ("matroska",), "mjpeg": ("matroska", "mov", "mp4")}.get(name)
    if fits is not None and form.name.split(",")[0] not in fits:
        raise SinkError(f"{where}: {codec} does not go into {container}; expected {', '.join(fits)}")
    return name


class Encoder:
    """One video stream in a container."""

    def __init__(
        self,
        container: Any,
        form: StreamFormat,
        encoder: str,
        *,
        quality: int | None,
        options: Mapping[str, str],
        low_latency: bool,
    ) -> None:
        self._av = import_av()
        rate = form.rate or GUESSED_RATE
        settings = dict(_SETTINGS.get(encoder, {}))
        if low_latency:
            settings |= _LOW_LATENCY.get(encoder, {})
        level = QUALITY.get(encoder) if quality is None else quality
        if encoder in ("libx264", "libx265") and level is not None:
            settings["crf"] = str(level)
        self._stream: Any = container.add_stream(encoder, rate=rate, options={**settings, **options})
        context = self._stream.codec_context
        self._stream.width, self._stream.height = form.width, form.height
        self._pixels = _pixels(encoder, form)
        self._stream.pix_fmt = self._pixels
        context.time_base = self._stream.time_base = form.time_base
        if low_latency:
            context.gop_size = max(1, round(2 * rate))
        if encoder == "mjpeg" and level is not None:
            context.qmin = context.qmax = int(level)
            context.qscale = True
        if encoder == "libx265":
            context.codec_tag = "hvc1"
        self._space = "ITU709" if form.height >= HIGH_DEFINITION else "ITU601"
        self._is_yuv = self._pixels.startswith("yuv")
        if self._is_yuv:
            code = _BT709 if self._space == "ITU709" else _BT601
            context.colorspace = context.color_primaries = context.color_trc = code
            context.color_range = 2 if self._pixels.startswith("yuvj") else 1
        context.open()  # now, so that wrong options are told before the first frame
        self._order = form.channel_order
        self._base = form.time_base

    def encode(self, frame: FusedFrame | None) -> Any:
        """Packets that are ready with this frame; those that are left, for None."""
        if frame is None:
            return self._stream.encode(None)
        picture = self._av.VideoFrame.from_ndarray(frame.image, format=f"{self._order}24")
        if self._is_yuv:
            full = self._pixels.startswith("yuvj")
            picture = picture.reformat(
                format=self._pixels,
                dst_colorspace=self._space,
                dst_color_range="JPEG" if full else "MPEG",
            )
        picture.pts, picture.time_base = frame.pts, self._base
        return self._stream.encode(picture)


def _pixels(encoder: str, form: StreamFormat) -> str:
    """The pixel format: what players expect, and lossless where the codec is."""
    if encoder == "ffv1":
        return "bgr0"
    # Half the colour in both directions needs even sizes; an odd one keeps its size and all its colour.
    half = form.width % 2 == 0 and form.height % 2 == 0
    if encoder == "mjpeg":
        return "yuvj420p" if half else "yuvj444p"
    return "yuv420p" if half else "yuv444p"
