"""Messages of ONNX Runtime and of the dynamic linker, without what only developers of ONNX Runtime can use."""

from __future__ import annotations

import re
from typing import Final

from tcmoa_runtime.errors import first_line

DRIVER_LIBRARIES: Final = ("libcuda.so", "libnvidia-ml.so")
"""Libraries that come with the NVIDIA driver and in no Python package."""

_STATUS: Final = re.compile(r"\[ONNXRuntimeError\] : \d+ : \w+ : ")
_LOCATION: Final = re.compile(r"^/\S+\.(?:cc|h|cpp|cuh?):\d+ [^()]*\([^()]*\)(?: const)? ")
"""Where the error was raised, e.g. `/onnxruntime_src/.../provider_bridge_ort.cc:2043 Provider& Get() `: 150 characters
and more before the reason."""
_DRIVER_FUNCTION: Final = re.compile(r"undefined symbol: (cu[A-Z]\w*|nvml[A-Z]\w*)")
_LIBRARY: Final = re.compile(r"(lib[\w+-]+\.so[.\d]*): cannot open shared object file")


def describe_error(error: BaseException) -> str:
    """Return the reason that ONNX Runtime gives, without its status and place in the source."""
    return _LOCATION.sub("", _STATUS.sub("", first_line(error))).strip()


def missing_library_in(message: str) -> str:
    """Return the shared library that a message says is missing, e.g. `libnvinfer.so.10`; empty if it names none."""
    match = _LIBRARY.search(message)
    return "" if match is None else match[1]


def missing_driver_function_in(message: str) -> str:
    """Return the driver's function that a message says is missing, e.g. `cuCtxCreate_v4`; empty if it names none."""
    match = _DRIVER_FUNCTION.search(message)
    return "" if match is None else match[1]
