"""Types that occur in public signatures."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Literal, Protocol, TypeAlias

import numpy as np
from numpy.typing import ArrayLike, NDArray

Frame: TypeAlias = NDArray[np.uint8]
"""An image uint8 [H, W, C], or a mask uint8 [H, W]."""

ImageLike: TypeAlias = ArrayLike
"""An image in host memory: anything that `numpy.asarray` reads as [H, W], [H, W, C] or [B, H, W, C]."""


class SupportsDLPack(Protocol):
    """An array that shares its memory by DLPack, e.g. of PyTorch, CuPy or JAX.

    See https://dmlc.github.io/dlpack/latest/python_spec.html.
    """

    def __dlpack__(self, *, stream: int | None = None) -> object:
        """Return a DLPack capsule whose memory is ready for work that is queued on `stream`."""
        ...

    def __dlpack_device__(self) -> tuple[int, int]:
        """Return (DLPack device type, device index)."""
        ...


class SupportsCudaArrayInterface(Protocol):
    """An array in GPU memory, e.g. of CuPy, Numba or PyCUDA.

    See https://numba.readthedocs.io/en/stable/cuda/cuda_array_interface.html.
    """

    @property
    def __cuda_array_interface__(self) -> Mapping[str, object]:
        """Address, shape, type and stream of the array."""
        ...


DeviceArrayLike: TypeAlias = SupportsDLPack | SupportsCudaArrayInterface
"""An array in GPU memory that another library owns."""


class SupportsCudaStream(Protocol):
    """A CUDA stream of cuda.core, PyTorch, CuPy or Numba.

    See https://nvidia.github.io/cuda-python/cuda-core/latest/interoperability.html.
    """

    def __cuda_stream__(self) -> tuple[int, int]:
        """Return (version of the protocol, handle)."""
        ...


class HasStreamHandle(Protocol):
    """A stream of PyCUDA."""

    @property
    def handle(self) -> int:
        """The handle."""
        ...


class HasStreamPointer(Protocol):
    """A stream of CuPy."""

    @property
    def ptr(self) -> int:
        """The handle."""
        ...


class HasCudaStream(Protocol):
    """A stream of PyTorch."""

    @property
    def cuda_stream(self) -> int:
        """The handle."""
        ...


class HasCudaPointer(Protocol):
    """A stream of OpenCV."""

    def cudaPtr(self) -> int:  # noqa: N802  # OpenCV's name
        """Return the handle."""
        ...


StreamLike: TypeAlias = (
    int | SupportsCudaStream | HasStreamHandle | HasStreamPointer | HasCudaStream | HasCudaPointer
)
"""A CUDA stream that the caller owns: its handle (0 or 1: the legacy default stream), or an object of its library."""

PromptLike: TypeAlias = ArrayLike
"""Alpha or beta of Eq. 8: a number, a map [gh, gw], or maps [B, gh, gw]."""

PromptMap: TypeAlias = NDArray[np.float32]
"""Alpha or beta of Eq. 8 for each token, float32 [gh, gw] or [B, gh, gw]."""

ChannelOrder: TypeAlias = Literal["rgb", "bgr"]
"""Order of the three channels of a frame."""

Precision: TypeAlias = Literal["fp32", "fp16", "bf16"]
"""Precision of a graph's arithmetic."""

WeightStorage: TypeAlias = Literal["fp32", "fp16"]
"""Type in which a graph in fp32 stores its large weights."""

BackendName: TypeAlias = Literal[
    "onnxruntime",
    "onnxruntime-cuda",
    "onnxruntime-tensorrt",
    "onnxruntime-rtx",
    "openvino",
    "openvino-bf16",
    "tensorrt",
]
"""A backend, see `tcmoa_runtime.backends.pick.load_backend`."""

BackendChoice: TypeAlias = Literal["auto", BackendName]
"""A backend, or `auto` for the fastest that runs the bundle here."""

ColorMode: TypeAlias = Literal["rgb", "luma"]
"""Channels that are fused: all three, or the luma only, with the color by rule, see `ExportOptions.color`."""

ExportTarget: TypeAlias = Literal["gpu", "cpu"]
"""Kind of processor for which the order of the tokens is optimized."""

Flavor: TypeAlias = Literal["tensorrt", "rtx"]
"""Library of an engine: TensorRT, for the GPU that it is built on, or TensorRT-RTX, for GeForce and RTX GPUs."""

HardwareCompatibility: TypeAlias = Literal["none", "ampere_plus", "same_compute_capability"]
"""Other GPUs that an engine of TensorRT runs on (`tensorrt.HardwareCompatibilityLevel`)."""

SourceName: TypeAlias = Literal["x", "y"]
"""One of the two sources."""

FitMode: TypeAlias = Literal["exact", "resize", "pad", "tile", "auto"]
"""How frames of another size than the graph's are fused, see `tcmoa_runtime.fuser.Fuser.load`."""

FrameSize: TypeAlias = tuple[int, int]
"""(height, width) in pixels."""

Percentiles: TypeAlias = tuple[float, float]
"""(low, high): the percentiles, 0 to 100, of a 16-bit image that become black and white."""

Teacher: TypeAlias = Callable[[NDArray[np.float32], NDArray[np.float32]], NDArray[np.float32]]
"""Fuses two lumas, float32 [H, W] in 0..255, into one; a model imitates it in training."""

OnMessage: TypeAlias = Callable[[str], None]
"""Called with a line of text for each step of a long task; by default the line is logged (`log.log_step`)."""

OnSteps: TypeAlias = Callable[[int, int], None]
"""Called with the number of finished steps and the number of steps known so far."""

OnPhase: TypeAlias = Callable[[str, int, int], None]
"""Called with the name of a phase, the number of its finished steps and the number of its steps."""

JsonValue: TypeAlias = "bool | int | float | str | Sequence[JsonValue] | Mapping[str, JsonValue] | None"
"""A value that JSON can hold."""

JsonObject: TypeAlias = "dict[str, JsonValue]"
"""A JSON object."""


def ignore_phase(phase: str, done: int, total: int) -> None:
    """Discard the progress of a phase: the default of `on_progress` parameters."""


def ignore_steps(done: int, total: int) -> None:
    """Discard a number of steps: the default of `on_progress` parameters."""
