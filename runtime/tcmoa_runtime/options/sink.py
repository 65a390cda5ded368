"""Choices of an output of `tcmoa stream`."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Literal, TypeAlias

from tcmoa_runtime.errors import InputError
from tcmoa_runtime.options.option import Option, check_choices
from tcmoa_runtime.options.stream import OUTPUT_GROUP

View: TypeAlias = Literal["fused", "side-by-side", "blend"]
"""What an output shows.

fused: the fused frame. side-by-side: x, fused and y in a row. blend: on the left half the plain average of x and y, on
the right half the fused frame.
"""

Codec: TypeAlias = Literal["h264", "hevc", "ffv1", "mjpeg"]
"""A video codec that has a default encoder and settings."""

ImageFormat: TypeAlias = Literal["png", "jpg", "jpeg", "bmp", "tif", "tiff", "webp"]
"""Suffix of the image files in a folder."""


@dataclass(frozen=True, kw_only=True)
class SinkOptions:
    """How an output is encoded and what it shows."""

    codec: Annotated[Codec | None, Option("Video codec; h264 by default.", group=OUTPUT_GROUP)] = None
    encoder: Annotated[
        str | None,
        Option(
            "Encoder of FFmpeg instead of a codec, e.g. libx264 or h264_nvenc.",
            group=OUTPUT_GROUP,
            metavar="NAME",
        ),
    ] = None
    quality: Annotated[
        int | None,
        Option(
            "CRF of h264 (20 by default) and hevc (23), scale of mjpeg (3). Lower values give better quality.",
            group=OUTPUT_GROUP,
        ),
    ] = None
    view: Annotated[
        View,
        Option(
            "fused shows the fused frame, side-by-side shows x, fused and y in a row, blend shows the average of x "
            "and y on the left half and the fused frame on the right.",
            group=OUTPUT_GROUP,
        ),
    ] = "fused"
    encoder_options: Mapping[str, str] = field(default_factory=dict)
    """Options of FFmpeg's encoder, e.g. `{"preset": "slow"}`."""
    copy_from: Path | None = None
    """Video file whose audio and metadata are copied into the output."""
    image_format: ImageFormat = "png"
    """Format of the images in a folder."""

    def __post_init__(self) -> None:
        """Check every field by itself.

        Raises:
            InputError: A field holds a value that its type does not list, or both a codec and an encoder are given.
        """
        check_choices(self)
        if self.codec is not None and self.encoder is not None:
            raise InputError(
                f"codec {self.codec} and encoder {self.encoder}; expected one of the two",
                subject="encoder",
                remedy="Leave {codec} out.",
                settings={"codec": ...},
            )
