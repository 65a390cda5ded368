"""A graph that is not in a bundle, in ONNX Runtime."""

from __future__ import annotations

from typing import Any

import onnx
import onnxruntime as ort
from numpy.typing import NDArray

from tcmoa_export.bf16_emulation import emulate_bf16
from tcmoa_runtime.backends.base import Outputs, Tensors
from tcmoa_runtime.contract import EXTREMES, FUSED, PROMPT, Contract
from tcmoa_runtime.typing import Precision


class GraphSession:
    """A `Backend` that runs a graph in ONNX Runtime on the CPU; bf16 is emulated.

    Args:
        model: The graph; emulation changes it.
        contract: Its inputs and outputs.
        precision: Its precision.
    """

    def __init__(self, model: onnx.ModelProto, contract: Contract, precision: Precision) -> None:
        emulated = precision == "bf16"
        self.name = f"onnxruntime (CPU){', bfloat16 emulated' if emulated else ''}"
        options = ort.SessionOptions()
        options.log_severity_level = 3
        data = (emulate_bf16(model) if emulated else model).SerializeToString()
        self._session = ort.InferenceSession(data, options)
        self._names = [spec.name for spec in contract.outputs]

    def infer(self, inputs: Tensors) -> Outputs:
        """Run the graph once; see `Backend`."""
        values: list[NDArray[Any]] = self._session.run(self._names, dict(inputs))
        found = dict(zip(self._names, values, strict=True))
        outputs = Outputs(fused=found[FUSED])
        if PROMPT in found:
            outputs["prompt"] = found[PROMPT]
        if EXTREMES in found:
            outputs["extremes"] = found[EXTREMES]
        return outputs

    def close(self) -> None:
        """Do nothing; see `Backend`."""
