"""Frames in and out, as ONNX: casts first and last, fit to whole windows, luma, rounding, clipping."""

from __future__ import annotations

import numpy as np
from onnx import TensorProto
from torch import Tensor

from tcmoa import TCMoA
from tcmoa.frames import CROP
from tcmoa_export.emit import Graph
from tcmoa_export.folds import fold_head, fold_positions, fold_tail
from tcmoa_export.spec import ExportSpec
from tcmoa_runtime.contract import FUSED, X, Y
from tcmoa_runtime.images import LUMA


def _resize(graph: Graph, image: str, shape: tuple[int, ...]) -> str:
    """Bilinear, align_corners=False, no antialiasing; NCHW."""
    return graph.op(
        "Resize",
        image,
        "",
        "",
        graph.integers(shape),
        mode="linear",
        coordinate_transformation_mode="half_pixel",
    )


def _images(graph: Graph, frame: str, spec: ExportSpec, count: int, channels: int) -> str:
    """Frames [count, H, W, channels], cast already, to the images that the blocks see, NCHW, edges repeated."""
    layout = spec.layout
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
                graph.cut(image, (top, left), (top + CROP, left + CROP), (2, 3)),
                graph.integers([1], "axes"),
            )
            for top, left in layout.starts
        ]
        image = graph.reshape(graph.concat(crops, 1), count * len(crops), channels, CROP, CROP)
    # Bilinear upsampling looks one pixel beyond the image, where it repeats the edge.
    around = 1 if layout.upsample else 0
    if around or below or right:
        pads = [0, 0, around, around, 0, 0, around + below, around + right]
        image = graph.op("Pad", image, graph.integers(pads, "pads"), mode="edge")
    return image


def head(graph: Graph, frames: dict[str, str], model: TCMoA, spec: ExportSpec) -> str:
    """Frames x and y, cast already, to tokens [2M, C] in window order, positions added."""
    layout = spec.layout
    kernel, bias = fold_head(
        model.patch_embed.proj,
        upsample=spec.layout.upsample,
        channel_order=spec.channel_order,
        color=spec.color,
    )
    channels = {X: spec.x_channels, Y: spec.y_channels}
    if spec.x_channels == spec.y_channels:
        groups = [(graph.concat((frames[X], frames[Y]), 0), 2 * spec.batch, spec.x_channels)]
    else:
        groups = [(frames[source], spec.batch, channels[source]) for source in (X, Y)]
    embedded = []
    for frame, count, depth in groups:
        # A source of one channel is the same grey in all three.
        own = kernel if depth == 3 else np.ascontiguousarray(kernel.sum(1, keepdims=True))
        image = _images(graph, frame, spec, count, depth)
        embedded.append(
            graph.op("Conv", image, graph.real(own, "kernel"), strides=[layout.token, layout.token])
        )
    dim = kernel.shape[0]
    (rows, cols), half = layout.windows, layout.window // 2
    image = graph.reshape(graph.concat(embedded, 0), 2 * spec.images, dim, rows, 2, half, cols, 2, half)
    axes = (4, 7, 3, 6, 0, 2, 5, 1) if layout.places_first else (0, 2, 5, 3, 6, 4, 7, 1)
    tokens = graph.transpose(image, *axes)
    return add_positions(graph, tokens, model.pos_embed, bias, spec, 2)


def add_positions(
    graph: Graph, tokens: str, table: Tensor, bias: Tensor, spec: ExportSpec, sources: int
) -> str:
    """Position embedding and a bias [C], one constant, added to each image's tokens: [sources*M, C]."""
    layout = spec.layout
    images, dim = sources * spec.images, table.shape[-1]
    constant = fold_positions(
        table, bias, layout.image_grid, layout.raster_of, as_published=spec.as_published
    )
    first, rest = layout.groups
    if len(constant) > 1:  # one for each token of an image, the same for each image
        constant = constant.reshape(first, 1, rest, dim)
    grouped = graph.reshape(tokens, first, images, rest, dim)
    return graph.reshape(graph.add(grouped, graph.real(constant, "positions")), images * layout.tokens, dim)


def _paste(graph: Graph, images: str, spec: ExportSpec, channels: int) -> str:
    """Crops [B*n, 448, 448, channels] to frames [B, H, W, channels], later crops on top."""
    layout = spec.layout
    tops = sorted({top for top, _ in layout.starts})
    lefts = sorted({left for _, left in layout.starts})
    grouped = graph.reshape(images, spec.batch, len(tops), len(lefts), CROP, CROP, channels)
    rows = []
    for i, top in enumerate(tops):
        high = (tops[i + 1] if i + 1 < len(tops) else layout.height) - top
        parts = []
        for j, left in enumerate(lefts):
            wide = (lefts[j + 1] if j + 1 < len(lefts) else layout.width) - left
            part = graph.cut(grouped, (i, j, 0, 0), (i + 1, j + 1, high, wide), (1, 2, 3, 4))
            parts.append(graph.reshape(part, spec.batch, high, wide, channels))
        rows.append(graph.concat(parts, 2))
    return graph.concat(rows, 1)


def _luma(graph: Graph, frame: str, spec: ExportSpec) -> str:
    """Brightness [B, H, W, 1] of float32 frames in the spec's channel order."""
    weights = np.array(LUMA, np.float32)
    if spec.channel_order == "bgr":
        weights = weights[::-1].copy()
    return graph.matmul(frame, weights[:, None])


def tail(graph: Graph, tokens: str, model: TCMoA, spec: ExportSpec, x_frame: str) -> None:
    """Tokens that reach the frame, in raster order [B*n*kept, C], to the graph's output `fused`."""
    layout = spec.layout
    channels = 1 if spec.color == "luma" else 3
    folded = fold_tail(
        model.decoder_norm,
        model.decoder_pred,
        model.sizes.patch_size,
        upsample=layout.upsample,
        channel_order=spec.channel_order,
        color=spec.color,
    )
    normed = graph.normalise(tokens, model.sizes.decoder_embed_dim, model.decoder_norm.eps)
    with graph.float32():
        pixels = graph.matmul(normed, folded.weight, folded.bias)
        _frame(graph, pixels, spec, channels, x_frame)


def _frame(graph: Graph, pixels: str, spec: ExportSpec, channels: int, x_frame: str) -> None:
    """Pixels by token, float32 0..255, to the graph's output `fused`."""
    layout = spec.layout
    rows, cols = layout.kept_grid
    side = layout.token
    images = graph.reshape(pixels, spec.images, rows, cols, side, side, channels)
    frame = graph.reshape(
        graph.transpose(images, 0, 1, 3, 2, 4, 5), spec.images, rows * side, cols * side, channels
    )
    size = (layout.height, layout.width)
    if layout.fit == "crops":
        frame = _paste(graph, frame, spec, channels)
    elif layout.fit == "pad" and size != (rows * side, cols * side):
        frame = graph.cut(frame, (0, 0), size, (1, 2))
    elif layout.fit == "resize" and size != layout.image_size:
        image = _resize(graph, graph.transpose(frame, 0, 3, 1, 2), (spec.batch, channels, *size))
        frame = graph.transpose(image, 0, 2, 3, 1)
    if spec.color == "luma":
        old = x_frame if spec.x_channels == 1 else _luma(graph, x_frame, spec)
        frame = graph.add(x_frame, graph.op("Sub", frame, old))
        if spec.x_channels == 1:
            frame = graph.op("Expand", frame, graph.integers((spec.batch, *size, 3)))
    clipped = graph.op("Clip", frame, graph.scalar(0.0), graph.scalar(255.0))
    graph.output("Cast", FUSED, graph.op("Round", clipped), to=TensorProto.UINT8)
