"""ONNX Runtime on graphs that are no bundle's own yet, set as the runtime sets it for low precision."""

from __future__ import annotations

import onnx
import onnxruntime as ort

from tcmoa_runtime.backends.onnxruntime import LOW_PRECISION_WITHOUT


def new_session(model: onnx.ModelProto) -> ort.InferenceSession:
    """A session on the CPU."""
    options = ort.SessionOptions()
    options.log_severity_level = 3
    return ort.InferenceSession(
        model.SerializeToString(),
        options,
        providers=["CPUExecutionProvider"],
        disabled_optimizers=list(LOW_PRECISION_WITHOUT),
    )
