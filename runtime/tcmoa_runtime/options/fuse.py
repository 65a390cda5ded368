"""Options of `tcmoa fuse`."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Literal

from tcmoa_runtime.options.fuser import FuserOptions
from tcmoa_runtime.options.option import Option

ImageFormat = Literal["png", "jpg", "jpeg", "bmp", "tif", "tiff", "webp"]


@dataclass(frozen=True, kw_only=True)
class FuseOptions(FuserOptions):
    """Options for fusing pairs of image files."""

    format: Annotated[ImageFormat, Option("File format of fused images when the output is a folder.")] = "png"
