"""The whole fixed graph: frames in, frame out."""

from __future__ import annotations

from collections.abc import Sequence

import onnx

from tcmoa import TCMoA
from tcmoa.model import Stage
from tcmoa_export.blocks_graph import attention_part, mlp
from tcmoa_export.emit import Graph
from tcmoa_export.folds import fold_norm
from tcmoa_export.frame_graph import add_positions, head, tail
from tcmoa_export.moa_graph import ControlMaps, control_maps, first_source, moa
from tcmoa_export.precision import lower
from tcmoa_export.spec import ExportSpec
from tcmoa_runtime.contract import PROMPT, PROMPT_SCALE, PROMPT_SHIFT, X, Y

Prompts = list[tuple[str, str]]


def build_graph(model: TCMoA, spec: ExportSpec, name: str, producer_version: str) -> onnx.ModelProto:
    """Fold `model` into one ONNX model as `spec` says; `name` begins the graph's name."""
    graph = Graph()
    with graph.scope("head"):
        # 0..255 are exact in every precision.
        frames = {s: graph.op("Cast", s, to=onnx.TensorProto.FLOAT) for s in (X, Y)}
        with graph.float32(only_for_bf16=True):
            tokens = head(graph, frames, model, spec)
    with graph.scope("control"), graph.float32():
        control = control_maps(graph, PROMPT_SCALE, PROMPT_SHIFT, spec.layout, spec.batch)
    split = model.sizes.encoder_moas
    tokens, prompts = _encode(graph, tokens, model, spec, control, spec.routers[:split])
    with graph.precise_residuals():
        tokens, more = _decode(graph, tokens, model, spec, control, spec.routers[split:])
    with graph.scope("tail"):
        tail(graph, tokens, model, spec, frames[X])
    if spec.with_prompt:
        with graph.scope("prompt"), graph.float32():
            _prompt_output(graph, prompts + more, spec)
    proto = graph.model(name, spec.contract.inputs, spec.contract.outputs, producer_version)
    return lower(proto, spec.precision)


def _encode(
    graph: Graph, tokens: str, model: TCMoA, spec: ExportSpec, control: ControlMaps, routers: Sequence[int]
) -> tuple[str, Prompts]:
    stage: Stage = model.encoder
    prompts: Prompts = []
    for i, block in enumerate(stage.blocks):
        with graph.scope(f"encoder.{i}"):
            with graph.scope("attention"):
                tokens = attention_part(
                    graph, tokens, block, stage.biases[i // 2], spec.layout, 2 * spec.images
                )
            with graph.scope("mlp"):
                tokens = mlp(graph, tokens, block)
        if i in stage.moa_after:
            k = stage.moa_after[i]
            with graph.scope(f"encoder_moa.{k}"):
                tokens, prompt_x, prompt_y = moa(
                    graph,
                    tokens,
                    stage.moas[k],
                    routers[k],
                    control,
                    spec.layout,
                    spec.images,
                    only_x=False,
                )
            prompts.append((prompt_x, prompt_y))
    with graph.scope("decoder_embed"):
        weight, bias = fold_norm(model.norm, model.decoder_embed.weight, model.decoder_embed.bias)
        normed = graph.normalise(tokens, model.sizes.embed_dim, model.norm.eps)
        with graph.float32(only_for_bf16=True):
            tokens = graph.matmul(normed, weight.T.contiguous().float().numpy())
            tokens = add_positions(graph, tokens, model.decoder_pos_embed, bias, spec, 2)
    return tokens, prompts


def _decode(
    graph: Graph, tokens: str, model: TCMoA, spec: ExportSpec, control: ControlMaps, routers: Sequence[int]
) -> tuple[str, Prompts]:
    """The decoder up to its final norm: kept tokens in raster order [B*n*kept, C], and the prompts.

    After the last TC-MoA only x goes on, and after the last attention only the tokens that reach the frame.
    """
    stage, layout = model.decoder, spec.layout
    dim = model.sizes.decoder_embed_dim
    last_moa = max(stage.moa_after, default=-1)
    last = len(stage.blocks) - 1
    prompts: Prompts = []
    sources = 2
    if last_moa < 0:
        tokens, sources = first_source(graph, tokens, layout, spec.images, dim), 1
    for i, block in enumerate(stage.blocks):
        keep = layout.kept_rows(spec.images) if i == last and last_moa < last else None
        with graph.scope(f"decoder.{i}"):
            with graph.scope("attention"):
                tokens = attention_part(
                    graph, tokens, block, stage.biases[i // 2], layout, sources * spec.images, keep=keep
                )
            with graph.scope("mlp"):
                tokens = mlp(graph, tokens, block)
        if i in stage.moa_after:
            k = stage.moa_after[i]
            with graph.scope(f"decoder_moa.{k}"):
                tokens, prompt_x, prompt_y = moa(
                    graph,
                    tokens,
                    stage.moas[k],
                    routers[k],
                    control,
                    layout,
                    spec.images,
                    only_x=i == last_moa,
                )
            prompts.append((prompt_x, prompt_y))
            if i == last_moa:
                sources = 1
    if last_moa == last:
        tokens = graph.gather(tokens, layout.kept_rows(spec.images), 0)
    return tokens, prompts


def _prompt_output(graph: Graph, prompts: Prompts, spec: ExportSpec) -> None:
    """The optional output `prompt` [B, K, 2, gh, gw] from per-token prompts [M, 1] in raster order."""
    per_frame = len(spec.layout.prompt_source)
    rows = [graph.reshape(p, spec.batch, 1, per_frame) for pair in prompts for p in pair]
    taken = graph.gather(graph.concat(rows, 1), spec.layout.prompt_target, 2)
    shape = (spec.batch, len(prompts), 2, *spec.layout.grid)
    graph.output("Reshape", PROMPT, taken, graph.integers(shape))
