"""Outlier channels moved from activations into weights, exactly (SmoothQuant, Xiao et al. 2023, Eq. 4).

A LayerNorm's output is divided by s, channel by channel, in the norm's own scale and offset, and the rows of all
linears that read it are multiplied by s. The image stays what it was; the largest activation no longer decides alone
how coarse all others become.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import numpy_helper

from tcmoa_calibration.quantize.linears import Linear
from tcmoa_calibration.quantize.observe import Observed

Array = NDArray[np.float32]


def smoothing_scales(channel_max: Array, weights: Sequence[Array], strength: float) -> Array:
    """s [C] = max|x|^strength / max|w|^(1 - strength), scaled to a geometric mean of 1.

    weights: of all linears [C, N] that read x. strength: 0 leaves the outliers to the activations, 1 to the weights.
    """
    rows = np.max([np.abs(w).max(axis=1) for w in weights], axis=0).astype(np.float64)
    scales = np.maximum(channel_max.astype(np.float64), 1e-5) ** strength / np.maximum(rows, 1e-5) ** (
        1 - strength
    )
    result: Array = (scales / np.exp(np.mean(np.log(scales)))).astype(np.float32)
    return result


def smooth(
    model: onnx.ModelProto, linears: Sequence[Linear], observed: Mapping[str, Observed], strength: float
) -> dict[str, Observed]:
    """Change `model` in place and give what its inputs are like now. Linears behind no norm stay as they are."""
    now = dict(observed)
    tensors = {tensor.name: tensor for tensor in model.graph.initializer}
    nodes = {node.name: node for node in model.graph.node}
    by_norm: dict[str, list[Linear]] = {}
    for linear in linears:
        if linear.norm is not None:
            by_norm.setdefault(linear.norm, []).append(linear)
    for name, readers in by_norm.items():
        weights = {linear.weight: numpy_helper.to_array(tensors[linear.weight]) for linear in readers}
        source = readers[0].source
        scales = smoothing_scales(observed[source].channel_max, list(weights.values()), strength)
        norm = nodes[name]
        for i, part in ((1, "scale"), (2, "offset")):
            smoothed = numpy_helper.to_array(tensors[norm.input[i]]) / scales
            norm.input[i] = _constant(model, f"{name}/{part}", smoothed)
        for linear in readers:
            nodes[linear.node].input[1] = _constant(
                model, f"{linear.node}/smoothed", weights[linear.weight] * scales[:, None]
            )
        now[source] = observed[source].divided(scales)
    return now


def _constant(model: onnx.ModelProto, name: str, value: NDArray[Any]) -> str:
    model.graph.initializer.append(numpy_helper.from_array(value.astype(np.float32), name))
    return name
