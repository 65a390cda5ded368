"""The whole static graph: frames in, frame out."""

from __future__ import annotations

from collections.abc import Sequence

import onnx

from tcmoa import TCMoA
from tcmoa.model import Stage
from tcmoa_export.blocks_graph import add_attention, add_mlp
from tcmoa_export.folds import fold_norm
from tcmoa_export.frame_graph import (
    SourcePlanes,
    add_positions,
    fit_lumas,
    frames_to_planes,
    frames_to_tokens,
    lumas_to_tokens,
    tokens_to_frame,
)
from tcmoa_export.graph_builder import FLOAT32, GraphBuilder
from tcmoa_export.moa_graph import ControlMaps, add_moa, control_maps
from tcmoa_export.precision import lower
from tcmoa_export.spec import ExportSpec
from tcmoa_export.token_graph import TokenGraph
from tcmoa_runtime.contract import PROMPT, PROMPT_SCALE, PROMPT_SHIFT, X, Y
from tcmoa_runtime.graph_storage import share_position_biases, store_float16, store_short_indices

PromptPair = tuple[str, str]


def build_graph(model: TCMoA, spec: ExportSpec, name: str, producer_version: str) -> onnx.ModelProto:
    """Fold a model into one ONNX model.

    Args:
        model: The model, in evaluation mode.
        spec: What to export.
        name: Beginning of the graph's name.
        producer_version: Version of this package, recorded in the model.
    """
    options = spec.options
    graph = GraphBuilder()
    both = TokenGraph(graph, spec.layout, 2 * spec.images)
    with graph.scope("head"):
        # 0..255 are exact in every precision.
        frames = {source: graph.op("Cast", source, to=onnx.TensorProto.FLOAT) for source in (X, Y)}
        planes: dict[str, SourcePlanes] = {}
        lumas: dict[str, str] = {}
        with graph.float32():
            if options.color == "luma":
                planes = frames_to_planes(graph, frames, spec)
            if spec.weighs_sources:
                lumas = fit_lumas(both, planes, spec)
        with graph.float32(only_for_bf16=True):
            tokens = (
                lumas_to_tokens(both, lumas, model, spec)
                if lumas
                else frames_to_tokens(both, frames, model, spec)
            )
    with graph.scope("control"), graph.float32():
        control = control_maps(graph, PROMPT_SCALE, PROMPT_SHIFT, spec.layout, options.batch)
    split = model.sizes.encoder_moas
    tokens, prompts = _add_stage(both, tokens, "encoder", model.encoder, spec.routers[:split], control)
    with graph.scope("decoder_embed"):
        tokens = _embed_for_decoder(both, tokens, model, spec)
    with graph.precise_residuals():
        tokens, more = _add_stage(
            both, tokens, "decoder", model.decoder, spec.routers[split:], control, is_last=True
        )
    with graph.scope("tail"):
        tokens_to_frame(graph, tokens, model, spec, frames, planes, lumas)
    if options.with_prompt:
        with graph.scope("prompt"), graph.float32():
            _add_prompt_output(graph, prompts + more, spec)
    proto = graph.build(name, spec.contract.inputs, spec.contract.outputs, producer_version)
    if options.weight_storage == "fp16":
        share_position_biases(proto)
        store_float16(proto, FLOAT32)
        store_short_indices(proto)
    return lower(proto, options.precision)


def _add_stage(
    tg: TokenGraph,
    tokens: str,
    name: str,
    stage: Stage,
    routers: Sequence[int],
    control: ControlMaps,
    *,
    is_last: bool = False,
) -> tuple[str, list[PromptPair]]:
    """Add the encoder or decoder to both sources' tokens.

    In the last stage only x goes on after the last TC-MoA, and after the last attention only the tokens that reach the
    frame, in raster order: [B * n * kept, C].

    Returns:
        The tokens, and the prompts of each TC-MoA.
    """
    graph, layout = tg.graph, tg.layout
    last_block, last_moa = len(stage.blocks) - 1, max(stage.moa_after, default=-1)
    prompts: list[PromptPair] = []
    if is_last and not stage.moa_after:
        tokens, tg = tg.take_x(tokens, stage.blocks[0].attn.proj.in_features), tg.one_source
    for i, block in enumerate(stage.blocks):
        ends_here = is_last and i == last_block and i not in stage.moa_after
        with graph.scope(f"{name}.{i}"):
            with graph.scope("attention"):
                keep = layout.kept_rows(tg.images) if ends_here else None
                tokens = add_attention(tg, tokens, block, stage.biases[i // 2], keep=keep)
            with graph.scope("mlp"):
                tokens = add_mlp(graph, tokens, block)
        if i in stage.moa_after:
            k, only_x = stage.moa_after[i], is_last and i == last_moa
            with graph.scope(f"{name}_moa.{k}"):
                values = add_moa(tg, tokens, stage.moas[k], routers[k], control, only_x=only_x)
            tokens = values.tokens
            prompts.append((values.prompt_x, values.prompt_y))
            if only_x:
                tg = tg.one_source
    if is_last and last_block in stage.moa_after:
        tokens = graph.gather(tokens, layout.kept_rows(tg.images), 0)
    return tokens, prompts


def _embed_for_decoder(tg: TokenGraph, tokens: str, model: TCMoA, spec: ExportSpec) -> str:
    """Add the encoder's final norm, the projection to the decoder's width, and the decoder's positions."""
    graph = tg.graph
    weight, bias = fold_norm(model.norm, model.decoder_embed.weight, model.decoder_embed.bias)
    normed = graph.layer_norm(tokens, model.sizes.embed_dim, model.norm.eps)
    with graph.float32(only_for_bf16=True):
        tokens = graph.linear(normed, weight.T.contiguous().float().numpy())
        return add_positions(
            tg, tokens, model.decoder_pos_embed, bias, as_published=spec.options.as_published
        )


def _add_prompt_output(graph: GraphBuilder, prompts: Sequence[PromptPair], spec: ExportSpec) -> None:
    """Add the output `prompt` [B, K, 2, gh, gw] from prompts [M, 1] by token in raster order."""
    batch, layout = spec.options.batch, spec.layout
    rows = [graph.reshape(p, batch, 1, len(layout.map_index)) for pair in prompts for p in pair]
    taken = graph.gather(graph.concat(rows, 1), layout.image_index, 2)
    shape = (batch, len(prompts), 2, *layout.grid)
    graph.output("Reshape", PROMPT, taken, graph.integers(shape))
