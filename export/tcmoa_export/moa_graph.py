"""A TC-MoA as ONNX, one task's router folded in: no TopK, no Scatter, no control flow."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import reduce

import numpy as np
from onnx import TensorProto

from tcmoa.moa import GATE_FLOOR, PROMPT_MEAN, TaskCustomisedMoA
from tcmoa_export.emit import Graph
from tcmoa_export.folds import fold_adapters, fold_fusion, fold_reduction, fold_router
from tcmoa_export.layout import Index, Layout

BARRED = -1e30
"""Logit of an adapter that is not among the top K: its softmax is an exact 0."""

EPSILON = float(np.finfo(np.float64).eps)
"""What an exact 0 inside the adapters' log becomes, as published."""

SPREAD_FLOOR = 1e-12
"""Added to the standard deviation that re-standardisation divides by, as published."""


@dataclass(frozen=True)
class ControlMaps:
    """Eq. 8 on tokens in raster order, each [M, 1]: p' = scale*p + offset, offsets mu*(1 - scale) +- shift."""

    scale: str
    offset_x: str
    offset_y: str


def control_maps(graph: Graph, scale: str, shift: str, layout: Layout, batch: int) -> ControlMaps:
    """From the frame's prompt maps [B, gh, gw] to every token of every image."""
    gh, gw = layout.grid
    maps = []
    for value in (scale, shift):
        taken = graph.gather(graph.reshape(value, batch, gh * gw), layout.prompt_source, 1)
        maps.append(graph.reshape(taken, batch * len(layout.prompt_source), 1))
    centre = graph.mul(graph.op("Sub", graph.scalar(1.0), maps[0]), graph.scalar(PROMPT_MEAN))
    return ControlMaps(maps[0], graph.add(centre, maps[1]), graph.op("Sub", centre, maps[1]))


def gates(graph: Graph, logits: str, tokens: int, experts: int, top_k: int) -> str:
    """Softmax over the K largest of N logits [M, N], 0 elsewhere and where it is at most `GATE_FLOOR`.

    Each logit is compared with each: j is before i when it is larger, or equal and of lower index; the K
    adapters with fewer than K before them are the top ones. No TopK, no Scatter, no product.
    """
    own, other = graph.reshape(logits, tokens, experts, 1), graph.reshape(logits, tokens, 1, experts)
    lower_index = np.tri(experts, k=-1, dtype=np.bool_)
    tie = graph.op("And", graph.op("Equal", other, own), graph.constant(lower_index, "lower_index"))
    before = graph.op("Cast", graph.op("Or", graph.op("Greater", other, own), tie), to=TensorProto.FLOAT)
    rank = graph.op("ReduceSum", before, graph.integers([2], "axes"), keepdims=0)
    chosen = graph.op("Less", rank, graph.scalar(top_k - 0.5))
    weights = graph.op("Softmax", graph.op("Where", chosen, logits, graph.scalar(BARRED)), axis=-1)
    counts = graph.op("Greater", weights, graph.scalar(GATE_FLOOR))
    return graph.op("Where", counts, weights, graph.scalar(0.0))


def prompts(graph: Graph, pair: str, moa: TaskCustomisedMoA, task: int, tokens: int) -> list[str]:
    """prompt_x and prompt_y before Eq. 8, each [M, 1], from both sources' tokens side by side [M, 2C].

    From the second product on all is row by row on matrices: so TensorRT makes one kernel of the whole gating,
    Eq. 8 and the mixing of the sources, where 3-D forms leave a kernel of its own for the means.
    """
    generator = moa.prompts
    narrow = generator.reduce.out_features
    routers = generator.routers
    experts = routers.gate.shape[2]
    normed = graph.normalise(pair, generator.reduce.in_features, generator.norm1.eps)
    reduction = fold_reduction(generator.norm1, generator.reduce)
    reduced = graph.matmul(normed, reduction.weight, reduction.bias)
    u = graph.normalise(reduced, narrow, generator.norm2.eps)  # [M, C/4]
    down, up = fold_adapters(generator.norm2, generator.bank, fold_router(generator.norm2, routers, task))
    hidden = graph.op("Relu", graph.matmul(u, down.weight, down.bias))
    both = graph.matmul(hidden, up.weight, up.bias)
    outputs, logits = graph.split(both, (experts * narrow, experts))
    weights = graph.split(gates(graph, logits, tokens, experts, routers.top_k), (1,) * experts)
    raised = graph.split(graph.op("Exp", outputs), (narrow,) * experts)
    mixed = reduce(graph.add, map(graph.mul, raised, weights))  # [M, C/4]
    zero = graph.op("Equal", mixed, graph.scalar(0.0))
    logs = graph.op("Log", graph.op("Where", zero, graph.scalar(EPSILON), mixed))
    halves = graph.split(logs, (narrow // 2, narrow // 2))
    return [graph.op("Sigmoid", graph.mean(half, [1], keepdims=True)) for half in halves]


def fuse(
    graph: Graph,
    sources: Sequence[str],
    shares: Sequence[str],
    moa: TaskCustomisedMoA,
    task: int,
    layout: Layout,
    images: int,
) -> tuple[str, float]:
    """a * (prompt-driven fusion) of both sources' tokens [M, C] in raster order, and 1 - a."""
    folded = fold_fusion(moa, task)
    dim, narrow = folded.down.weight.shape
    h = graph.add(graph.mul(sources[0], shares[0]), graph.mul(sources[1], shares[1]))
    # Raster order is how convolutions that like channels last hold an image, so TensorRT moves nothing here. As
    # a matrix product in front of the 3x3 convolution the first would be followed by a copy.
    image = graph.transpose(graph.reshape(h, images, *layout.image_grid, dim), 0, 3, 1, 2)
    down = np.ascontiguousarray(folded.down.weight.T[:, :, None, None])
    image = graph.op("Conv", image, graph.real(down, "down"), graph.real(folded.down.bias, "bias"))
    image = graph.op("Conv", image, graph.real(folded.kernel, "kernel"), pads=[1, 1, 1, 1])
    tokens = graph.reshape(graph.transpose(image, 0, 2, 3, 1), images * layout.tokens, narrow)
    return graph.matmul(tokens, folded.up), folded.keep


def restandardise(graph: Graph, new: str, old: str, layout: Layout, images: int, dim: int) -> str:
    """Give each image of `new` [images*tokens, C] the mean and unbiased standard deviation of `old`, in float32.

    Moments come token by token and are then put together (mean of variances plus variance of means), so that
    the large tensors are read once for them.
    """
    numbers = layout.tokens * dim
    unbiased = numbers / (numbers - 1)
    first, rest = layout.groups

    def by_token(tokens: str) -> tuple[str, str]:
        means = graph.mean(tokens, [1], keepdims=True)
        apart = graph.op("Sub", tokens, means)
        return means, graph.mean(graph.mul(apart, apart), [1], keepdims=True)

    with graph.float32():
        pairs = zip(by_token(new), by_token(old), strict=True)
        shape = (first, images, rest, 2)
        means, variances = (graph.reshape(graph.concat(pair, 1), *shape) for pair in pairs)
        mean = graph.mean(means, [0, 2], keepdims=True)
        between = graph.op("Sub", means, mean)
        total = graph.add(variances, graph.mul(between, between))
        variance = graph.mul(graph.mean(total, [0, 2], keepdims=True), graph.scalar(unbiased))
        new_mean, old_mean = graph.split(mean, (1, 1), axis=3)  # [1, images, 1, 1]
        new_spread, old_spread = graph.split(graph.op("Sqrt", variance), (1, 1), axis=3)
        ratio = graph.op("Div", old_spread, graph.add(new_spread, graph.scalar(SPREAD_FLOOR)))
        grouped = graph.reshape(new, first, images, rest, dim)
        result = graph.add(graph.mul(graph.op("Sub", grouped, new_mean), ratio), old_mean)
        return graph.reshape(result, images * layout.tokens, dim)


def side_by_side(graph: Graph, tokens: str, rows: Index, dim: int) -> str:
    """Both sources' tokens as [M, 2C] in raster order: one gather of `rows` [2, M] of the token matrix."""
    pairs = graph.gather(tokens, np.ascontiguousarray(rows.T), 0)
    return graph.reshape(pairs, rows.shape[1], 2 * dim)


def first_source(graph: Graph, tokens: str, layout: Layout, images: int, dim: int) -> str:
    """x's tokens [M, C] of both sources' [2M, C], both in window order."""
    grouped = graph.reshape(tokens, layout.groups[0], 2, -1)
    x = graph.split(grouped, (1, 1))[0]
    return graph.reshape(x, images * layout.tokens, dim)


def moa(
    graph: Graph,
    tokens: str,
    module: TaskCustomisedMoA,
    task: int,
    control: ControlMaps,
    layout: Layout,
    images: int,
    *,
    only_x: bool,
) -> tuple[str, str, str]:
    """Fuse both sources' tokens [2M, C]; `only_x` where nothing behind reads y: the result is then [M, C].

    Also returns prompt_x and prompt_y after Eq. 8, each [M, 1] in raster order.
    """
    count = images * layout.tokens
    dim = module.fusion.conv1.in_channels
    rows = layout.rows(2 * images).reshape(2, count)
    pair = side_by_side(graph, tokens, rows, dim)
    # Exponentials, logarithms and near ties of the routers: float32 in every precision.
    with graph.float32():
        raw = prompts(graph, pair, module, task, count)
        shares = [
            graph.add(graph.mul(one, control.scale), offset)
            for one, offset in zip(raw, (control.offset_x, control.offset_y), strict=True)
        ]
    # Gathered anew for the mixing: no kernel has to write a copy for another.
    sources = [graph.gather(tokens, own, 0) for own in rows]
    fused, keep = fuse(graph, sources, shares, module, task, layout, images)
    kept_sources = 1 if only_x else 2
    old = first_source(graph, tokens, layout, images, dim) if only_x else tokens
    window_order = layout.places(kept_sources * images) % count
    new = graph.add(graph.mul(old, graph.scalar(keep)), graph.gather(fused, window_order, 0))
    if module.restandardises:
        new = restandardise(graph, new, old, layout, kept_sources * images, dim)
    return new, shares[0], shares[1]
