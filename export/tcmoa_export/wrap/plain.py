"""The conventions in NumPy around the original network: what a wrapped graph is compared with."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final, Literal

import numpy as np
from numpy.typing import NDArray

from tcmoa_export.wrap.color import CHROMA_EPSILON, COLOR_SPACES, SPAN_EPSILON, ColorSpace
from tcmoa_export.wrap.network import Network
from tcmoa_export.wrap.plan import SOURCES, InputPlan, Plan
from tcmoa_export.wrap.resample import resize_matrix
from tcmoa_runtime.errors import InputError
from tcmoa_runtime.options.wrap import Padding
from tcmoa_runtime.typing import Frame, SourceName

Floats = NDArray[np.float32]
"""A picture float32 [H, W, C]."""

PadMode = Literal["reflect", "symmetric", "edge", "constant"]

_PAD_MODES: Final[Mapping[Padding, PadMode]] = {
    "reflect": "reflect",
    "symmetric": "symmetric",
    "repeat": "edge",
    "zero": "constant",
}


def fuse_plainly(network: Network, plan: Plan, x: Frame, y: Frame) -> Frame:
    """Fuse one pair as the authors' script does: the original network, with the conventions in NumPy.

    Args:
        network: The original network.
        plan: Its conventions. Where its batch is larger, the pair is repeated, and the first result returned.
        x: First source, uint8 [H, W, 3 or 1], in the channel order of the plan.
        y: Second source.

    Returns:
        The result, uint8 [H, W, 3], in the channel order of the plan.
    """
    frames: dict[SourceName, Frame] = {"x": x, "y": y}
    outputs = network.run(repeat_for_batch(plan, network_inputs(plan, frames)))
    if plan.batch > 1:
        outputs = {
            name: value.take([0], layout.index("n"))
            for name, value in outputs.items()
            if "n" in (layout := plan.output_layouts.get(name, ""))
        }
    for name in plan.conventions.output:
        if not np.isfinite(outputs[name]).all():
            raise InputError(
                f"its output '{name}' holds NaN or infinity; expected finite numbers",
                subject=network.subject,
                remedy="Check {range_in} and {layout}",
                settings={"range_in": ..., "layout": ...},
            )
    return outputs_to_frame(plan, outputs, frames)


def repeat_for_batch(plan: InputPlan, inputs: Mapping[str, NDArray[Any]]) -> dict[str, NDArray[Any]]:
    """Return the inputs of one pair, repeated for the batch of the plan."""
    return {
        name: np.broadcast_to(value, plan.shapes.get(name, value.shape)).copy()
        for name, value in inputs.items()
    }


def network_inputs(plan: InputPlan, frames: Mapping[SourceName, Frame]) -> dict[str, NDArray[Any]]:
    """Return the inputs of the network by name."""
    given = plan.conventions
    values = {source: _to_values(plan, source, frames[source]) for source in SOURCES}
    inputs = dict(plan.constants)
    pads = plan.pads
    for names, is_small in ((given.inputs, False), (given.small_inputs, True)):
        for name, sources in plan.inputs_of(names):
            parts = []
            for source in sources:
                picture = values[source]
                if is_small:
                    picture = _resize(picture, plan)
                elif pads.any:
                    around = ((pads.top, pads.bottom), (pads.left, pads.right), (0, 0))
                    picture = np.pad(picture, around, mode=_PAD_MODES[given.padding or "zero"])
                parts.append(_to_layout(picture, plan))
            assert given.layout is not None
            axis = given.layout.index(
                {"channels": "c", "batch": "n", "depth": "d"}.get(given.join or "", "c")
            )
            joined = parts[0] if len(parts) == 1 else np.concatenate(parts, axis)
            inputs[name] = np.ascontiguousarray(joined.astype(plan.dtypes[name]))
    return inputs


def _rgb(plan: InputPlan, frame: Frame) -> Floats:
    """Return a frame as RGB; one channel stays one."""
    frame = frame[..., ::-1] if plan.channel_order == "bgr" and frame.shape[-1] == 3 else frame
    return frame.astype(np.float32)


def _luma(space: ColorSpace, rgb: Floats) -> Floats:
    """Return the luma [H, W, 1] of RGB, or of gray as it is stored."""
    if rgb.shape[-1] == 3 and space.fixed_point:
        return _in_fixed_point(space, rgb, space.luma)
    luma = rgb @ space.luma if rgb.shape[-1] == 3 else rgb * space.luma.sum()
    luma = luma + np.float32(space.offset)
    return np.round(luma) if space.in_8_bits else luma


def _in_fixed_point(space: ColorSpace, rgb: Floats, matrix: Floats) -> Floats:
    """Return whole numbers [H, W, N] from tables of products, as C code rounds them: half up, then toward zero."""
    columns = [
        np.floor(np.trunc(rgb * (column * space.fixed_point) + np.float32(0.5)).sum(-1) / space.fixed_point)
        for column in matrix.T
    ]
    return np.stack(columns, -1)


def _chroma(space: ColorSpace, rgb: Floats) -> Floats:
    """Return Cb and Cr [H, W, 2], 0 for gray."""
    if rgb.shape[-1] == 1:
        return np.zeros((*rgb.shape[:2], 2), np.float32)
    if space.fixed_point:
        return _in_fixed_point(space, rgb, space.chroma)
    chroma = rgb @ space.chroma
    if space.luma_of_chroma.any():
        chroma = chroma + _luma(space, rgb) * space.luma_of_chroma
    return np.round(chroma) if space.in_8_bits else chroma


def _to_values(plan: InputPlan, source: SourceName, frame: Frame) -> Floats:
    """Return what of a source goes in, in the range of the network: float32 [H, W, C]."""
    given = plan.conventions
    rgb, content = _rgb(plan, frame), plan.content(source)
    if content == "luma":
        values = _luma(COLOR_SPACES[given.luma], rgb)
        values = np.round(values) if given.luma_in_8_bits else values
    elif content == "bgr":
        values = rgb[..., ::-1]
    else:
        values = rgb
    if given.stretch_in:
        low, high = values.min(), values.max()
        values = (values - low) / np.maximum(high - low, np.float32(SPAN_EPSILON))
    elif given.range_in != "0..255":
        values = values / np.float32(255)
    if given.stretch_in and given.range_in == "0..255":
        values = values * np.float32(255)
    if values.shape[-1] == 1 and plan.channels[source] == 3:
        values = np.repeat(values, 3, axis=-1)
    if given.range_in == "-1..1":
        values = values * np.float32(2) - np.float32(1)
    elif given.range_in == "mean-std":
        mean, std = (np.asarray(numbers, np.float32) for numbers in (given.mean, given.std))
        return np.asarray((values - mean) / std, np.float32)
    return np.asarray(values, np.float32)


def _resize(picture: Floats, plan: InputPlan) -> Floats:
    rows, cols = (
        resize_matrix(source, target, plan.conventions.small_filter)
        for source, target in zip(plan.size, plan.small_size, strict=True)
    )
    return np.asarray(
        np.stack([rows @ plane @ cols.T for plane in picture.transpose(2, 0, 1)], -1), np.float32
    )


def _to_layout(picture: Floats, plan: InputPlan) -> Floats:
    """Arrange a picture [H, W, C] in the layout of the inputs, with sizes of 1 for batch and depth."""
    layout = plan.conventions.layout
    assert layout is not None
    axes = "hwc"
    if "c" not in layout:
        picture, axes = picture[..., 0], "hw"
    for axis in "nd":
        if axis in layout:
            picture, axes = picture[None], axis + axes
    return picture.transpose([axes.index(axis) for axis in layout])


def outputs_to_frame(
    plan: Plan, outputs: Mapping[str, NDArray[Any]], frames: Mapping[SourceName, Frame]
) -> Frame:
    """Turn the outputs of the network into a frame uint8 [H, W, 3]."""
    given = plan.conventions
    space = COLOR_SPACES[given.luma]
    pictures = {source: _rgb(plan, frames[source]) for source in SOURCES}
    if given.output_kind == "weights":
        values = _weighted(plan, outputs, pictures)
    else:
        name = given.output[0]
        values = _in_255(plan, _crop(plan, _from_layout(outputs[name], plan.output_layouts[name])[0]))
        if given.color_out == "bgr":
            values = values[..., ::-1]
    if values.shape[-1] == 3 and (given.color_out or "").startswith("chroma"):
        values = _luma(COLOR_SPACES["full"], values[..., ::-1] if given.x_content == "bgr" else values)
    if given.stretch_out != "none" and given.stretch_at == "before-color":
        values = _stretch(plan, values)
    values = np.clip(values, 0, 255)
    if values.shape[-1] == 3 and given.color_out == "gray":
        if given.stretch_out != "none" and given.stretch_at == "after-color":
            values = np.clip(_stretch(plan, values), 0, 255)
        values = np.round(
            _quantize(plan, values[..., ::-1] if given.x_content == "bgr" else values) @ space_luma()
        )
        return _to_frame(plan, values)
    if (given.color_out or "").startswith("chroma"):
        values = np.clip(_restore_color(plan, space, values, pictures), 0, 255)
    if given.stretch_out != "none" and given.stretch_at == "after-color":
        values = np.clip(_stretch(plan, values), 0, 255)
    if space.in_8_bits and (given.color_out or "").startswith("chroma"):
        return _to_frame(plan, np.floor(values) if space.fixed_point else np.round(values))
    return _to_frame(plan, _quantize(plan, values))


def space_luma() -> Floats:
    """Return the weights of BT.601 [3, 1], with which a picture in three channels is made gray."""
    return COLOR_SPACES["full"].luma


def _to_frame(plan: Plan, values: Floats) -> Frame:
    frame = np.broadcast_to(values, (*values.shape[:2], 3)).astype(np.uint8)
    return np.ascontiguousarray(frame[..., ::-1] if plan.channel_order == "bgr" else frame)


def _quantize(plan: Plan, values: Floats) -> Floats:
    """Make whole numbers as the convention `rounding` says."""
    return np.round(values) if plan.conventions.rounding == "nearest" else np.floor(values)


def _from_layout(values: NDArray[Any], layout: str) -> Floats:
    """Return an output as float32 [N * D, H, W, C]."""
    axes = layout
    for axis in "ndc":
        if axis not in axes:
            values, axes = values[None], axis + axes
    arranged = values.transpose([axes.index(axis) for axis in "ndhwc"])
    return np.asarray(arranged.reshape(-1, *arranged.shape[2:]), np.float32)


def _crop(plan: Plan, picture: Floats) -> Floats:
    """Cut off what was padded; a network without padding of its own has done so already."""
    height, width = plan.size
    if picture.shape[:2] == plan.size:
        return picture
    return picture[plan.pads.top : plan.pads.top + height, plan.pads.left : plan.pads.left + width]


def _in_255(plan: Plan, values: Floats) -> Floats:
    """Map the range of the network to 0..255."""
    given = plan.conventions
    if given.range_out == "0..255":
        return values
    if given.range_out == "-1..1":
        return (values + np.float32(1)) * np.float32(127.5)
    if given.range_out == "mean-std":
        values = values * np.asarray(given.std, np.float32) + np.asarray(given.mean, np.float32)
    return values * np.float32(255)


def _stretch(plan: Plan, values: Floats) -> Floats:
    high = values.max()
    low = values.min() if plan.conventions.stretch_out == "min-max" else np.float32(0)
    unit = (values - low) / np.maximum(high - low, np.float32(SPAN_EPSILON))
    return np.asarray(unit * np.float32(255), np.float32)


def _weighted(
    plan: Plan, outputs: Mapping[str, NDArray[Any]], pictures: Mapping[SourceName, Floats]
) -> Floats:
    """Return the sum of both sources by their weights, in 0..255."""
    given = plan.conventions
    maps = []
    for name in given.output:
        for picture in _from_layout(outputs[name], plan.output_layouts[name]):
            maps += [_crop(plan, picture[..., i : i + 1]) for i in range(picture.shape[-1])]
    order = plan.sources if len(given.output) == 1 else ("x", "y")
    if len(maps) == 1:
        maps.append(1 - maps[0])
    if given.normalize_weights:
        total = np.maximum(maps[0] + maps[1], np.float32(CHROMA_EPSILON))
        maps = [weights / total for weights in maps]
    space = COLOR_SPACES[given.luma]
    parts = [pictures[s] if plan.keeps_own_color else _luma(space, pictures[s]) for s in order]
    return np.asarray(maps[0] * parts[0] + maps[1] * parts[1], np.float32)


def _restore_color(
    plan: Plan, space: ColorSpace, luma: Floats, pictures: Mapping[SourceName, Floats]
) -> Floats:
    """Add chroma to the fused luma: RGB float32 [H, W, 3]."""
    given = plan.conventions
    if space.in_8_bits:
        luma = _quantize(plan, luma)
    chroma = {source: _chroma(space, pictures[source]) for source in SOURCES}
    if given.color_out == "chroma-x":
        fused = chroma["x"]
    elif given.color_out == "chroma-nearest":
        distance = {s: np.abs(luma - _luma(space, pictures[s])) for s in SOURCES}
        fused = np.where(distance["x"] <= distance["y"], chroma["x"], chroma["y"])
    else:
        weights = {s: np.abs(chroma[s]) for s in SOURCES}
        if given.chroma_weights == "picture":
            weights = {s: w.sum((0, 1), keepdims=True) for s, w in weights.items()}
        total = weights["x"] + weights["y"]
        # Scripts in 8 bits compute with 128 for gray, which decides how exact numbers are truncated.
        gray = np.float32(128 if space.in_8_bits else 0)
        fused = (chroma["x"] + gray) * weights["x"] + (chroma["y"] + gray) * weights["y"]
        fused = fused / np.maximum(total, np.float32(CHROMA_EPSILON))
        if space.in_8_bits:
            fused = _quantize(plan, np.where(total > 0, fused, gray)) - gray
    return np.float32(space.scale) * (luma - np.float32(space.offset)) + fused @ space.back
