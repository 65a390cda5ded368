"""Backbone blocks as ONNX.

Tokens are the matrix [M, C] of `TokenGraph` everywhere but inside attention, where kernels read q, k and v through
strides, without a copy. q, k and v are three products: TensorRT merges them into one (same kernels, same bytes), and
CPUs save the copies of a Split (5 to 7 % of a frame). Attention is decomposed into MatMul, Add and Softmax, the form
that TensorRT fuses with the least traffic. Opset 23's Attention is no alternative: ONNX Runtime on two CPU cores takes
2019 ms with it and 2007 ms without on base 448x448, 1362 and 1422 ms on tiny 640x480.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

from tcmoa.blocks import Attention, Block, Mlp, RelativePositionBias
from tcmoa_export.folds import fold_qkv, linear_after_norm, plain_linear, position_bias
from tcmoa_export.graph_builder import GraphBuilder
from tcmoa_export.token_graph import TokenGraph
from tcmoa_export.token_layout import Index


def attend(tg: TokenGraph, qkv: Sequence[str], attention: Attention, bias: RelativePositionBias) -> str:
    """Add Softmax(q k^T + bias) v of each window: q, k and v, each [M, C], to [M, C]."""
    graph, layout = tg.graph, tg.layout
    tokens = layout.tokens_per_window
    windows = tg.rows // tokens
    channels = attention.proj.in_features
    # To [window, head, token, channel], and k to [window, head, channel, token].
    token_axis, window_axis = (0, 1) if layout.is_position_major else (1, 0)
    shape = (tokens, windows) if layout.is_position_major else (windows, tokens)
    heads = [graph.reshape(part, *shape, attention.heads, channels // attention.heads) for part in qkv]
    q = graph.transpose(heads[0], window_axis, 2, token_axis, 3)
    k = graph.transpose(heads[1], window_axis, 2, 3, token_axis)
    v = graph.transpose(heads[2], window_axis, 2, token_axis, 3)
    table = graph.floats(position_bias(bias, layout.raster_of_in_window), "position_bias")
    # Each product alone is float32 and its result 16 bits: TensorRT reads this as 16-bit operands accumulated in
    # float32 and still fuses the whole attention. In fp16 it may otherwise accumulate in fp16; one float32 region over
    # both products and the softmax would not be fused.
    with graph.float32():
        logits = graph.op("MatMul", q, k)
    weights = graph.op("Softmax", graph.add(logits, table), axis=-1)
    with graph.float32():
        product = graph.op("MatMul", weights, v)
    mixed = graph.transpose(product, *((2, 0) if layout.is_position_major else (0, 2)), 1, 3)
    return tg.merge_images(mixed, channels)


def add_attention(
    tg: TokenGraph,
    tokens: str,
    block: Block,
    bias: RelativePositionBias,
    *,
    keep: Index | None = None,
) -> str:
    """Add a block's norm and windowed attention to tokens [M, C], with the residual.

    The tokens themselves are never shifted: in a shifted block the norm reads them rolled, and the result of the branch
    is rolled back before it is added.

    Args:
        tg: The graph.
        tokens: The token matrix.
        block: The block.
        bias: The block's relative position bias.
        keep: Rows of the result, in this order; all rows if None.

    Returns:
        [M, C], or [len(keep), C].
    """
    graph, channels = tg.graph, block.attn.proj.in_features
    source = tg.roll(tokens, channels, 1) if block.shift else tokens
    weight, offset = fold_qkv(block.norm1, block.attn)
    normed = graph.layer_norm(source, channels, block.norm1.eps, offset)
    qkv = [graph.linear(normed, np.ascontiguousarray(part)) for part in np.split(weight, 3, axis=1)]
    proj = plain_linear(block.attn.proj)
    mixed = attend(tg, qkv, block.attn, bias)
    change = graph.linear(mixed, proj.weight, proj.bias)
    if keep is not None:
        rows = tg.layout.shifted_rows(-1, tg.images)[keep] if block.shift else keep
        return graph.residual(graph.gather(tokens, keep, 0), graph.gather(change, rows, 0))
    if block.shift:
        change = tg.roll(change, channels, -1)
    return graph.residual(tokens, change)


def add_mlp(graph: GraphBuilder, tokens: str, block: Block) -> str:
    """Add a block's norm and MLP to tokens [M, C], with the residual."""
    layer: Mlp = block.mlp
    first, second = linear_after_norm(block.norm2, layer.fc1), plain_linear(layer.fc2)
    normed = graph.layer_norm(tokens, layer.fc1.in_features, block.norm2.eps)
    hidden = gelu(graph, graph.linear(normed, first.weight, first.bias))
    return graph.residual(tokens, graph.linear(hidden, second.weight, second.bias))


def gelu(graph: GraphBuilder, a: str) -> str:
    """Add x/2 * (1 + erf(x / sqrt 2)), the chain that the runtimes' fusions recognize."""
    erf = graph.op("Erf", graph.op("Div", a, graph.scalar(math.sqrt(2))))
    return graph.mul(graph.mul(a, graph.add(erf, graph.scalar(1.0))), graph.scalar(0.5))
