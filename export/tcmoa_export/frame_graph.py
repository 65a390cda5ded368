"""Frames in and out, as ONNX: casts first and last, fit to whole windows, luma, rounding, clipping."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import reduce

import numpy as np
from onnx import TensorProto
from torch import Tensor

from tcmoa import TCMoA
from tcmoa.reference import LEAST_SATURATION, SATURATION
from tcmoa.source_weights import RULES
from tcmoa.window_fit import CROP
from tcmoa_export.folds import FoldedLinear, fold_head, fold_positions, fold_tail
from tcmoa_export.graph_builder import GraphBuilder
from tcmoa_export.source_weights_graph import WeightGraph
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
        image = _fit_to_blocks(tg, graph.transpose(frame, 0, 3, 1, 2), count, depth)
        stride = [layout.token_px, layout.token_px]
        embedded.append(graph.op("Conv", image, graph.floats(own, "kernel"), strides=stride))
    dim = kernel.shape[0]
    (rows, cols), half = layout.window_grid, layout.window // 2
    image = graph.reshape(graph.concat(embedded, 0), tg.images, dim, rows, 2, half, cols, 2, half)
    axes = (4, 7, 3, 6, 0, 2, 5, 1) if layout.is_position_major else (0, 2, 5, 3, 6, 4, 7, 1)
    tokens = graph.transpose(image, *axes)
    return add_positions(tg, tokens, model.pos_embed, bias, as_published=options.as_published)


@dataclass(frozen=True)
class SourcePlanes:
    """The planes of one source: float32 [B, 1, H, W], 0..255.

    Attributes:
        channels: R, G and B; empty if the source is gray.
        luma: Its luma.
    """

    channels: tuple[str, ...]
    luma: str


def frames_to_planes(
    graph: GraphBuilder, frames: Mapping[str, str], spec: ExportSpec
) -> dict[str, SourcePlanes]:
    """Add the planes of float32 frames [B, H, W, C] by source, of those sources whose planes are read.

    Planes are added with constant weights, which is exact in OpenVINO with its bf16 hint; a product with the weights
    of the channels would be rounded to 8 bits.
    """
    batch, layout = spec.options.batch, spec.layout
    channels = {X: spec.contract.x_channels, Y: spec.contract.y_channels}
    found: dict[str, SourcePlanes] = {}
    for source, frame in frames.items():
        if channels[source] == 3 and (spec.weighs_sources or source in _colored(spec)):
            planes = graph.split(graph.transpose(frame, 0, 3, 1, 2), (1, 1, 1))
            if spec.options.channel_order == "bgr":
                planes.reverse()
            found[source] = SourcePlanes(tuple(planes), _mix(graph, planes, LUMA))
        elif spec.weighs_sources:
            plane = graph.reshape(frame, batch, 1, layout.height, layout.width)
            found[source] = SourcePlanes((), plane)
    return found


def fit_lumas(tg: TokenGraph, planes: Mapping[str, SourcePlanes], spec: ExportSpec) -> dict[str, str]:
    """Add the luma of each source, fitted to what the blocks see: float32 [n, 1, H', W'], 0..255."""
    return {source: _fit_to_blocks(tg, planes[source].luma, spec.options.batch, 1) for source in (X, Y)}


def lumas_to_tokens(tg: TokenGraph, lumas: Mapping[str, str], model: TCMoA, spec: ExportSpec) -> str:
    """Add the patch embedding and positions of a model that weighs the sources, from `fit_lumas`."""
    graph, layout, side = tg.graph, tg.layout, tg.layout.token_px
    kernel, bias = fold_head(
        model.patch_embed.proj, upsample=False, channel_order=spec.options.channel_order, color="luma"
    )
    gray = np.ascontiguousarray(kernel.sum(1).reshape(model.sizes.embed_dim, side * side).T)
    (rows, cols), half = layout.window_grid, layout.window // 2
    both = graph.concat((lumas[X], lumas[Y]), 0)
    patches = graph.reshape(both, tg.images * rows, 2, half, side, cols, 2, half, side)
    # Patches are sorted before they are embedded: whole rows of pixels are moved.
    axes = (2, 6, 1, 5, 0, 4, 3, 7) if layout.is_position_major else (0, 4, 1, 5, 2, 6, 3, 7)
    flat = graph.reshape(graph.transpose(patches, *axes), tg.rows, side * side)
    return add_positions(
        tg, graph.linear(flat, gray), model.pos_embed, bias, as_published=spec.options.as_published
    )


def _fit_to_blocks(tg: TokenGraph, image: str, count: int, channels: int) -> str:
    """Fit images [count, C, H, W] to those that the blocks see, edges repeated."""
    graph, layout = tg.graph, tg.layout
    height, width = layout.image_size
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
    planes: Mapping[str, SourcePlanes],
    lumas: Mapping[str, str],
) -> None:
    """Add the output `fused` from the tokens that reach the frame, [B * n * kept, C] in raster order.

    Args:
        graph: Where nodes are added.
        tokens: The tokens.
        model: The model, whose final norm and prediction are folded.
        spec: What to export.
        frames: Float32 frames [B, H, W, C] by source.
        planes: Planes of the sources with color mode `luma`, whose chroma is used.
        lumas: Lumas of the sources (`fit_lumas`) if the model weighs the sources.
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
        if spec.weighs_sources:
            half_image = _to_half_image(graph, normed, folded, spec)
            frame = _fit_to_frame(graph, _weigh_sources(graph, half_image, spec, lumas), spec, 1)
        else:
            frame = _to_frame(graph, graph.linear(normed, folded.weight, folded.bias), spec)
        if options.color == "luma":
            frame = _with_chroma(graph, frame, frames, planes, spec)
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


def _to_half_image(graph: GraphBuilder, normed: str, folded: FoldedLinear, spec: ExportSpec) -> str:
    """Add the network's image, at half the resolution of the blocks' images: [n, 1, H'/2, W'/2].

    For CPUs the product is a transposed convolution: the only product that OpenVINO does not round to bfloat16 with
    its bf16 hint, nor the additions to the decoder's tokens before it. Their rounding costs `nano` 10 dB.
    """
    (rows, cols), side, images = spec.layout.image_grid, spec.layout.token_px // 2, spec.images
    if spec.options.target == "cpu":
        channels = folded.weight.shape[0]
        grid = graph.transpose(graph.reshape(normed, images, rows, cols, channels), 0, 3, 1, 2)
        kernel = np.ascontiguousarray(folded.weight[:, :, None, None])
        product = graph.op(
            "ConvTranspose", grid, graph.floats(kernel, "kernel"), graph.floats(folded.bias, "bias")
        )
        pixels = graph.transpose(graph.reshape(product, images, side, side, rows, cols), 0, 3, 1, 4, 2)
    else:
        product = graph.linear(normed, folded.weight, folded.bias)
        pixels = graph.transpose(graph.reshape(product, images, rows, cols, side, side), 0, 1, 3, 2, 4)
    return graph.reshape(pixels, images, 1, rows * side, cols * side)


def _weigh_sources(graph: GraphBuilder, half_image: str, spec: ExportSpec, lumas: Mapping[str, str]) -> str:
    """Fuse the lumas of the sources by the network's image: [n, H', W', 1]."""
    weights = WeightGraph(graph, RULES[spec.options.task], by_gathers=spec.options.target == "cpu")
    height, width = spec.layout.image_size
    blended = weights.blend(half_image, lumas[X], lumas[Y], (height, width))
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


def _with_chroma(
    graph: GraphBuilder,
    luma: str,
    frames: Mapping[str, str],
    planes: Mapping[str, SourcePlanes],
    spec: ExportSpec,
) -> str:
    """Add color to the fused luma [B, H, W, 1]: frames [B, H, W, 3]; see `tcmoa.reference.fuse_frames`.

    Everything of one channel is computed on planes, and added to frames last: ONNX Runtime is slow to repeat a value
    for three channels side by side.
    """
    layout, batch = spec.layout, spec.options.batch
    colored = _colored(spec)
    if not colored:
        shape = (batch, layout.height, layout.width, 3)
        return graph.op("Expand", luma, graph.integers(shape))

    def frame_of(plane: str) -> str:
        return graph.reshape(plane, batch, layout.height, layout.width, 1)

    gray = graph.reshape(luma, batch, 1, layout.height, layout.width)
    lumas = {source: planes[source].luma for source in colored}
    if spec.options.task == "vif":
        change = graph.op("Sub", gray, lumas[X])
        return graph.add(frames[X], frame_of(change))
    parts = [_saturation(graph, planes[source]) for source in colored]
    if len(colored) == 1:
        # The other source is gray: the weight of this one's color is still its share of the saturation.
        source = colored[0]
        share = graph.op("Div", parts[0], graph.add(parts[0], graph.scalar(LEAST_SATURATION)))
        offset = graph.op("Sub", frames[source], frame_of(lumas[source]))
        return graph.add(luma, graph.mul(frame_of(share), offset))
    share = graph.op("Div", parts[0], graph.add(parts[0], parts[1]))
    # Offsets from the lumas, mixed: (1 - share) (y - luma_y) + share (x - luma_x).
    base = graph.op("Sub", gray, lumas[Y])
    base = graph.op("Sub", base, graph.mul(share, graph.op("Sub", lumas[X], lumas[Y])))
    change = graph.mul(frame_of(share), graph.op("Sub", frames[X], frames[Y]))
    return graph.add(graph.add(frames[Y], change), frame_of(base))


def _colored(spec: ExportSpec) -> tuple[str, ...]:
    """Return the sources whose color is in the result, with color mode `luma`."""
    channels = {X: spec.contract.x_channels, Y: spec.contract.y_channels}
    return tuple(s for s in ((X,) if spec.options.task == "vif" else (X, Y)) if channels[s] == 3)


def _saturation(graph: GraphBuilder, planes: SourcePlanes) -> str:
    """Add |Cb| + |Cr|, and what keeps a share of it defined: [B, 1, H, W]."""
    weighed = [(plane, weight) for plane, weight in zip(planes.channels, SATURATION, strict=True) if weight]
    offsets = [graph.op("Abs", graph.op("Sub", plane, planes.luma)) for plane, _ in weighed]
    mixed = _mix(graph, offsets, [weight for _, weight in weighed])
    return graph.add(mixed, graph.scalar(LEAST_SATURATION))


def _mix(graph: GraphBuilder, planes: Sequence[str], weights: Sequence[float]) -> str:
    """Add the weighted sum of planes."""
    return reduce(
        graph.add,
        [graph.mul(plane, graph.scalar(weight)) for plane, weight in zip(planes, weights, strict=True)],
    )
