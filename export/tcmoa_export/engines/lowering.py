"""The graph that an engine is built from: a bundle's graph in the engine's precision, compared with the bundle's own.

Neither PyTorch nor the weights file is needed.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Final

import numpy as np
import onnx
from onnx import TensorProto

from tcmoa_export.engines.gathered_sums import use_products
from tcmoa_export.graph_loading import load_graph
from tcmoa_export.graph_session import GraphSession
from tcmoa_export.islands import MIN_PSNR_DB, lower_by_measurement
from tcmoa_export.parity import GraphKind, Parity, ParityError, Results, check_parity, measure_parity
from tcmoa_export.precision import lower
from tcmoa_runtime.backends.base import Backend
from tcmoa_runtime.backends.pick import load_backend
from tcmoa_runtime.bundle import Bundle
from tcmoa_runtime.fuser import Fuser
from tcmoa_runtime.graph_forms import prepare
from tcmoa_runtime.graph_metadata import write_precision
from tcmoa_runtime.images import read_frame
from tcmoa_runtime.pairs import PairPaths
from tcmoa_runtime.typing import Frame, FrameSize, OnMessage, Precision

UINT8_ZERO_POINT: Final = 128
"""Zero point of uint8 activations in graphs for CPUs."""

NamedPair = tuple[str, Frame, Frame]


def load_lowered_graph(
    bundle: Bundle, precision: Precision, pairs: Sequence[PairPaths], on_message: OnMessage
) -> onnx.ModelProto:
    """Load a bundle's graph, lowered to a precision where it is in another one.

    Args:
        bundle: The bundle.
        precision: Precision of everything but the quantized products.
        pairs: Image pairs for the comparison, of any size.
        on_message: Called with each step.

    Raises:
        ParityError: The lowered graph's results differ too much from the bundle's.
    """
    model = load_graph(bundle)
    if bundle.network is not None:
        return _lower_wrapped(bundle, model, precision, pairs, on_message)
    use_products(model)
    if precision != bundle.precision:
        on_message(f"lowering the graph to {precision}")
        lower(sign_activations(model), precision)
        write_precision(model, precision)
        check_lowered(bundle, model, precision, pairs, on_message)
    return model


def _lower_wrapped(
    bundle: Bundle,
    model: onnx.ModelProto,
    precision: Precision,
    pairs: Sequence[PairPaths],
    on_message: OnMessage,
) -> onnx.ModelProto:
    """Lower the graph of a wrapped network, of which nothing is known; see `tcmoa_export.islands`."""
    prepare(sign_activations(model))
    if precision == "fp32":
        return model
    on_message(f"lowering the graph to {precision}")
    frames = _read_frames(bundle, pairs)
    expected = _fuse(bundle, load_backend(bundle, "onnxruntime"), frames)

    def measure(lowered: onnx.ModelProto) -> float:
        results = _fuse(bundle, GraphSession(lowered, bundle.contract, precision), frames)
        names = [name for name, _, _ in frames]
        found = measure_parity(results, expected, kind=precision, pictures=names, backend="onnxruntime")
        return math.inf if found.psnr_db is None else found.psnr_db

    islands = lower_by_measurement(model, precision, measure, on_message)
    if not islands.psnr_db >= MIN_PSNR_DB:
        raise ParityError(
            f"PSNR to the bundle is {islands.psnr_db:.1f} dB with {len(islands.kept)} of {islands.parts} parts in "
            f"float32; expected at least {MIN_PSNR_DB:g} dB",
            subject=f"the {precision} graph",
            remedy="Nothing was written. Use {precision} fp32",
            settings={"precision": ...},
        )
    write_precision(islands.model, precision)
    return islands.model


def sign_activations(model: onnx.ModelProto) -> onnx.ModelProto:
    """Turn activations quantized to uint8 around 128 into int8 around 0, the same numbers, in place.

    TensorRT supports no zero points.

    Returns:
        `model`.
    """
    for tensor in model.graph.initializer:
        zero_points = bytes((UINT8_ZERO_POINT,)) * len(tensor.raw_data)
        if tensor.data_type == TensorProto.UINT8 and tensor.raw_data == zero_points:
            tensor.data_type, tensor.raw_data = TensorProto.INT8, bytes(len(zero_points))
    return model


def check_lowered(
    bundle: Bundle,
    model: onnx.ModelProto,
    precision: Precision,
    pairs: Sequence[PairPaths],
    on_message: OnMessage,
) -> Parity:
    """Compare a lowered graph with the bundle's own on one batch of frames; see `load_lowered_graph`."""
    own = "float32" if bundle.precision == "fp32" else bundle.precision
    on_message(f"checking {precision} against {own}")
    frames = _read_frames(bundle, pairs)
    copy = onnx.ModelProto()
    copy.CopyFrom(model)  # emulation changes the model
    lowered = GraphSession(copy, bundle.contract, precision)
    expected = _fuse(bundle, load_backend(bundle, "onnxruntime"), frames)
    results = _fuse(bundle, lowered, frames)
    names = [name for name, _, _ in frames]
    in_eight_bits = precision == "fp16" and bundle.precision in ("int8", "fp8")
    kind: GraphKind = "fp16, products in 8 bits" if in_eight_bits else precision
    parity = measure_parity(results, expected, kind=kind, pictures=names, backend=lowered.name)
    check_parity(parity, kind)
    return parity


def _fuse(bundle: Bundle, backend: Backend, frames: list[NamedPair]) -> Results:
    x, y = np.stack([x for _, x, _ in frames]), np.stack([y for _, _, y in frames])
    with Fuser(bundle, backend, fit="resize") as fuser:
        if bundle.contract.with_prompt:
            fused, prompts = fuser.with_prompt(x, y)
            return Results(list(fused), list(prompts))
        return Results(list(fuser(x, y)))


def _read_frames(bundle: Bundle, pairs: Sequence[PairPaths]) -> list[NamedPair]:
    """Return one batch of pairs in the bundle's size."""
    chosen = [pairs[i % len(pairs)] for i in range(bundle.contract.batch)]
    return [
        (pair.name, _resized(read_frame(pair.x), bundle.size), _resized(read_frame(pair.y), bundle.size))
        for pair in chosen
    ]


def _resized(frame: Frame, size: FrameSize) -> Frame:
    import cv2

    return np.asarray(cv2.resize(frame, size[::-1]), np.uint8)
