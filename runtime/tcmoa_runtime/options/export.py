"""Options of `tcmoa export`."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Final, Literal

from tcmoa_runtime.contract import Task
from tcmoa_runtime.errors import InputError
from tcmoa_runtime.options.option import Option, check_choices, check_range
from tcmoa_runtime.options.pairs import PAIRS_GROUP, PAIRS_METAVAR, PairOptions
from tcmoa_runtime.typing import ChannelOrder, ColorMode, ExportTarget, FrameSize, Precision, WeightStorage

MAX_SIDE_PX: Final = 8192
"""Maximum side of a frame: enough for 8K video, 7680x4320."""
MAX_BATCH: Final = 64

FRAME_GROUP: Final = "Frames"
GRAPH_GROUP: Final = "Graph"
OUTPUT_GROUP: Final = "Output"


@dataclass(frozen=True, kw_only=True)
class ExportOptions(PairOptions):
    """Options of an export: one task, one frame size, and the properties of the graph."""

    task: Annotated[Task, Option("Task whose routers are folded into the graph.", group=GRAPH_GROUP)]
    size: Annotated[FrameSize, Option("Size of the frames.", group=FRAME_GROUP)]
    batch: Annotated[int, Option("Number of frames that are fused at once.", group=FRAME_GROUP)] = 1
    channel_order: Annotated[ChannelOrder, Option("Channel order of the frames.", group=FRAME_GROUP)] = "rgb"
    color: Annotated[
        ColorMode | None,
        Option(
            "rgb fuses three channels; luma fuses the luma, with the chroma of x in vif, else of both by saturation. "
            "As the weights were made if not given: luma for tiny and nano.",
            group=FRAME_GROUP,
        ),
    ] = None
    gray: Annotated[
        tuple[Literal["x", "y"], ...],
        Option("Sources that have one channel, [B, H, W, 1].", group=FRAME_GROUP, metavar="x,y"),
    ] = ()
    precision: Annotated[
        Precision,
        Option(
            "Precision of the graph; parts that need float32 keep it. bf16 is for engines only.",
            group=GRAPH_GROUP,
        ),
    ] = "fp32"
    weight_storage: Annotated[
        WeightStorage,
        Option(
            "Type in which a graph in fp32 stores its large weights; fp16 halves the bundle, arithmetic stays fp32.",
            group=GRAPH_GROUP,
        ),
    ] = "fp32"
    routers: Annotated[
        tuple[Task, ...] | None,
        Option(
            "Task of the router of each TC-MoA, the encoder's first; the task of the bundle if not given.",
            group=GRAPH_GROUP,
            metavar="vif,mef,...",
        ),
    ] = None
    with_prompt: Annotated[
        bool, Option("Add the output `prompt`: which source dominates where.", group=GRAPH_GROUP)
    ] = False
    as_published: Annotated[
        bool,
        Option(
            "Reproduce the position embeddings of the authors' code, and how it fits a frame to the model.",
            group=GRAPH_GROUP,
        ),
    ] = False
    target: Annotated[
        ExportTarget,
        Option(
            "Processor that the graph's form suits: order of the tokens, filters. It runs everywhere, and is fastest "
            "there.",
            group=GRAPH_GROUP,
        ),
    ] = "gpu"
    pairs: Annotated[
        Path | None,
        Option(
            "Pairs for the comparison with the model: a folder of NAME_x.EXT and NAME_y.EXT, or a CSV file with the "
            "columns x,y; pairs from photographs if not given.",
            group=PAIRS_GROUP,
            metavar=PAIRS_METAVAR,
            is_subject=False,
        ),
    ] = None
    weights_license: Annotated[
        str | None,
        Option(
            "License of the weights, e.g. CC-BY-4.0, recorded in the bundle and its graph; that of the weights in this "
            "package is known.",
            group=OUTPUT_GROUP,
            metavar="NAME",
        ),
    ] = None
    overwrite: Annotated[bool, Option("Replace an existing bundle.", group=OUTPUT_GROUP)] = False

    def __post_init__(self) -> None:
        """Check every field.

        Raises:
            InputError: A field is out of range; the subject is its name.
        """
        check_choices(self)
        if self.has_pairs:
            self.check_pairs()
        height, width = self.size
        if not (1 <= height <= MAX_SIDE_PX and 1 <= width <= MAX_SIDE_PX):
            raise InputError(
                f"{width}x{height}; expected 1x1 to {MAX_SIDE_PX}x{MAX_SIDE_PX} pixels", subject="size"
            )
        if self.weight_storage != "fp32" and self.precision != "fp32":
            raise InputError(
                f"{self.weight_storage!r} in a graph in {self.precision}; expected fp32, as such a graph stores its "
                f"weights in 16 bits already",
                subject="weight_storage",
                remedy="Export in {precision}, or leave {weight_storage} out",
                settings={"precision": "fp32", "weight_storage": ...},
            )
        check_range("batch", self.batch, 1, MAX_BATCH, "frames")
