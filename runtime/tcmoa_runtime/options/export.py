"""Choices of `tcmoa export`."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Final, Literal

from tcmoa_runtime.contract import Task
from tcmoa_runtime.errors import InputError
from tcmoa_runtime.options.option import Option, check_choices, check_range
from tcmoa_runtime.typing import ChannelOrder, ColorMode, ExportTarget, FrameSize, Precision

MAX_SIDE_PX: Final = 8192
"""Largest side of a frame: 8K video and a little more."""
MAX_BATCH: Final = 64


@dataclass(frozen=True, kw_only=True)
class ExportOptions:
    """What to export: one task, one frame size, and the choices that shape the graph."""

    task: Annotated[Task, Option("Task whose routers are folded into the graph.")]
    size: Annotated[FrameSize, Option("Size of the frames.")]
    precision: Annotated[
        Precision,
        Option("Precision of the graph. Parts that need float32 keep it. bf16 is for engines only."),
    ] = "fp32"
    channel_order: Annotated[ChannelOrder, Option("Channel order of the frames.")] = "rgb"
    color: Annotated[
        ColorMode, Option("rgb fuses three channels; luma fuses brightness and keeps the chroma of x.")
    ] = "rgb"
    batch: Annotated[int, Option("Frames that are fused at once.")] = 1
    gray: Annotated[
        tuple[Literal["x", "y"], ...], Option("Sources that have one channel, [B, H, W, 1].", metavar="x,y")
    ] = ()
    routers: Annotated[
        tuple[Task, ...] | None,
        Option("Task of the router of each TC-MoA, the encoder's first.", metavar="vif,mef,..."),
    ] = None
    with_prompt: Annotated[bool, Option("Add the output `prompt`: which source dominates where.")] = False
    as_published: Annotated[
        bool, Option("Reproduce the authors' position embeddings and how they fit a frame to the model.")
    ] = False
    target: Annotated[
        ExportTarget,
        Option(
            "Order of the tokens. The graph runs everywhere; OpenVINO is 8 to 15 % faster with cpu, "
            "engines move 7 % fewer bytes with gpu."
        ),
    ] = "gpu"
    pairs: Annotated[
        Path | None, Option("Folder of real pairs for the final check; pairs from photographs if not given.")
    ] = None
    overwrite: Annotated[bool, Option("Replace an existing bundle.")] = False

    def __post_init__(self) -> None:
        """Check every field by itself.

        Raises:
            InputError: A field is out of range; the subject is its name.
        """
        check_choices(self)
        height, width = self.size
        if not (1 <= height <= MAX_SIDE_PX and 1 <= width <= MAX_SIDE_PX):
            raise InputError(
                f"{width}x{height}; expected 1x1 to {MAX_SIDE_PX}x{MAX_SIDE_PX} pixels", subject="size"
            )
        check_range("batch", self.batch, 1, MAX_BATCH, "frames")
