"""ONNX Runtime sessions of graphs that are not in a bundle yet, with the runtime's settings for low precision."""

from __future__ import annotations

import onnx
import onnxruntime as ort

from tcmoa_runtime.backends.onnxruntime import QDQ_DISABLED_OPTIMIZERS


def new_session(model: onnx.ModelProto) -> ort.InferenceSession:
    """Return a session on the CPU."""
    options = ort.SessionOptions()
    options.log_severity_level = 3
    return ort.InferenceSession(
        model.SerializeToString(),
        options,
        providers=["CPUExecutionProvider"],
        disabled_optimizers=list(QDQ_DISABLED_OPTIMIZERS),
    )
