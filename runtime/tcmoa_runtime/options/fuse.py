"""Options of `tcmoa fuse`."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

from tcmoa_runtime.options.fuser import FuserOptions
from tcmoa_runtime.options.option import Option
from tcmoa_runtime.options.pairs import PairOptions

ImageFormat = Literal["png", "jpg", "jpeg", "bmp", "tif", "tiff", "webp"]


@dataclass(frozen=True, kw_only=True)
class FuseOptions(FuserOptions):
    """Options for fusing pairs of image files."""

    format: Annotated[ImageFormat, Option("File format of fused images when the output is a folder.")] = "png"
    overwrite: Annotated[
        bool,
        Option(
            "Fuse all pairs of a folder again, also those whose results are there, and replace other images."
        ),
    ] = False


@dataclass(frozen=True, kw_only=True)
class FuseSources(PairOptions):
    """Sources of `tcmoa fuse`: two images, or pairs."""

    x: Annotated[Path | None, Option("First source: an image, or a folder of images.", is_subject=False)] = (
        None
    )
    y: Annotated[
        Path | None,
        Option("Second source, like x. Leave it out if the folder x holds both sources.", is_subject=False),
    ] = None
