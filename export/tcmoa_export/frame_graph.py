"""Frames in and out, as ONNX: casts first and last, fit to whole windows, luma, rounding, clipping."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from onnx import TensorProto
from torch import Tensor

from tcmoa import TCMoA
from tcmoa.window_fit import CROP
from tcmoa_export.folds import fold_head, fold_positions, fold_tail
from tcmoa_export.graph_builder import GraphBuilder
from tcmoa_export.spec import ExportSpec
from tcmoa_export.token_graph import TokenGraph
from tcmoa_runtime.contract import FUSED, X, Y
from tcmoa_runtime.images import LUMA


def frames_to_tokens(tg: TokenGraph, frames: Mapping[str, str], model: TCMoA, spec: ExportSpec) -> str:
    """Add the patch embedding and positions: float32 frames x and y [B, H, W, C] to the token matrix of both."""
    graph, layout, options, contract = tg.graph, tg.layout, spec.options, spec.contract
    kernel, bias = fold_head(
        model.patch_embed.proj,
        upsample=layout.upsample,
        channel_order=options.channel_order,
        color=options.color,
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


def tokens_to_frame(graph: GraphBuilder, tokens: str, model: TCMoA, spec: ExportSpec, x_frame: str) -> None:
    """Add the output `fused` from the tokens that reach the frame, [B * n * kept, C] in raster order.

    Args:
        graph: Where nodes are added.
        tokens: The tokens.
        model: The model, whose final norm and prediction are folded.
        spec: What to export.
        x_frame: Float32 frames of x [B, H, W, C], whose chroma is kept with color mode `luma`.
    """
    options = spec.options
    folded = fold_tail(
        model.decoder_norm,
        model.decoder_pred,
        model.sizes.patch_size,
        upsample=spec.layout.upsample,
        channel_order=options.channel_order,
        color=options.color,
    )
    normed = graph.layer_norm(tokens, model.sizes.decoder_embed_dim, model.decoder_norm.eps)
    with graph.float32():
        pixels = graph.linear(normed, folded.weight, folded.bias)
        frame = _to_frame(graph, pixels, spec)
        if options.color == "luma":
            frame = _with_chroma_of_x(graph, frame, x_frame, spec)
        clipped = graph.op("Clip", frame, graph.scalar(0.0), graph.scalar(255.0))
        graph.output("Cast", FUSED, graph.op("Round", clipped), to=TensorProto.UINT8)


def _to_frame(graph: GraphBuilder, pixels: str, spec: ExportSpec) -> str:
    """Arrange pixels by token, float32 0..255, into frames [B, H, W, C]; C is 1 with color mode `luma`."""
    layout, batch = spec.layout, spec.options.batch
    channels = 1 if spec.options.color == "luma" else 3
    rows, cols = layout.kept_grid
    side = layout.token_px
    images = graph.reshape(pixels, spec.images, rows, cols, side, side, channels)
    frame = graph.reshape(
        graph.transpose(images, 0, 1, 3, 2, 4, 5), spec.images, rows * side, cols * side, channels
    )
    size = (layout.height, layout.width)
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


def _with_chroma_of_x(graph: GraphBuilder, luma: str, x_frame: str, spec: ExportSpec) -> str:
    """Replace the luma of x by the fused luma [B, H, W, 1]: frames [B, H, W, 3]."""
    x_channels = spec.contract.x_channels
    old = x_frame if x_channels == 1 else _luma(graph, x_frame, spec)
    frame = graph.add(x_frame, graph.op("Sub", luma, old))
    if x_channels == 1:
        shape = (spec.options.batch, spec.layout.height, spec.layout.width, 3)
        frame = graph.op("Expand", frame, graph.integers(shape))
    return frame


def _luma(graph: GraphBuilder, frame: str, spec: ExportSpec) -> str:
    """Add the luma [B, H, W, 1] of float32 frames."""
    weights = np.array(LUMA, np.float32)
    if spec.options.channel_order == "bgr":
        weights = weights[::-1].copy()
    return graph.linear(frame, weights[:, None])
