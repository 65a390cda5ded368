"""What the steps of the GPU check use: a GPU, or a simulation of one."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import AbstractContextManager
from typing import Final, Literal, NamedTuple, Protocol, TypeAlias

import numpy as np
from numpy.typing import NDArray

from tcmoa_runtime.backends.base import Backend, Outputs, TensorsLike
from tcmoa_runtime.bundle import Bundle
from tcmoa_runtime.errors import TcmoaError
from tcmoa_runtime.options.gpu_check import GpuCheckPrecision
from tcmoa_runtime.typing import DeviceArrayLike, JsonObject

GPU_NAME: Final = "simulation, no GPU"
"""Name of the device in the report of a dry run."""

ArrayProtocol: TypeAlias = Literal["cuda_array_interface", "dlpack"]
"""How an array in GPU memory is handed over."""


class StepSkippedError(TcmoaError):
    """A step does not apply to this machine; the problem says why."""


class CheckError(TcmoaError):
    """A step ran and found a fault."""


class PendingFrame(Protocol):
    """A frame in flight."""

    def result(self) -> Outputs:
        """Wait for the frame and return its outputs."""
        ...


class CheckBackend(Protocol):
    """What is used of `TensorRTBackend`."""

    @property
    def name(self) -> str:
        """Library, device and precision."""
        ...

    @property
    def uses_graph(self) -> bool:
        """Whether the engine is launched as a captured CUDA graph."""
        ...

    def infer(self, inputs: TensorsLike) -> Outputs:
        """Run the engine once and wait for it."""
        ...

    def submit(self, inputs: TensorsLike) -> PendingFrame:
        """Start a frame."""
        ...

    def infer_device(self, inputs: TensorsLike, stream: int | None = None) -> Mapping[str, object]:
        """Start a frame whose results stay on the GPU."""
        ...

    def close(self) -> None:
        """Free everything."""
        ...


class Bound(NamedTuple):
    """Time in ms below which the kernels of an engine cannot finish, and what it is computed from."""

    ms: float
    source: str


class CheckTarget(Protocol):
    """A GPU with one flavor of TensorRT, or a simulation of both."""

    @property
    def is_simulated(self) -> bool:
        """Whether there is no GPU: then no number of a step is reported."""
        ...

    def describe(self) -> JsonObject:
        """Describe the GPU, the driver, and how fast its memory is."""
        ...

    def bundle(self, precision: GpuCheckPrecision) -> Bundle:
        """Return the bundle that engines of a precision are built into.

        Raises:
            StepSkippedError: There is none for this machine.
        """
        ...

    def reference(self, precision: GpuCheckPrecision) -> Backend:
        """Return the graph of `bundle` on the CPU, with which frames are compared.

        Raises:
            StepSkippedError: The CPU does not run it.
        """
        ...

    def build(self, precision: GpuCheckPrecision) -> JsonObject:
        """Build an engine anew and return its description, see `Engine.manifest`.

        Raises:
            StepSkippedError: The GPU or the library has no such engine.
            TcmoaError: The build failed.
        """
        ...

    def load(
        self,
        precision: GpuCheckPrecision,
        *,
        cuda_graph: bool = True,
        slots: int = 2,
        stream: int | None = None,
    ) -> CheckBackend:
        """Load the engine of a precision, after building it where that was not done."""
        ...

    def bound(self, precision: GpuCheckPrecision) -> Bound | None:
        """Return the lower bound of a frame's time by the audit of the engine; None if it is not known."""
        ...

    def new_stream(self) -> AbstractContextManager[int]:
        """Create a caller's stream; yields its handle."""
        ...

    def upload(
        self, values: NDArray[np.generic], protocol: ArrayProtocol
    ) -> AbstractContextManager[DeviceArrayLike]:
        """Copy an array to the GPU; yields an object of a protocol, valid inside the with-block."""
        ...

    def download(self, array: object, protocol: ArrayProtocol) -> NDArray[np.generic]:
        """Read a result of `infer_device` by a protocol, and copy it to the host."""
        ...

    def wait(self, array: object) -> None:
        """Wait for a result of `infer_device`."""
        ...

    def gpu_memory(self) -> tuple[int, str]:
        """Return bytes of GPU memory in use, and whose: of this process, or of all processes on the device."""
        ...
