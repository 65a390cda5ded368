"""Sizes and shapes of a network's inputs, and the values of those that take no source."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tcmoa_export.wrap.input_context import InputContext
from tcmoa_export.wrap.plan import Channels, Pads
from tcmoa_runtime.images import format_size
from tcmoa_runtime.typing import FrameSize, SourceName


class InputShapes:
    """Sizes and shapes of the inputs of a network whose layout is known."""

    def __init__(self, context: InputContext) -> None:
        self._context = context
        self._infos, self._given, self._batch = context.infos, context.given, context.batch

    def fixed_size(self, pictures: Sequence[str], layout: str | None) -> FrameSize | None:
        """Return the (H, W) that the network's pictures must have, None if it takes any."""
        if layout is None:
            return None
        found = set()
        for name in pictures:
            dims = self._infos[name].dims
            if dims:
                height, width = dims[layout.index("h")], dims[layout.index("w")]
                if (height is None) != (width is None):
                    raise self._context.refuse(
                        f"the input '{name}' fixes one side only, {height or width}; expected both or none",
                        "Check {layout}, or export the network with both sides dynamic",
                        layout=...,
                    )
                if height is not None and width is not None:
                    found.add((height, width))
        if len(found) > 1:
            raise self._context.refuse("its two inputs have different sizes; expected equal ones")
        return found.pop() if found else None

    def pads(self, size: FrameSize, fixed: FrameSize | None) -> tuple[FrameSize, Pads]:
        """Return the size of the network's pictures, and what is added to the frames for it."""
        given = self._given
        starts, ends, padded = [], [], []
        for side, exact in zip(size, fixed or (None, None), strict=True):
            inner = side + 2 * given.border
            if exact is not None:
                target = exact
            else:
                target = math.ceil(inner / given.multiple) * given.multiple
                if given.pad_always and target == inner:
                    target += given.multiple
            rest = target - inner
            if rest < 0:
                raise self._context.refuse(
                    f"it takes {format_size(fixed or size)} only, but the frames are {format_size(size)}; expected "
                    f"frames of its size",
                    "Leave {size} out, or export the network with dynamic sizes; the runtime fits frames of other "
                    "sizes",
                    size=...,
                )
            start = given.border + (rest // 2 if given.pad_at == "around" else 0)
            starts.append(start)
            ends.append(target - side - start)
            padded.append(target)
        pads = Pads(starts[0], starts[1], ends[0], ends[1])
        if pads.any and given.padding is None:
            self._context.questions.ask("padding")
            self._context.questions.check()
        lost = 1 if given.padding == "reflect" else 0
        if pads.any and given.padding in ("reflect", "symmetric"):
            for side, pad in ((size[0], max(pads.top, pads.bottom)), (size[1], max(pads.left, pads.right))):
                if pad > side - lost:
                    raise self._context.refuse(
                        f"{pad} pixels cannot be mirrored from a side of {side}; expected fewer"
                    )
        return (padded[0], padded[1]), pads

    def small_size(self, size: FrameSize, layout: str) -> FrameSize:
        """Return the size of the smaller sources: that of the input if fixed, else the shorter side as given."""
        for name in self._given.small_inputs:
            dims = self._infos[name].dims
            if len(dims) == len(layout):
                height, width = dims[layout.index("h")], dims[layout.index("w")]
                if height is not None and width is not None:
                    return height, width
        shorter = min(size)
        small = self._given.small_side
        # As torchvision.transforms.Resize(size) does: the longer side is truncated.
        return (
            small if size[0] == shorter else int(small * size[0] / shorter),
            small if size[1] == shorter else int(small * size[1] / shorter),
        )

    def shapes(
        self,
        pictures: Sequence[str],
        join: str | None,
        layout: str,
        channels: Mapping[SourceName, Channels],
        padded: FrameSize,
        small_size: FrameSize,
    ) -> dict[str, tuple[int, ...]]:
        """Return the shape of each input that takes a source."""
        shapes: dict[str, tuple[int, ...]] = {}
        for names, (height, width) in ((pictures, padded), (self._given.small_inputs, small_size)):
            for index, name in enumerate(names):
                joined = len(names) == 1
                count = (
                    sum(channels.values())
                    if join == "channels" and joined
                    else channels["y" if index else "x"]
                )
                axes = {
                    "n": 2 if join == "batch" and joined else self._batch,
                    "c": count,
                    "d": 2 if join == "depth" and joined else 1,
                    "h": height,
                    "w": width,
                }
                shape = tuple(axes[axis] for axis in layout)
                self._check_shape(name, shape, layout)
                shapes[name] = shape
        return shapes

    def _check_shape(self, name: str, shape: tuple[int, ...], layout: str) -> None:
        dims = self._infos[name].dims
        if not dims:
            return
        if len(dims) != len(shape) or any(
            d is not None and d != s for d, s in zip(dims, shape, strict=False)
        ):
            shown = [dim if dim is not None else "?" for dim in dims]
            raise self._context.refuse(
                f"the input '{name}' is {shown}, but the conventions give {list(shape)} ({layout.upper()}); "
                f"expected equal sizes".replace("'?'", "?"),
                "Check {layout}, {x_content}, {batch} and {size}",
                layout=...,
                x_content=...,
                batch=...,
                size=...,
            )
        if "n" not in layout and self._batch > 1:
            raise self._context.refuse(
                f"batch is {self._batch}, but its inputs have no batch axis; expected 1"
            )

    def constants(self, layout: str, padded: FrameSize) -> dict[str, NDArray[Any]]:
        """Return the values of the inputs that take no source."""
        found = {}
        for name, numbers in self._given.constants().items():
            info = self._infos[name]
            sides = dict(zip("hw", padded, strict=True)) if len(info.dims) == len(layout) else {}
            shape = tuple(
                dim if dim is not None else sides.get(layout[i] if sides else "", 1)
                for i, dim in enumerate(info.dims)
            )
            count = math.prod(shape)
            if len(numbers) not in (1, count):
                raise self._context.refuse(
                    f"{len(numbers)} values for the input '{name}', which has {count}; expected one or {count}"
                )
            values = np.asarray(numbers, np.float64).astype(info.dtype)
            found[name] = np.broadcast_to(values.reshape(-1), (count,)).reshape(shape).copy()
        return found
