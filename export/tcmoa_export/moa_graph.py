"""A TC-MoA as ONNX, one task's router folded in: no TopK, no Scatter, no control flow."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from onnx import TensorProto

from tcmoa.moa import GATE_FLOOR, PROMPT_MEAN, TaskCustomisedMoA
from tcmoa_export.emit import Graph
from tcmoa_export.folds import fold_adapters, fold_fusion, fold_reduction, fold_router, fold_top_k
from tcmoa_export.layout import Layout

BARRED = -1e30
"""Logit of an adapter that is not among the top K: its softmax is an exact 0."""

EPSILON = float(np.finfo(np.float64).eps)
"""What an exact 0 inside the adapters' log becomes, as published."""

SPREAD_FLOOR = 1e-12
"""Added to the standard deviation that re-standardisation divides by, as published."""


@dataclass(frozen=True)
class ControlMaps:
    """Eq. 8 on tokens in window order, each [M, 1]: p' = scale*p + offset, offsets mu*(1 - scale) +- shift."""

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


def gates(graph: Graph, logits: str, experts: int, top_k: int) -> str:
    """Softmax over the K largest of N logits [M, N], 0 elsewhere and where it is at most `GATE_FLOOR`."""
    top = fold_top_k(experts, top_k)
    first, second = graph.gather(logits, top.first, 1), graph.gather(logits, top.second, 1)
    won = graph.op("Cast", graph.op("GreaterOrEqual", first, second), to=TensorProto.FLOAT)
    wins = graph.matmul(won, top.wins, top.base)
    chosen = graph.op("Greater", wins, graph.scalar(top.threshold))
    weights = graph.op("Softmax", graph.op("Where", chosen, logits, graph.scalar(BARRED)), axis=-1)
    counts = graph.op("Greater", weights, graph.scalar(GATE_FLOOR))
    return graph.op("Where", counts, weights, graph.scalar(0.0))


def prompts(graph: Graph, x: str, y: str, moa: TaskCustomisedMoA, task: int, tokens: int) -> list[str]:
    """prompt_x and prompt_y before Eq. 8, each [M, 1], from both sources' tokens [M, C]."""
    generator = moa.prompts
    narrow = generator.reduce.out_features
    routers = generator.routers
    experts = routers.gate.shape[2]
    pair = graph.normalise(graph.concat((x, y), 1), generator.reduce.in_features, generator.norm1.eps)
    reduction = fold_reduction(generator.norm1, generator.reduce)
    u = graph.normalise(
        graph.matmul(pair, reduction.weight, reduction.bias), narrow, generator.norm2.eps
    )  # [M, C/4]
    router = fold_router(generator.norm2, routers, task)
    logits = graph.matmul(u, router.weight, router.bias)
    weights = gates(graph, logits, experts, routers.top_k)
    down, up = fold_adapters(generator.norm2, generator.bank)
    hidden = graph.op("Relu", graph.matmul(u, down.weight, down.bias))
    outputs = graph.reshape(graph.matmul(hidden, up.weight, up.bias), tokens, experts, narrow)
    weighted = graph.mul(graph.op("Exp", outputs), graph.reshape(weights, tokens, experts, 1))
    mixed = graph.op("ReduceSum", weighted, graph.integers([1], "axes"), keepdims=0)  # [M, C/4]
    zero = graph.op("Equal", mixed, graph.scalar(0.0))
    logs = graph.op("Log", graph.op("Where", zero, graph.scalar(EPSILON), mixed))
    means = graph.mean(graph.reshape(logs, tokens, 2, narrow // 2), [2], keepdims=False)
    return graph.split_op("Split", 2, graph.op("Sigmoid", means), axis=1, num_outputs=2)


def fuse(
    graph: Graph,
    x: str,
    y: str,
    prompt_x: str,
    prompt_y: str,
    moa: TaskCustomisedMoA,
    task: int,
    layout: Layout,
    images: int,
) -> tuple[str, float]:
    """a * (prompt-driven fusion) [M, C] of both sources, and 1 - a."""
    folded = fold_fusion(moa, task)
    narrow = folded.kernel.shape[0]
    h = graph.add(graph.mul(x, prompt_x), graph.mul(y, prompt_y))
    down = graph.matmul(h, folded.down.weight, folded.down.bias)
    image = graph.transpose(graph.reshape(down, images, *layout.axes, narrow), 0, 7, 1, 3, 5, 2, 4, 6)
    image = graph.reshape(image, images, narrow, *layout.image_grid)
    image = graph.op("Conv", image, graph.real(folded.kernel, "kernel"), pads=[1, 1, 1, 1])
    rows, cols, _, _, half, _ = layout.axes
    split = graph.reshape(image, images, narrow, rows, 2, half, cols, 2, half)
    tokens = graph.transpose(split, 0, 2, 5, 3, 6, 4, 7, 1)
    return graph.matmul(graph.reshape(tokens, images * layout.tokens, narrow), folded.up), folded.keep


def restandardise(
    graph: Graph, new: str, old: str, sources: int, layout: Layout, images: int, dim: int
) -> str:
    """Give each image of `new` [sources*M, C] the mean and unbiased standard deviation of `old`, in float32."""
    numbers = layout.tokens * dim
    unbiased = graph.scalar(numbers / (numbers - 1))

    def moments(tokens: str) -> tuple[str, str, str]:
        flat = graph.reshape(graph.widen(tokens), sources * images, numbers)
        mean = graph.mean(flat, [1], keepdims=True)
        centred = graph.op("Sub", flat, mean)
        variance = graph.mul(graph.mean(graph.mul(centred, centred), [1], keepdims=True), unbiased)
        return mean, centred, graph.op("Sqrt", variance)

    mean, _, spread = moments(old)
    _, centred, new_spread = moments(new)
    ratio = graph.op("Div", spread, graph.add(new_spread, graph.scalar(SPREAD_FLOOR)))
    result = graph.add(graph.mul(centred, ratio), mean)
    return graph.narrow(graph.reshape(result, sources * images * layout.tokens, dim))


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

    Also returns prompt_x and prompt_y after Eq. 8, each [M, 1].
    """
    count = images * layout.tokens
    dim = module.fusion.conv1.in_channels
    x, y = graph.split_op("Split", 2, tokens, axis=0, num_outputs=2)
    # Exponentials, logarithms and near ties of the routers: float32 in every precision.
    with graph.float32():
        raw_x, raw_y = prompts(graph, graph.widen(x), graph.widen(y), module, task, count)
        prompt_x = graph.add(graph.mul(raw_x, control.scale), control.offset_x)
        prompt_y = graph.add(graph.mul(raw_y, control.scale), control.offset_y)
    shares = graph.narrow(prompt_x), graph.narrow(prompt_y)
    fused, keep = fuse(graph, x, y, *shares, module, task, layout, images)
    sources, old = (1, x) if only_x else (2, tokens)
    kept = graph.mul(old, graph.scalar(keep))
    if only_x:
        new = graph.add(kept, fused)
    else:
        both = graph.add(graph.reshape(kept, 2, count, dim), fused)
        new = graph.reshape(both, 2 * count, dim)
    if module.restandardises:
        with graph.float32():
            new = restandardise(graph, new, old, sources, layout, images, dim)
    return new, prompt_x, prompt_y
