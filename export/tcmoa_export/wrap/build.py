"""The whole contract as one graph: uint8 frames in, the network, one uint8 frame out.

Pictures are kept as planes [B, C, H, W] between frames [B, H, W, C]: ONNX Runtime computes ten times slower on arrays
whose last axis is 1, or is 3 for one of two operands only.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import TensorProto, helper

from tcmoa_export.graph_builder import GraphBuilder
from tcmoa_export.wrap.color import CHROMA_EPSILON, COLOR_SPACES, SPAN_EPSILON, ColorSpace
from tcmoa_export.wrap.plan import SOURCES, Plan
from tcmoa_export.wrap.prepare import shape_of
from tcmoa_export.wrap.resample import resize_matrix
from tcmoa_runtime import __version__
from tcmoa_runtime.contract import EXTREMES, FUSED, HELD_EXTREMES, X, Y
from tcmoa_runtime.typing import SourceName

_PAD_MODES = {"reflect": "reflect", "repeat": "edge", "zero": "constant"}
_MOVES = frozenset({"Transpose", "Reshape", "Slice", "Split", "Gather", "Squeeze", "Unsqueeze", "Identity"})
_RESIZE_BLOCKS = 8
"""Parts in which an axis is made smaller: each reads only its pixels, which is an eighth of the multiplications."""


def compose_graph(network: onnx.ModelProto, plan: Plan) -> onnx.ModelProto:
    """Compose the graph of a wrapped network.

    Args:
        network: The network, prepared for the shapes of the plan.
        plan: Its conventions.

    Returns:
        A graph of `plan.contract` in the operator set of the network.
    """
    return _Composer(network, plan).compose()


class _Composer:
    def __init__(self, network: onnx.ModelProto, plan: Plan) -> None:
        self._network, self._plan, self._given = network, plan, plan.conventions
        self._graph = GraphBuilder()
        self._frames: dict[SourceName, str] = {}
        self._planes: dict[SourceName, str] = {}
        self._lumas: dict[SourceName, str] = {}
        self._extremes: list[str] = []

    def compose(self) -> onnx.ModelProto:
        graph, contract = self._graph, self._plan.contract
        with graph.float32():
            for source, name in zip(SOURCES, (X, Y), strict=True):
                self._frames[source] = graph.op("Cast", name, to=TensorProto.FLOAT)
            inputs = self._network_inputs()
        with graph.scope("network"):
            outputs = graph.inline(self._network.graph, inputs)
        with graph.float32():
            self._finish(outputs)
            if self._extremes:
                graph.output("Concat", EXTREMES, *self._extremes, axis=1)
        opset = next(entry.version for entry in self._network.opset_import)
        model = graph.build("wrapped", contract.inputs, contract.outputs, __version__, opset=opset)
        _widen_uint8(model.graph)
        model.ir_version = max(model.ir_version, helper.find_min_ir_version_for(list(model.opset_import)))
        return model

    # Sources -----------------------------------------------------------------------------------------------------

    def _network_inputs(self) -> dict[str, str]:
        """Add the inputs of the network from the frames, and return their values by name."""
        given, graph = self._given, self._graph
        values: dict[SourceName, str] = {}
        for source in SOURCES:
            with graph.scope(source):
                values[source] = self._to_values(source)
        found = {}
        layout = given.layout or ""
        for names, is_small in ((given.inputs, False), (given.small_inputs, True)):
            for name, sources in self._plan.inputs_of(names):
                parts = []
                for source in sources:
                    picture = values[source]
                    size = self._plan.size
                    if is_small:
                        picture, size = self._resize(picture), self._plan.small_size
                    elif self._plan.pads.any:
                        picture, size = self._pad(picture), self._plan.padded
                    parts.append(self._to_layout(picture, size, self._plan.channels[source]))
                axis = layout.find({"channels": "c", "batch": "n", "depth": "d"}.get(given.join or "", "c"))
                joined = graph.concat(parts, axis)
                dtype = self._plan.dtypes[name]
                if dtype != np.float32:
                    joined = graph.op("Cast", joined, to=helper.np_dtype_to_tensor_dtype(dtype))
                found[name] = joined
        return found

    def _to_values(self, source: SourceName) -> str:
        """Add what of a source goes in, in the range of the network: [B, C, H, W]."""
        given, graph = self._given, self._graph
        content, channels = self._plan.content(source), self._plan.channels[source]
        if content == "luma":
            values = self._luma(source)
            if given.luma_in_8_bits and not COLOR_SPACES[given.luma].in_8_bits:
                values = graph.op("Round", values)
        elif content == "gray":
            values = self._frame_planes(source)
        else:
            values = self._in_order(self._frame_planes(source), is_bgr=content == "bgr")
        if given.stretch_in:
            values = self._stretch(values, to=255.0 if given.range_in == "0..255" else 1.0)
        elif given.range_in != "0..255":
            values = graph.op("Div", values, graph.scalar(255.0))
        if channels == 3 and content in ("luma", "gray"):
            values = graph.concat([values] * 3, 1)
        if given.range_in == "-1..1":
            values = graph.op("Sub", graph.mul(values, graph.scalar(2.0)), graph.scalar(1.0))
        elif given.range_in == "mean-std":
            values = graph.op("Sub", values, self._numbers(given.mean, "mean"))
            values = graph.op("Div", values, self._numbers(given.std, "std"))
        return values

    def _in_order(self, values: str, *, is_bgr: bool) -> str:
        """Add a change between RGB and BGR, where the frames have the other order than asked for."""
        if is_bgr == (self._plan.channel_order == "bgr"):
            return values
        return self._graph.gather(values, np.array([2, 1, 0], np.int64), 1)

    def _frame_planes(self, source: SourceName) -> str:
        """Add the planes [B, C, H, W] of a source, in the channel order of the frames."""
        if source not in self._planes:
            channels = self._plan.frame_channels(source)
            self._planes[source] = self._to_planes(self._frames[source], channels)
        return self._planes[source]

    def _to_planes(self, frame: str, channels: int) -> str:
        shape = (self._plan.batch, *self._plan.size, channels)
        return self._transpose(frame, "nhwc", "nchw", shape)

    def _to_pixels(self, planes: str, channels: int) -> str:
        shape = (self._plan.batch, channels, *self._plan.size)
        return self._transpose(planes, "nchw", "nhwc", shape)

    def _numbers(self, values: Sequence[float] | NDArray[np.float32], name: str) -> str:
        """Add a constant for each channel of planes."""
        return self._graph.floats(np.asarray(values, np.float32).reshape(1, -1, 1, 1), name)

    def _luma(self, source: SourceName) -> str:
        """Add the luma [B, 1, H, W] of a source."""
        if source not in self._lumas:
            space, channels = COLOR_SPACES[self._given.luma], self._plan.frame_channels(source)
            if space.fixed_point and channels == 3:
                is_bgr = self._plan.channel_order == "bgr"
                luma = self._in_fixed_point(space, self._frame_planes(source), space.luma, is_bgr=is_bgr)
            else:
                luma = self._luma_of(space, self._frames[source], channels)
            self._lumas[source] = luma
        return self._lumas[source]

    def _luma_of(self, space: ColorSpace, frame: str, channels: int, *, is_bgr: bool | None = None) -> str:
        """Add the luma [B, 1, H, W] of frames [B, H, W, C]; see `_in_fixed_point` for that of color in such spaces."""
        graph = self._graph
        if channels == 1:
            factor = float(space.luma.sum())
            values = self._to_planes(frame, 1)
            values = values if abs(factor - 1) < 1e-6 else graph.mul(values, graph.scalar(factor))
        else:
            is_bgr = self._plan.channel_order == "bgr" if is_bgr is None else is_bgr
            values = graph.linear(frame, space.luma[::-1].copy() if is_bgr else space.luma)
            values = self._to_planes(values, 1)
        if space.offset:
            values = graph.add(values, graph.scalar(space.offset))
        return graph.op("Round", values) if space.in_8_bits else values

    def _in_fixed_point(
        self, space: ColorSpace, planes: str, matrix: NDArray[np.float32], *, is_bgr: bool
    ) -> str:
        """Add whole numbers [B, N, H, W] from rounded products of planes [B, 3, H, W]: half up, then toward zero."""
        graph, (height, width), batch = self._graph, self._plan.size, self._plan.batch
        columns = []
        for column in (matrix[::-1] if is_bgr else matrix).T:
            products = graph.mul(planes, self._numbers(np.abs(column) * space.fixed_point, "steps"))
            products = graph.add(products, self._numbers(np.sign(column) * np.float32(0.5), "half"))
            products = graph.op("Floor", products)
            if (column < 0).any():
                products = graph.op("Max", products, graph.scalar(0.0))
            signs = graph.floats((np.sign(column) / space.fixed_point)[None], "signs")
            total = graph.op("MatMul", signs, graph.reshape(products, batch, 3, height * width))
            columns.append(graph.op("Floor", graph.reshape(total, batch, 1, height, width)))
        return graph.concat(columns, 1)

    def _chroma(self, space: ColorSpace, source: SourceName) -> str:
        """Add Cb and Cr [B, H, W, 2] of a source."""
        graph, plan = self._graph, self._plan
        if plan.frame_channels(source) == 1:
            return graph.floats(np.zeros((1, 1, 1, 2), np.float32), "gray")
        is_bgr = plan.channel_order == "bgr"
        if space.fixed_point:
            planes = self._in_fixed_point(space, self._frame_planes(source), space.chroma, is_bgr=is_bgr)
            return self._to_pixels(planes, 2)
        matrix = space.chroma[::-1].copy() if is_bgr else space.chroma
        values = graph.linear(self._frames[source], matrix)
        if space.luma_of_chroma.any():
            share = graph.floats(space.luma_of_chroma, "luma_of_chroma")
            own = self._to_pixels(self._luma(source), 1)
            values = graph.add(values, graph.op("MatMul", own, graph.reshape(share, 1, 2)))
        return graph.op("Round", values) if space.in_8_bits else values

    def _pad(self, picture: str) -> str:
        """Add pixels around planes [B, C, H, W]."""
        graph, pads, (height, width) = self._graph, self._plan.pads, self._plan.size
        if self._given.padding == "symmetric":  # Pad mirrors without the edge itself
            rows = _mirrored(height, pads.top, pads.bottom)
            cols = _mirrored(width, pads.left, pads.right)
            return graph.gather(graph.gather(picture, rows, 2), cols, 3)
        amounts = [0, 0, pads.top, pads.left, 0, 0, pads.bottom, pads.right]
        return graph.op(
            "Pad", picture, graph.integers(amounts, "pads"), mode=_PAD_MODES[self._given.padding or "zero"]
        )

    def _resize(self, planes: str) -> str:
        """Make planes [B, C, H, W] smaller: one matrix for each axis, in blocks."""
        graph, plan = self._graph, self._plan
        (height, width), (rows, cols) = plan.size, plan.small_size
        parts = []
        for block, start, end in _blocks(resize_matrix(height, rows, self._given.small_filter)):
            part = graph.slice(planes, (start,), (end,), (2,))
            parts.append(graph.op("MatMul", graph.floats(block, "rows"), part))
        planes = graph.concat(parts, 2)
        parts = []
        for block, start, end in _blocks(resize_matrix(width, cols, self._given.small_filter)):
            part = graph.slice(planes, (start,), (end,), (3,))
            parts.append(graph.op("MatMul", part, graph.floats(block.T.copy(), "cols")))
        return graph.concat(parts, 3)

    def _to_layout(self, planes: str, size: tuple[int, int], channels: int) -> str:
        """Arrange planes [B, C, H, W] in the layout of the inputs."""
        layout = self._given.layout or ""
        shape = {"n": self._plan.batch, "h": size[0], "w": size[1], "c": channels, "d": 1}
        without_depth = "".join(axis for axis in layout if axis != "d")
        if "n" not in without_depth:
            without_depth = f"n{without_depth}"
        if "c" not in without_depth:
            without_depth = f"{without_depth}c"
        planes = self._transpose(planes, "nchw", without_depth, tuple(shape[axis] for axis in "nchw"))
        if without_depth != layout:
            planes = self._graph.reshape(planes, *(shape[axis] for axis in layout))
        return planes

    def _transpose(self, value: str, axes: str, wanted: str, shape: Sequence[int]) -> str:
        """Add a change of axes; a reshape where only axes of size 1 move."""
        if axes == wanted:
            return value
        sizes = dict(zip(axes, shape, strict=True))
        large = [axis for axis in axes if sizes[axis] > 1]
        if large == [axis for axis in wanted if sizes[axis] > 1]:
            return self._graph.reshape(value, *(sizes[axis] for axis in wanted))
        return self._graph.transpose(value, *(axes.index(axis) for axis in wanted))

    def _stretch(self, values: str, *, to: float, by_maximum: bool = False) -> str:
        """Stretch planes [B, C, H, W] by their own extremes, or by those that the runtime holds."""
        graph, index, batch = self._graph, len(self._extremes), self._plan.batch
        axes = graph.integers([1, 2, 3], "axes")
        high = graph.op("ReduceMax", values, axes, keepdims=1)
        low = (
            graph.floats(np.zeros((batch, 1, 1, 1), np.float32), "no_minimum")
            if by_maximum
            else graph.op("ReduceMin", values, axes, keepdims=1)
        )
        self._extremes.append(graph.reshape(graph.concat([low, high], 3), batch, 1, 2))
        held = [
            graph.reshape(
                graph.slice(HELD_EXTREMES, (index, end), (index + 1, end + 1), (1, 2)), batch, 1, 1, 1
            )
            for end in (0, 1)
        ]
        is_held = graph.op("LessOrEqual", *held)
        high = graph.op("Where", is_held, held[1], high)
        if by_maximum:
            span, above = high, values
        else:
            low = graph.op("Where", is_held, held[0], low)
            span, above = graph.op("Sub", high, low), graph.op("Sub", values, low)
        unit = graph.op("Div", above, graph.op("Max", span, graph.scalar(SPAN_EPSILON)))
        unit = graph.op("Clip", unit, graph.scalar(0.0), graph.scalar(1.0))
        return unit if to == 1.0 else graph.mul(unit, graph.scalar(to))

    # Result ------------------------------------------------------------------------------------------------------

    def _finish(self, outputs: Mapping[str, str]) -> None:
        """Add the frame from the outputs of the network."""
        given, graph, plan = self._given, self._graph, self._plan
        space, color = COLOR_SPACES[given.luma], given.color_out or ""
        restores = color.startswith("chroma")
        if given.output_kind == "weights":
            values, channels = self._weighted(outputs)
        else:
            name = given.output[0]
            values, channels = self._picture(outputs[name], name), plan.output_channels
            values = self._in_255(values)
            if plan.keeps_own_color:
                is_bgr = color == "bgr"
                values = self._in_order(values, is_bgr=is_bgr)
        is_network_bgr = given.x_content == "bgr"
        if channels == 3 and restores:
            pixels = self._to_pixels(values, 3)
            values = self._luma_of(COLOR_SPACES["full"], pixels, 3, is_bgr=is_network_bgr)
            channels = 1
        before = given.stretch_out != "none" and given.stretch_at == "before-color"
        after = given.stretch_out != "none" and given.stretch_at == "after-color"
        by_maximum = given.stretch_out == "max"
        if before:
            values = self._stretch(values, to=255.0, by_maximum=by_maximum)
        elif restores or after:
            values = self._clip(values)
        if channels == 3 and color == "gray":
            values = self._clip(values)
            if after:
                values = self._stretch(values, to=255.0, by_maximum=by_maximum)
            values = self._to_pixels(self._quantize(values), 3)
            values = graph.op("Round", self._luma_of(COLOR_SPACES["full"], values, 3, is_bgr=is_network_bgr))
            self._to_frame(self._to_pixels(values, 1), 1)
            return
        if restores:
            values, channels = self._restore_color(space, values), 3
        if after:
            if restores:
                values = self._clip(values)
            values = self._stretch(values, to=255.0, by_maximum=by_maximum)
        values = self._clip(values)
        if restores and space.in_8_bits:
            values = graph.op("Floor" if space.fixed_point else "Round", values)
        else:
            values = self._quantize(values)
        self._to_frame(values if restores else self._to_pixels(values, channels), channels)

    def _to_frame(self, values: str, channels: int) -> None:
        """Add the output `fused` from whole numbers [B, H, W, 1 or 3] in the channel order of the frames."""
        # The cast comes last: TensorRT has uint8 for inputs and outputs of a graph only.
        values = values if channels == 3 else self._repeat(values)
        self._graph.output("Cast", FUSED, values, to=TensorProto.UINT8)

    def _repeat(self, gray: str, steps: float = 1.0) -> str:
        """Add three equal channels [B, H, W, 3] from one; ONNX Runtime takes ten times longer for Expand."""
        return self._graph.linear(gray, np.full((1, 3), steps, np.float32))

    def _clip(self, values: str) -> str:
        return self._graph.op("Clip", values, self._graph.scalar(0.0), self._graph.scalar(255.0))

    def _quantize(self, values: str) -> str:
        return self._graph.op("Round" if self._given.rounding == "nearest" else "Floor", values)

    def _picture(self, output: str, name: str, *, index: int | None = None) -> str:
        """Arrange an output as planes [B, C, H, W], without what was padded.

        Args:
            output: The value.
            name: Name of the output.
            index: Position of a weight map along the axes of batch and depth, where these hold several.
        """
        graph, plan = self._graph, self._plan
        layout = plan.output_layouts[name]
        info = next(info for info in self._network.graph.output if info.name == name)
        shape = shape_of(info)
        if info.type.tensor_type.elem_type != TensorProto.FLOAT:
            output = graph.op("Cast", output, to=TensorProto.FLOAT)
        sizes = {axis: shape[layout.index(axis)] if axis in layout else 1 for axis in "ndhwc"}
        full = layout + "".join(axis for axis in "nc" if axis not in layout)
        full = full.replace("d", "")
        if index is not None and (sizes["n"] * sizes["d"] > plan.batch):
            axis = "d" if sizes["d"] > 1 else "n"
            output = graph.slice(output, (index,), (index + 1,), (layout.index(axis),))
            sizes[axis] = 1
        if full != layout:
            output = graph.reshape(output, *(sizes[axis] for axis in full))
        arranged = self._transpose(output, full, "nchw", [sizes[axis] for axis in full])
        if (sizes["h"], sizes["w"]) == plan.size:
            return arranged
        top, left = plan.pads.top, plan.pads.left
        height, width = plan.size
        return graph.slice(arranged, (top, left), (top + height, left + width), (2, 3))

    def _in_255(self, values: str) -> str:
        given, graph = self._given, self._graph
        if given.range_out == "0..255":
            return values
        if given.range_out == "-1..1":
            return graph.mul(graph.add(values, graph.scalar(1.0)), graph.scalar(127.5))
        if given.range_out == "mean-std":
            values = graph.mul(values, self._numbers(given.std, "std"))
            values = graph.add(values, self._numbers(given.mean, "mean"))
        return graph.mul(values, graph.scalar(255.0))

    def _weighted(self, outputs: Mapping[str, str]) -> tuple[str, int]:
        """Add the sum of both sources by their weights, in 0..255; returns it and its channels."""
        given, graph, plan = self._given, self._graph, self._plan
        maps = []
        for name in given.output:
            layout = plan.output_layouts[name]
            shape = shape_of(next(info for info in self._network.graph.output if info.name == name))
            count = 1
            for axis in "nd":
                count *= shape[layout.index(axis)] if axis in layout else 1
            for index in range(count // plan.batch):
                picture = self._picture(outputs[name], name, index=index)
                if plan.output_channels == 1:
                    maps.append(picture)
                else:
                    maps += [graph.slice(picture, (i,), (i + 1,), (1,)) for i in range(plan.output_channels)]
        if len(maps) == 1:
            maps.append(graph.op("Sub", graph.scalar(1.0), maps[0]))
        if given.normalize_weights:
            total = graph.op("Max", graph.add(*maps), graph.scalar(CHROMA_EPSILON))
            maps = [graph.op("Div", weights, total) for weights in maps]
        order = plan.sources if len(given.output) == 1 else ("x", "y")
        parts = [self._frame_planes(s) if plan.keeps_own_color else self._luma(s) for s in order]
        terms = [graph.mul(weights, part) for weights, part in zip(maps, parts, strict=True)]
        channels = max(plan.frame_channels(s) for s in SOURCES) if plan.keeps_own_color else 1
        return graph.add(*terms), channels

    def _restore_color(self, space: ColorSpace, luma: str) -> str:
        """Add chroma to the fused luma [B, 1, H, W]: frames [B, H, W, 3] in their channel order."""
        given, graph, plan = self._given, self._graph, self._plan
        if space.in_8_bits:
            luma = self._quantize(luma)
        if (
            given.color_out == "chroma-x" and not space.in_8_bits
        ):  # the same, with fewer passes over the frame
            change = self._to_pixels(graph.op("Sub", luma, self._luma("x")), 1)
            frame = self._frames["x"]
            frame = frame if plan.frame_channels("x") == 3 else self._repeat(frame)
            return graph.add(frame, self._repeat(change, space.scale))
        back = space.back[:, ::-1].copy() if plan.channel_order == "bgr" else space.back
        if space.offset:
            luma = graph.op("Sub", luma, graph.scalar(space.offset))
        chroma = graph.linear(self._fused_chroma(space, luma), back)
        return graph.add(chroma, self._repeat(self._to_pixels(luma, 1), space.scale))

    def _fused_chroma(self, space: ColorSpace, luma: str) -> str:
        """Add Cb and Cr of the result [B, H, W, 2]; `luma` is that of the result, with 0 for black."""
        given, graph = self._given, self._graph
        colored = [source for source in SOURCES if self._plan.frame_channels(source) == 3]
        if given.color_out == "chroma-x":
            return self._chroma(space, "x")
        if given.color_out == "chroma-weighted" and len(colored) == 1:  # the other one has no saturation
            return self._chroma(space, colored[0])
        chroma = {source: self._chroma(space, source) for source in SOURCES}
        if given.color_out == "chroma-nearest":
            distance = []
            for source in SOURCES:
                own = self._luma(source)
                if space.offset:
                    own = graph.op("Sub", own, graph.scalar(space.offset))
                distance.append(graph.op("Abs", graph.op("Sub", luma, own)))
            # 1 where x is nearer, as a factor: ONNX Runtime selects slowly by a mask with fewer channels.
            nearer = graph.op("Cast", graph.op("LessOrEqual", *distance), to=TensorProto.FLOAT)
            both = graph.linear(self._to_pixels(nearer, 1), np.ones((1, 2), np.float32))
            difference = graph.op("Sub", chroma["x"], chroma["y"])
            return graph.add(chroma["y"], graph.mul(both, difference))
        weights = {source: graph.op("Abs", values) for source, values in chroma.items()}
        if given.chroma_weights == "picture":
            axes = graph.integers([1, 2], "axes")
            weights = {s: graph.op("ReduceSum", w, axes, keepdims=1) for s, w in weights.items()}
        total = graph.add(weights["x"], weights["y"])
        gray = graph.scalar(128.0)
        if space.in_8_bits:  # see `plain`
            chroma = {s: graph.add(values, gray) for s, values in chroma.items()}
        terms = [graph.mul(chroma[source], weights[source]) for source in SOURCES]
        fused = graph.op("Div", graph.add(*terms), graph.op("Max", total, graph.scalar(CHROMA_EPSILON)))
        if not space.in_8_bits:
            return fused
        fused = graph.op("Where", graph.op("Greater", total, graph.scalar(0.0)), fused, gray)
        return graph.op("Sub", self._quantize(fused), gray)


def _widen_uint8(graph: onnx.GraphProto) -> None:
    """Let networks that take or give uint8 do so in int32: TensorRT has uint8 for inputs and outputs of a graph only.

    Nothing is changed where an operator computes on uint8, which could overflow.
    """
    casts, narrow = [], set()
    for node in graph.node:
        to = next((a.i for a in node.attribute if a.name == "to"), None) if node.op_type == "Cast" else None
        if to == TensorProto.UINT8 and node.output[0] != FUSED:
            casts.append(node)
            narrow.add(node.output[0])
        elif to is None and not narrow.isdisjoint(node.input):
            is_moved = node.op_type in _MOVES or (node.op_type == "Concat" and narrow.issuperset(node.input))
            if not is_moved:
                return
            narrow.update(node.output)
    for node in casts:
        next(a for a in node.attribute if a.name == "to").i = TensorProto.INT32


def _mirrored(side: int, before: int, after: int) -> np.ndarray[tuple[int], np.dtype[np.int64]]:
    """Return the indices of a side that is mirrored at its edges, the edge itself included."""
    return np.pad(np.arange(side, dtype=np.int64), (before, after), mode="symmetric")


def _blocks(matrix: np.ndarray[tuple[int, int], np.dtype[np.float32]]) -> list[tuple[np.ndarray, int, int]]:
    """Split a matrix into blocks of rows, each with the columns that it reads: (block, first column, end)."""
    found = []
    for rows in np.array_split(np.arange(matrix.shape[0]), min(_RESIZE_BLOCKS, matrix.shape[0])):
        part = matrix[rows[0] : rows[-1] + 1]
        used = np.flatnonzero(part.any(0))
        start, end = int(used[0]), int(used[-1]) + 1
        found.append((np.ascontiguousarray(part[:, start:end]), start, end))
    return found
