"""What goes into each linear on real pairs: the largest magnitude of every channel, and a sample of values."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

from tcmoa_calibration.quantize.linears import Linear
from tcmoa_calibration.quantize.sessions import new_session
from tcmoa_calibration.samples import Sample, graph_inputs
from tcmoa_runtime.bundle import Bundle

VALUES: Final = 1 << 20
"""Numbers kept for each input, over all pairs: enough for a 99.99th percentile, little enough for 100 inputs."""

Array = NDArray[np.float32]


@dataclass(frozen=True)
class Observed:
    """Magnitudes of one input [M, C] over all pairs."""

    channel_max: Array
    """[C]: the largest of each channel, exact."""
    rows: Array
    """[rows, C]: all channels of tokens drawn at random."""

    def divided(self, scales: Array) -> Observed:
        """As if the input were divided by scales [C]."""
        return Observed(self.channel_max / scales, self.rows / scales)


def observe(
    model: onnx.ModelProto,
    bundle: Bundle,
    samples: Sequence[Sample],
    linears: Sequence[Linear],
    seed: int,
    tick: Callable[[], None] = lambda: None,
) -> dict[str, Observed]:
    """Run the graph on all samples; by name of input.

    The reductions are done inside the graph, so that memory does not grow with the frame.
    """
    watched = onnx.ModelProto()
    watched.CopyFrom(model)
    graph = watched.graph
    channels = {linear.source: linear.channels[0] for linear in linears}
    rng = np.random.default_rng(seed)
    shapes = _rows_of(model, list(channels))
    wanted: list[str] = []
    for number, (name, width) in enumerate(channels.items()):
        rows = min(shapes[name], max(16, VALUES // (width * len(samples))))
        index = np.sort(rng.choice(shapes[name], rows, replace=False))
        magnitude, most, some = (f"observed.{number}/{part}" for part in ("abs", "max", "rows"))
        graph.initializer.extend(
            (
                numpy_helper.from_array(index.astype(np.int64), f"{some}/index"),
                numpy_helper.from_array(np.array([0], np.int64), f"{most}/axes"),
            )
        )
        graph.node.extend(
            (
                helper.make_node("Abs", [name], [magnitude]),
                helper.make_node("ReduceMax", [magnitude, f"{most}/axes"], [most], keepdims=0),
                helper.make_node("Gather", [magnitude, f"{some}/index"], [some], axis=0),
            )
        )
        wanted += [most, some]
    graph.output.extend(helper.make_tensor_value_info(name, TensorProto.FLOAT, None) for name in wanted)
    session = new_session(watched)
    results: list[list[Any]] = []
    for sample in samples:
        results.append(session.run(wanted, graph_inputs(bundle, sample)))
        tick()
    by_output = {name: [result[i] for result in results] for i, name in enumerate(wanted)}
    return {
        name: Observed(
            np.max(by_output[f"observed.{number}/max"], axis=0),
            np.concatenate(by_output[f"observed.{number}/rows"]),
        )
        for number, name in enumerate(channels)
    }


def _rows_of(model: onnx.ModelProto, names: Sequence[str]) -> dict[str, int]:
    """M of each [M, C], by ONNX's own shape inference: all shapes are static."""
    inferred = onnx.shape_inference.infer_shapes(model, strict_mode=True, data_prop=True)
    shapes = {info.name: info.type.tensor_type.shape.dim[0].dim_value for info in inferred.graph.value_info}
    return {name: shapes[name] for name in names}
