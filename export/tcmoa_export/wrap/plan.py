"""Conventions that are complete: what was given, and what the network itself says."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final, Literal

import numpy as np
from numpy.typing import NDArray

from tcmoa_runtime.contract import Contract, Task
from tcmoa_runtime.options.wrap import Conventions
from tcmoa_runtime.typing import ChannelOrder, FrameSize, SourceName

Channels = Literal[1, 3]

SOURCES: Final[tuple[SourceName, SourceName]] = ("x", "y")


@dataclass(frozen=True)
class Pads:
    """Pixels added around a picture."""

    top: int = 0
    left: int = 0
    bottom: int = 0
    right: int = 0

    @property
    def any(self) -> bool:
        """Whether there are any."""
        return bool(self.top or self.left or self.bottom or self.right)


@dataclass(frozen=True, kw_only=True)
class InputPlan:
    """How two frames become the inputs of a network.

    Attributes:
        conventions: The conventions, none of those of inputs left open.
        task: The task.
        size: (H, W) of the frames.
        padded: (H, W) of the network's pictures.
        pads: What is between the two.
        batch: Number of frames.
        channel_order: Order of the channels of the frames.
        channels: Channels in which each source enters the network.
        shapes: Shapes of the network's inputs by name.
        dtypes: Their element types.
        constants: Values of the inputs that take no source.
        small_size: (h, w) of the smaller sources.
        read: What was read off the network, in words.
    """

    conventions: Conventions
    task: Task
    size: FrameSize
    padded: FrameSize
    pads: Pads
    batch: int
    channel_order: ChannelOrder
    channels: Mapping[SourceName, Channels]
    shapes: Mapping[str, tuple[int, ...]]
    dtypes: Mapping[str, np.dtype[Any]]
    constants: Mapping[str, NDArray[Any]]
    small_size: FrameSize
    read: tuple[str, ...]

    @property
    def sources(self) -> tuple[SourceName, SourceName]:
        """The sources in the order of the network."""
        return ("y", "x") if self.conventions.order == "yx" else ("x", "y")

    def frame_channels(self, source: SourceName) -> Channels:
        """Return the channels of the frames of a source."""
        content = self.conventions.x_content if source == "x" else self.conventions.y_content
        return 1 if content == "gray" else 3

    def content(self, source: SourceName) -> str:
        """Return what of a source goes in."""
        content = self.conventions.x_content if source == "x" else self.conventions.y_content
        assert content is not None
        return content

    def inputs_of(self, names: Sequence[str]) -> Iterator[tuple[str, tuple[SourceName, ...]]]:
        """Yield each of the given inputs and the sources that it takes, in their order."""
        if len(names) == 2:
            yield from zip(names, (("x",), ("y",)), strict=True)
        else:
            yield from ((name, self.sources) for name in names)


@dataclass(frozen=True, kw_only=True)
class Plan(InputPlan):
    """How two frames become the inputs of a network, and its outputs a frame.

    Attributes:
        output_layouts: Axes of each output that is used.
        output_channels: Channels of the picture; of one weight map otherwise.
    """

    output_layouts: Mapping[str, str]
    output_channels: int

    @property
    def stretches(self) -> int:
        """Number of pictures that are stretched by their own extremes."""
        return 2 * self.conventions.stretch_in + (self.conventions.stretch_out != "none")

    @property
    def contract(self) -> Contract:
        """The contract of the graph."""
        return Contract(
            *self.size,
            (0, 0),
            prompts=0,
            batch=self.batch,
            x_channels=self.frame_channels("x"),
            y_channels=self.frame_channels("y"),
            with_control=False,
            stretches=self.stretches,
        )

    @property
    def keeps_own_color(self) -> bool:
        """Whether the three channels of the network's picture are those of the frame."""
        return self.conventions.color_out in ("rgb", "bgr")
