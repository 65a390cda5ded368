"""Switching off the telemetry of the libraries that fuse, before they are imported.

ONNX Runtime 1.29 and newer send events, and keep a device identifier and a database of events in the user's folders,
unless `ORT_DISABLE_TELEMETRY` is set when it is first used. `import openvino` sends an event with `openvino_telemetry`,
which looks up an analytics host and writes to the home folder; without that package it sends nothing.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final

ORT_VARIABLE: Final = "ORT_DISABLE_TELEMETRY"
"""Environment variable that switches off ONNX Runtime's telemetry."""

_OPENVINO_TELEMETRY: Final = "openvino_telemetry"


def disable_onnxruntime_telemetry() -> None:
    """Switch off ONNX Runtime's telemetry for this process and the processes that it starts."""
    os.environ[ORT_VARIABLE] = "1"
    module = sys.modules.get("onnxruntime")
    if module is not None:  # imported before this package, so that the variable comes too late
        module.disable_telemetry_events()


@contextmanager
def without_openvino_telemetry() -> Iterator[None]:
    """Let `import openvino` inside the block find no `openvino_telemetry`; OpenVINO then sends nothing."""
    if _OPENVINO_TELEMETRY in sys.modules:  # in use by the program, which decides for itself
        yield
        return
    sys.modules[_OPENVINO_TELEMETRY] = None  # type: ignore[assignment]  # `import` raises ImportError
    try:
        yield
    finally:
        sys.modules.pop(_OPENVINO_TELEMETRY, None)
