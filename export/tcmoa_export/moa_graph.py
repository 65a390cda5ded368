"""A TC-MoA as ONNX, with one task's router folded in: no TopK, no Scatter, no control flow."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import reduce
from typing import Final, NamedTuple

import numpy as np
from onnx import TensorProto

from tcmoa.moa import GATE_FLOOR, PROMPT_MEAN, TaskCustomizedMoA
from tcmoa_export.folds import fold_adapters, fold_fusion, fold_reduction, fold_router
from tcmoa_export.graph_builder import GraphBuilder
from tcmoa_export.token_graph import TokenGraph
from tcmoa_export.token_layout import TokenLayout

MASKED_LOGIT: Final = -1e30
"""Logit of an adapter that is not among the top K: its softmax is exactly 0."""

LOG_EPSILON: Final = float(np.finfo(np.float64).eps)
"""Replaces an exact 0 inside the logarithm of the adapters, as published."""

STD_EPSILON: Final = 1e-12
"""Added to the standard deviation that re-standardization divides by, as published."""


@dataclass(frozen=True)
class ControlMaps:
    """Eq. 8 on tokens in raster order, each [M, 1]: p' = scale * p + offset.

    Attributes:
        scale: alpha.
        offset_x: mu * (1 - alpha) + beta, for prompt_x.
        offset_y: mu * (1 - alpha) - beta, for prompt_y.
    """

    scale: str
    offset_x: str
    offset_y: str


class MoAValues(NamedTuple):
    """Results of a TC-MoA.

    Attributes:
        tokens: The fused sources' token matrix.
        prompt_x: Prompt of x after Eq. 8, [M, 1] in raster order.
        prompt_y: Prompt of y.
    """

    tokens: str
    prompt_x: str
    prompt_y: str


def control_maps(graph: GraphBuilder, scale: str, shift: str, layout: TokenLayout, batch: int) -> ControlMaps:
    """Spread the frame's prompt maps [B, gh, gw] to every token of every image."""
    gh, gw = layout.grid
    maps = []
    for value in (scale, shift):
        taken = graph.gather(graph.reshape(value, batch, gh * gw), layout.map_index, 1)
        maps.append(graph.reshape(taken, batch * len(layout.map_index), 1))
    center = graph.mul(graph.op("Sub", graph.scalar(1.0), maps[0]), graph.scalar(PROMPT_MEAN))
    return ControlMaps(maps[0], graph.add(center, maps[1]), graph.op("Sub", center, maps[1]))


def top_k_gates(graph: GraphBuilder, logits: str, tokens: int, experts: int, top_k: int) -> str:
    """Add the softmax over the K largest of N logits [M, N]; all other gates, and those up to `GATE_FLOOR`, are 0.

    Each logit is compared with each other: j ranks before i when it is larger, or equal and of lower index. The top K
    are those with fewer than K before them.
    """
    own, other = graph.reshape(logits, tokens, experts, 1), graph.reshape(logits, tokens, 1, experts)
    lower_index = np.tri(experts, k=-1, dtype=np.bool_)
    tie = graph.op("And", graph.op("Equal", other, own), graph.constant(lower_index, "lower_index"))
    before = graph.op("Cast", graph.op("Or", graph.op("Greater", other, own), tie), to=TensorProto.FLOAT)
    rank = graph.op("ReduceSum", before, graph.integers([2], "axes"), keepdims=0)
    chosen = graph.op("Less", rank, graph.scalar(top_k - 0.5))
    weights = graph.op("Softmax", graph.op("Where", chosen, logits, graph.scalar(MASKED_LOGIT)), axis=-1)
    counts = graph.op("Greater", weights, graph.scalar(GATE_FLOOR))
    return graph.op("Where", counts, weights, graph.scalar(0.0))


def generate_prompts(
    graph: GraphBuilder, pair: str, module: TaskCustomizedMoA, task: int, tokens: int
) -> list[str]:
    """Add prompt_x and prompt_y before Eq. 8, each [M, 1], from both sources' tokens side by side [M, 2C].

    From the second product on everything is row by row on matrices. TensorRT makes one kernel of the gating, Eq. 8 and
    the mixing of the sources; 3-D forms leave a separate kernel for the means.
    """
    generator = module.prompts
    narrow = generator.reduce.out_features
    routers = generator.routers
    experts = routers.gate.shape[2]
    normed = graph.layer_norm(pair, generator.reduce.in_features, generator.norm1.eps)
    reduction = fold_reduction(generator.norm1, generator.reduce)
    reduced = graph.linear(normed, reduction.weight, reduction.bias)
    u = graph.layer_norm(reduced, narrow, generator.norm2.eps)  # [M, C/4]
    down, up = fold_adapters(generator.norm2, generator.bank, fold_router(generator.norm2, routers, task))
    hidden = graph.op("Relu", graph.linear(u, down.weight, down.bias))
    both = graph.linear(hidden, up.weight, up.bias)
    outputs, logits = graph.split(both, (experts * narrow, experts))
    gates = graph.split(top_k_gates(graph, logits, tokens, experts, routers.top_k), (1,) * experts)
    raised = graph.split(graph.op("Exp", outputs), (narrow,) * experts)
    mixed = reduce(graph.add, map(graph.mul, raised, gates))  # [M, C/4]
    zero = graph.op("Equal", mixed, graph.scalar(0.0))
    logs = graph.op("Log", graph.op("Where", zero, graph.scalar(LOG_EPSILON), mixed))
    halves = graph.split(logs, (narrow // 2, narrow // 2))
    return [graph.op("Sigmoid", graph.mean(half, [1], keepdims=True)) for half in halves]


def fuse_sources(
    tg: TokenGraph, sources: Sequence[str], prompts: Sequence[str], module: TaskCustomizedMoA, task: int
) -> tuple[str, float]:
    """Add the prompt-driven fusion of both sources' tokens [M, C] in raster order, times the mix scalar a.

    Args:
        tg: The graph, with the token matrix of one source.
        sources: Tokens of x and y.
        prompts: prompt_x and prompt_y after Eq. 8, [M, 1].
        module: The TC-MoA.
        task: Index of the task.

    Returns:
        Tokens [M, C] in raster order, and 1 - a.
    """
    graph, layout = tg.graph, tg.layout
    folded = fold_fusion(module, task)
    channels, narrow = folded.down.weight.shape
    h = graph.add(graph.mul(sources[0], prompts[0]), graph.mul(sources[1], prompts[1]))
    # Tokens in raster order are an image in NHWC, the layout that TensorRT's convolutions prefer: no copy. With the
    # first convolution written as a matrix product, a copy would follow it.
    image = graph.transpose(graph.reshape(h, tg.images, *layout.image_grid, channels), 0, 3, 1, 2)
    down = np.ascontiguousarray(folded.down.weight.T[:, :, None, None])
    image = graph.op("Conv", image, graph.floats(down, "down"), graph.floats(folded.down.bias, "bias"))
    image = graph.op("Conv", image, graph.floats(folded.kernel, "kernel"), pads=[1, 1, 1, 1])
    tokens = tg.merge_images(graph.transpose(image, 0, 2, 3, 1), narrow)
    return graph.linear(tokens, folded.up), folded.keep


def restandardize(tg: TokenGraph, new: str, old: str, channels: int) -> str:
    """Give each image of `new` [M, C] the mean and the unbiased standard deviation of `old`, in float32.

    Moments are computed by token and then combined (mean of variances plus variance of means), so that the large
    tensors are read once for them.
    """
    graph = tg.graph
    outer, inner = tg.layout.axes_around_images
    count = tg.layout.tokens_per_image * channels
    unbiased = count / (count - 1)

    def moments_by_token(tokens: str) -> tuple[str, str]:
        means = graph.mean(tokens, [1], keepdims=True)
        deviations = graph.op("Sub", tokens, means)
        return means, graph.mean(graph.mul(deviations, deviations), [1], keepdims=True)

    with graph.float32():
        pairs = zip(moments_by_token(new), moments_by_token(old), strict=True)
        shape = (outer, tg.images, inner, 2)
        means, variances = (graph.reshape(graph.concat(pair, 1), *shape) for pair in pairs)
        mean = graph.mean(means, [0, 2], keepdims=True)
        between = graph.op("Sub", means, mean)
        total = graph.add(variances, graph.mul(between, between))
        variance = graph.mul(graph.mean(total, [0, 2], keepdims=True), graph.scalar(unbiased))
        new_mean, old_mean = graph.split(mean, (1, 1), axis=3)  # [1, images, 1, 1]
        new_std, old_std = graph.split(graph.op("Sqrt", variance), (1, 1), axis=3)
        ratio = graph.op("Div", old_std, graph.add(new_std, graph.scalar(STD_EPSILON)))
        grouped = tg.split_images(new, channels)
        result = graph.add(graph.mul(graph.op("Sub", grouped, new_mean), ratio), old_mean)
        return tg.merge_images(result, channels)


def add_moa(
    tg: TokenGraph,
    tokens: str,
    module: TaskCustomizedMoA,
    task: int,
    control: ControlMaps,
    *,
    only_x: bool,
) -> MoAValues:
    """Add a TC-MoA that fuses both sources' tokens.

    Args:
        tg: The graph, with the token matrix of both sources.
        tokens: The token matrix.
        module: The TC-MoA.
        task: Index of the task whose router decides.
        control: Eq. 8 for each token.
        only_x: Whether the result holds x only, because nothing reads y afterwards.
    """
    graph, single = tg.graph, tg.one_source
    channels = module.fusion.conv1.in_channels
    pair = tg.pair_sources(tokens, channels)
    # Exponentials, logarithms and near ties of the routers need float32 in every precision.
    with graph.float32():
        raw = generate_prompts(graph, pair, module, task, single.rows)
        prompts = [
            graph.add(graph.mul(one, control.scale), offset)
            for one, offset in zip(raw, (control.offset_x, control.offset_y), strict=True)
        ]
    # Gathered a second time for the mixing: otherwise one kernel would write a copy for another.
    sources = [graph.gather(tokens, rows, 0) for rows in tg.source_rows]
    fused, keep = fuse_sources(single, sources, prompts, module, task)
    kept = single if only_x else tg
    old = tg.take_x(tokens, channels) if only_x else tokens
    window_order = tg.layout.raster_positions(kept.images) % single.rows
    new = graph.add(graph.mul(old, graph.scalar(keep)), graph.gather(fused, window_order, 0))
    if module.restandardizes:
        new = restandardize(kept, new, old, channels)
    return MoAValues(new, prompts[0], prompts[1])
