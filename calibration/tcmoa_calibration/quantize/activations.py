"""Statistics of the inputs of linear layers, and of some of their results, on sample pairs."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

from tcmoa_calibration.quantize.linears import BackboneLinear
from tcmoa_calibration.quantize.sessions import new_session
from tcmoa_calibration.sample_pairs import SamplePair, graph_inputs
from tcmoa_runtime.bundle import Bundle

NUM_SAMPLED_VALUES: Final = 1 << 20
"""Numbers kept of each input, over all pairs: enough for a 99.99th percentile, and 100 inputs fit in memory."""
_MIN_ROWS: Final = 16

Array = NDArray[np.float32]


@dataclass(frozen=True)
class ActivationStats:
    """Magnitudes of an input or result [M, C] over all pairs.

    Attributes:
        channel_max: [C]: the largest of each channel, exact.
        rows: [rows, C]: all channels of randomly drawn tokens.
    """

    channel_max: Array
    rows: Array

    def divided_by(self, scales: Array) -> ActivationStats:
        """Return the statistics of the input divided by scales [C]."""
        return ActivationStats(self.channel_max / scales, self.rows / scales)


def collect_activation_stats(
    model: onnx.ModelProto,
    bundle: Bundle,
    pairs: Sequence[SamplePair],
    linears: Sequence[BackboneLinear],
    seed: int,
    on_pair: Callable[[], None] = lambda: None,
    *,
    results: Sequence[BackboneLinear] = (),
) -> dict[str, ActivationStats]:
    """Run the graph on all pairs; return the statistics of every input of `linears` and result of `results`, by name.

    The reductions are nodes of the graph, so that memory does not grow with the frame.

    Args:
        model: The float32 graph.
        bundle: The bundle of the graph.
        pairs: Pairs of the bundle's frame size.
        linears: The layers.
        seed: Seed of the choice of tokens.
        on_pair: Called after each pair.
        results: The layers whose results, before the bias, are measured too.
    """
    instrumented = onnx.ModelProto()
    instrumented.CopyFrom(model)
    graph = instrumented.graph
    widths = {linear.input: linear.shape[0] for linear in linears}
    widths.update({linear.node: linear.shape[1] for linear in results})
    rng = np.random.default_rng(seed)
    num_tokens = _num_tokens(model, list(widths))
    outputs: list[str] = []
    for number, (name, width) in enumerate(widths.items()):
        num_rows = min(num_tokens[name], max(_MIN_ROWS, NUM_SAMPLED_VALUES // (width * len(pairs))))
        index = np.sort(rng.choice(num_tokens[name], num_rows, replace=False))
        magnitude, maximum, rows = (f"stats.{number}/{part}" for part in ("abs", "max", "rows"))
        graph.initializer.extend(
            (
                numpy_helper.from_array(index.astype(np.int64), f"{rows}/index"),
                numpy_helper.from_array(np.array([0], np.int64), f"{maximum}/axes"),
            )
        )
        graph.node.extend(
            (
                helper.make_node("Abs", [name], [magnitude]),
                helper.make_node("ReduceMax", [magnitude, f"{maximum}/axes"], [maximum], keepdims=0),
                helper.make_node("Gather", [magnitude, f"{rows}/index"], [rows], axis=0),
            )
        )
        outputs += [maximum, rows]
    graph.output.extend(helper.make_tensor_value_info(name, TensorProto.FLOAT, None) for name in outputs)
    session = new_session(instrumented)
    measured: list[list[Array]] = []
    for pair in pairs:
        measured.append(session.run(outputs, graph_inputs(bundle, pair)))
        on_pair()
    return {
        name: ActivationStats(
            np.max([values[2 * number] for values in measured], axis=0),
            np.concatenate([values[2 * number + 1] for values in measured]),
        )
        for number, name in enumerate(widths)
    }


def _num_tokens(model: onnx.ModelProto, names: Sequence[str]) -> dict[str, int]:
    """Return M of each [M, C] by ONNX's shape inference; all shapes are static."""
    inferred = onnx.shape_inference.infer_shapes(model, strict_mode=True, data_prop=True)
    shapes = {info.name: info.type.tensor_type.shape.dim[0].dim_value for info in inferred.graph.value_info}
    return {name: shapes[name] for name in names}
