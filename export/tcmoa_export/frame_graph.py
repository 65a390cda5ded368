"""Frames in and out, as ONNX: casts first and last, fit to whole windows, luma, rounding, clipping."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Final

import numpy as np
from onnx import TensorProto
from torch import Tensor

from tcmoa import TCMoA
from tcmoa.reference import LEAST_SATURATION, SATURATION
from tcmoa.source_weights import RULES
from tcmoa.window_fit import CROP
from tcmoa_export.folds import fold_head, fold_positions, fold_tail
from tcmoa_export.graph_builder import GraphBuilder
from tcmoa_export.source_weights_graph import WeightGraph
from tcmoa_export.spec import ExportSpec
from tcmoa_export.token_graph import TokenGraph
from tcmoa_runtime.contract import FUSED, X, Y
from tcmoa_runtime.images import LUMA

PIXELS_AT_ONCE: Final = 32
"""Pixels whose channels are mixed by one row of a matrix product."""


def frames_to_tokens(tg: TokenGraph, frames: Mapping[str, str], model: TCMoA, spec: ExportSpec) -> str:
    """Add the patch embedding and positions: float32 frames x and y [B, H, W, C] to the token matrix of both."""
    graph, layout, options, contract = tg.graph, tg.layout, spec.options, spec.contract
    kernel, bias = fold_head(
        model.patch_embed.proj,
        upsample=layout.upsample,
        channel_order=options.channel_order,
        color=options.color or "rgb",
    )
    channels = {X: contract.x_channels, Y: contract.y_channels}
    if channels[X] == channels[Y]:
        groups = [(graph.concat((frames[X], frames[Y]), 0), 2 * options.batch, channels[X])]
    else:
        groups = [(frames[source], options.batch, channels[source]) for source in (X, Y)]
    embedded = []
    for frame, count, depth in groups:
        # A source of one channel has the same gray in all three.
        own = kernel if depth == 3 else np.ascontiguousarray(kernel.sum(1, keepdims=True))
        image = _to_images(tg, frame, count, depth)
        stride = [layout.token_px, layout.token_px]
        embedded.append(graph.op("Conv", image, graph.floats(own, "kernel"), strides=stride))
    dim = kernel.shape[0]
    (rows, cols), half = layout.window_grid, layout.window // 2
    image = graph.reshape(graph.concat(embedded, 0), tg.images, dim, rows, 2, half, cols, 2, half)
    axes = (4, 7, 3, 6, 0, 2, 5, 1) if layout.is_position_major else (0, 2, 5, 3, 6, 4, 7, 1)
    tokens = graph.transpose(image, *axes)
    return add_positions(tg, tokens, model.pos_embed, bias, as_published=options.as_published)


def frames_to_planes(tg: TokenGraph, frames: Mapping[str, str], spec: ExportSpec) -> dict[str, str]:
    """Add the luma of each source, fitted to what the blocks see: float32 [n, 1, H', W'], 0..255, by source."""
    batch, contract = spec.options.batch, spec.contract
    channels = {X: contract.x_channels, Y: contract.y_channels}
    return {
        source: _to_images(
            tg, frames[source] if channels[source] == 1 else _luma(tg.graph, frames[source], spec), batch, 1
        )
        for source in (X, Y)
    }


def planes_to_tokens(tg: TokenGraph, planes: Mapping[str, str], model: TCMoA, spec: ExportSpec) -> str:
    """Add the patch embedding and positions of a model that weighs the sources, from `frames_to_planes`."""
    graph, layout, side = tg.graph, tg.layout, tg.layout.token_px
    kernel, bias = fold_head(
        model.patch_embed.proj, upsample=False, channel_order=spec.options.channel_order, color="luma"
    )
    gray = np.ascontiguousarray(kernel.sum(1).reshape(model.sizes.embed_dim, side * side).T)
    (rows, cols), half = layout.window_grid, layout.window // 2
    both = graph.concat((planes[X], planes[Y]), 0)
    patches = graph.reshape(both, tg.images * rows, 2, half, side, cols, 2, half, side)
    # Patches are sorted before they are embedded: whole rows of pixels are moved.
    axes = (2, 6, 1, 5, 0, 4, 3, 7) if layout.is_position_major else (0, 4, 1, 5, 2, 6, 3, 7)
    flat = graph.reshape(graph.transpose(patches, *axes), tg.rows, side * side)
    return add_positions(
        tg, graph.linear(flat, gray), model.pos_embed, bias, as_published=spec.options.as_published
    )


def _to_images(tg: TokenGraph, frame: str, count: int, channels: int) -> str:
    """Fit float32 frames [count, H, W, C] to the images that the blocks see, NCHW, edges repeated."""
    graph, layout = tg.graph, tg.layout
    height, width = layout.image_size
    image = graph.transpose(frame, 0, 3, 1, 2)
    if layout.fit == "resize" and (layout.height, layout.width) != (height, width):
        image = _resize(graph, image, (count, channels, height, width))
    below, right = 0, 0
    if layout.fit == "pad":
        below, right = height - layout.height, width - layout.width
    elif layout.fit == "crops":
        crops = [
            graph.op(
                "Unsqueeze",
                graph.slice(image, (top, left), (top + CROP, left + CROP), (2, 3)),
                graph.integers([1], "axes"),
            )
            for top, left in layout.origins
        ]
        image = graph.reshape(graph.concat(crops, 1), count * len(crops), channels, CROP, CROP)
    # Bilinear upsampling reads one pixel beyond the image, where it repeats the edge.
    around = 1 if layout.upsample else 0
    if around or below or right:
        pads = [0, 0, around, around, 0, 0, around + below, around + right]
        image = graph.op("Pad", image, graph.integers(pads, "pads"), mode="edge")
    return image


def _resize(graph: GraphBuilder, image: str, shape: tuple[int, ...]) -> str:
    """Add a bilinear resize of NCHW images: align_corners=False, no antialiasing."""
    return graph.op(
        "Resize",
        image,
        "",
        "",
        graph.integers(shape),
        mode="linear",
        coordinate_transformation_mode="half_pixel",
    )


def add_positions(tg: TokenGraph, tokens: str, table: Tensor, bias: Tensor, *, as_published: bool) -> str:
    """Add position embeddings [1, 1+n, C] and a bias [C], as one constant, to each image's tokens: [M, C]."""
    graph, layout, channels = tg.graph, tg.layout, table.shape[-1]
    constant = fold_positions(table, bias, layout.image_grid, layout.raster_of, as_published=as_published)
    if len(constant) > 1:  # one row for each token of an image, the same for every image
        outer, inner = layout.axes_around_images
        constant = constant.reshape(outer, 1, inner, channels)
    grouped = tg.split_images(tokens, channels)
    return tg.merge_images(graph.add(grouped, graph.floats(constant, "positions")), channels)


def tokens_to_frame(
    graph: GraphBuilder,
    tokens: str,
    model: TCMoA,
    spec: ExportSpec,
    frames: Mapping[str, str],
    planes: Mapping[str, str],
) -> None:
    """Add the output `fused` from the tokens that reach the frame, [B * n * kept, C] in raster order.

    Args:
        graph: Where nodes are added.
        tokens: The tokens.
        model: The model, whose final norm and prediction are folded.
        spec: What to export.
        frames: Float32 frames [B, H, W, C] by source, whose chroma is used with color mode `luma`.
        planes: Luma by source (`frames_to_planes`) if the model weighs the sources.
    """
    options = spec.options
    folded = fold_tail(
        model.decoder_norm,
        model.decoder_pred,
        model.sizes.patch_size,
        upsample=spec.layout.upsample,
        channel_order=options.channel_order,
        color=options.color or "rgb",
        at_half=spec.weighs_sources,
    )
    normed = graph.layer_norm(tokens, model.sizes.decoder_embed_dim, model.decoder_norm.eps)
    with graph.float32():
        pixels = graph.linear(normed, folded.weight, folded.bias)
        if spec.weighs_sources:
            frame = _fit_to_frame(graph, _weigh_sources(graph, pixels, spec, planes), spec, 1)
        else:
            frame = _to_frame(graph, pixels, spec)
        if options.color == "luma":
            frame = _with_chroma(graph, frame, frames, spec)
        clipped = graph.op("Clip", frame, graph.scalar(0.0), graph.scalar(255.0))
        graph.output("Cast", FUSED, graph.op("Round", clipped), to=TensorProto.UINT8)


def _to_frame(graph: GraphBuilder, pixels: str, spec: ExportSpec) -> str:
    """Arrange pixels by token, float32 0..255, into frames [B, H, W, C]; C is 1 with color mode `luma`."""
    layout = spec.layout
    channels = 1 if spec.options.color == "luma" else 3
    rows, cols = layout.kept_grid
    side = layout.token_px
    images = graph.reshape(pixels, spec.images, rows, cols, side, side, channels)
    frame = graph.reshape(
        graph.transpose(images, 0, 1, 3, 2, 4, 5), spec.images, rows * side, cols * side, channels
    )
    return _fit_to_frame(graph, frame, spec, channels)


def _weigh_sources(graph: GraphBuilder, pixels: str, spec: ExportSpec, planes: Mapping[str, str]) -> str:
    """Fuse the planes of the sources by the network's image: [n, H', W', 1]."""
    (rows, cols), side = spec.layout.image_grid, spec.layout.token_px // 2
    images = graph.transpose(graph.reshape(pixels, spec.images, rows, cols, side, side), 0, 1, 3, 2, 4)
    half = graph.reshape(images, spec.images, 1, rows * side, cols * side)
    weights = WeightGraph(graph, RULES[spec.options.task], spec.images)
    height, width = spec.layout.image_size
    blended = weights.blend(half, planes[X], planes[Y], (height, width))
    return graph.reshape(blended, spec.images, height, width, 1)


def _fit_to_frame(graph: GraphBuilder, frame: str, spec: ExportSpec, channels: int) -> str:
    """Fit images [n, H', W', C] of the blocks back to frames [B, H, W, C]."""
    layout, batch = spec.layout, spec.options.batch
    rows, cols = layout.kept_grid
    side, size = layout.token_px, (layout.height, layout.width)
    if layout.fit == "crops":
        frame = _paste_crops(graph, frame, spec, channels)
    elif layout.fit == "pad" and size != (rows * side, cols * side):
        frame = graph.slice(frame, (0, 0), size, (1, 2))
    elif layout.fit == "resize" and size != layout.image_size:
        image = _resize(graph, graph.transpose(frame, 0, 3, 1, 2), (batch, channels, *size))
        frame = graph.transpose(image, 0, 2, 3, 1)
    return frame


def _paste_crops(graph: GraphBuilder, images: str, spec: ExportSpec, channels: int) -> str:
    """Paste crops [B * n, 448, 448, C] into frames [B, H, W, C], later crops on top."""
    layout, batch = spec.layout, spec.options.batch
    tops = sorted({top for top, _ in layout.origins})
    lefts = sorted({left for _, left in layout.origins})
    grouped = graph.reshape(images, batch, len(tops), len(lefts), CROP, CROP, channels)
    rows = []
    for i, top in enumerate(tops):
        height = (tops[i + 1] if i + 1 < len(tops) else layout.height) - top
        parts = []
        for j, left in enumerate(lefts):
            width = (lefts[j + 1] if j + 1 < len(lefts) else layout.width) - left
            part = graph.slice(grouped, (i, j, 0, 0), (i + 1, j + 1, height, width), (1, 2, 3, 4))
            parts.append(graph.reshape(part, batch, height, width, channels))
        rows.append(graph.concat(parts, 2))
    return graph.concat(rows, 1)


def _with_chroma(graph: GraphBuilder, luma: str, frames: Mapping[str, str], spec: ExportSpec) -> str:
    """Add color to the fused luma [B, H, W, 1]: frames [B, H, W, 3]; see `tcmoa.reference.fuse_frames`."""
    contract = spec.contract
    channels = {X: contract.x_channels, Y: contract.y_channels}
    colored = [s for s in ((X,) if spec.options.task == "vif" else (X, Y)) if channels[s] == 3]
    lumas = {s: _luma(graph, frames[s], spec) for s in colored}
    if len(colored) == 2:
        offsets = {s: graph.op("Sub", frames[s], lumas[s]) for s in colored}
        parts = [_saturation(graph, offsets[s], spec) for s in colored]
        share = graph.op("Div", parts[0], graph.add(parts[0], parts[1]))
        change = graph.mul(share, graph.op("Sub", offsets[X], offsets[Y]))
        return graph.add(graph.add(luma, offsets[Y]), change)
    if not colored:
        shape = (spec.options.batch, spec.layout.height, spec.layout.width, 3)
        return graph.op("Expand", luma, graph.integers(shape))
    source = colored[0]
    if spec.options.task == "vif":
        return graph.add(frames[source], graph.op("Sub", luma, lumas[source]))
    # The other source is gray: the weight of this one's color is still its share of the saturation.
    offset = graph.op("Sub", frames[source], lumas[source])
    saturation = _saturation(graph, offset, spec)
    share = graph.op("Div", saturation, graph.add(saturation, graph.scalar(LEAST_SATURATION)))
    return graph.add(luma, graph.mul(share, offset))


def _saturation(graph: GraphBuilder, offset: str, spec: ExportSpec) -> str:
    """Add |Cb| + |Cr| of offsets from the luma [B, H, W, 3], and what keeps a share of it defined: [B, H, W, 1]."""
    mixed = _mix_channels(graph, graph.op("Abs", offset), SATURATION, spec)
    return graph.add(mixed, graph.scalar(LEAST_SATURATION))


def _luma(graph: GraphBuilder, frame: str, spec: ExportSpec) -> str:
    """Add the luma [B, H, W, 1] of float32 frames."""
    return _mix_channels(graph, frame, LUMA, spec)


def _mix_channels(
    graph: GraphBuilder, frame: str, weights: tuple[float, float, float], spec: ExportSpec
) -> str:
    """Add the sum of R, G and B with constant weights: [B, H, W, 1] of [B, H, W, 3].

    Several pixels are mixed by one row of a matrix product: products with one column are slow on CPUs.
    """
    height, width, batch = spec.layout.height, spec.layout.width, spec.options.batch
    pixels = math.gcd(width, PIXELS_AT_ONCE)
    ordered = np.array(weights if spec.options.channel_order == "rgb" else weights[::-1], np.float32)
    matrix = np.kron(np.eye(pixels, dtype=np.float32), ordered[:, None])
    rows = graph.reshape(frame, batch * height * width // pixels, 3 * pixels)
    return graph.reshape(graph.linear(rows, matrix), batch, height, width, 1)
