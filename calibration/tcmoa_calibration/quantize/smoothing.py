"""SmoothQuant: moving outlier channels from activations into weights (Xiao et al. 2023, Eq. 4).

The output of a LayerNorm is divided by s, channel by channel, in the norm's own scale and offset, and the rows of all
linear layers that read it are multiplied by s. The function does not change, but the largest activation no longer
determines the rounding of all channels.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import numpy_helper

from tcmoa_calibration.quantize.activations import ActivationStats
from tcmoa_calibration.quantize.linears import BackboneLinear

Array = NDArray[np.float32]

_MIN_MAGNITUDE = 1e-5


def smoothing_scales(channel_max: Array, weights: Sequence[Array], strength: float) -> Array:
    """Return s [C] = max|x|^strength / max|w|^(1 - strength), divided by its geometric mean.

    Args:
        channel_max: max|x| [C].
        weights: The weights [C, N] of all layers that read x.
        strength: 0 leaves the outliers in the activations, 1 moves all of them into the weights.
    """
    rows = np.max([np.abs(w).max(axis=1) for w in weights], axis=0).astype(np.float64)
    scales = np.maximum(channel_max.astype(np.float64), _MIN_MAGNITUDE) ** strength / np.maximum(
        rows, _MIN_MAGNITUDE
    ) ** (1 - strength)
    result: Array = (scales / np.exp(np.mean(np.log(scales)))).astype(np.float32)
    return result


def smooth(
    model: onnx.ModelProto,
    linears: Sequence[BackboneLinear],
    stats: Mapping[str, ActivationStats],
    strength: float,
) -> dict[str, ActivationStats]:
    """Smooth `model` in place; layers that do not read a LayerNorm are not changed.

    Returns:
        The statistics of the changed inputs and of the others, by name.
    """
    smoothed_stats = dict(stats)
    tensors = {tensor.name: tensor for tensor in model.graph.initializer}
    nodes = {node.name: node for node in model.graph.node}
    readers_by_norm: dict[str, list[BackboneLinear]] = {}
    for linear in linears:
        if linear.norm is not None:
            readers_by_norm.setdefault(linear.norm, []).append(linear)
    for norm_name, readers in readers_by_norm.items():
        weights = {linear.weight: numpy_helper.to_array(tensors[linear.weight]) for linear in readers}
        input_name = readers[0].input
        scales = smoothing_scales(stats[input_name].channel_max, list(weights.values()), strength)
        norm = nodes[norm_name]
        for i, part in ((1, "scale"), (2, "offset")):
            smoothed = numpy_helper.to_array(tensors[norm.input[i]]) / scales
            norm.input[i] = _add_constant(model, f"{norm_name}/{part}", smoothed)
        for linear in readers:
            nodes[linear.node].input[1] = _add_constant(
                model, f"{linear.node}/smoothed", weights[linear.weight] * scales[:, None]
            )
        smoothed_stats[input_name] = stats[input_name].divided_by(scales)
    return smoothed_stats


def _add_constant(model: onnx.ModelProto, name: str, value: NDArray[np.floating]) -> str:
    model.graph.initializer.append(numpy_helper.from_array(value.astype(np.float32), name))
    return name
