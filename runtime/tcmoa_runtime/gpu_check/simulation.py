"""A stand-in for a GPU, for dry runs: an "engine" is the bundle's graph in ONNX Runtime on the CPU.

It calls neither CUDA nor TensorRT, so a dry run shows what a check does and what its report looks like, and nothing
about a GPU. `steps.run_step` removes every number of a simulated step. The tests of this project run the same steps on
`real_gpu` too, with simulated CUDA and TensorRT libraries below it.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any, cast

import numpy as np
from numpy.typing import NDArray

from tcmoa_runtime.backends.base import Backend, Outputs, Tensors, TensorsLike
from tcmoa_runtime.bundle import Bundle
from tcmoa_runtime.gpu_check.reference import CpuReference
from tcmoa_runtime.gpu_check.target import GPU_NAME, ArrayProtocol, Bound, CheckBackend
from tcmoa_runtime.options.gpu_check import GpuCheckPrecision
from tcmoa_runtime.typing import DeviceArrayLike, JsonObject


class SimulatedArray:
    """An array that stands in for one in GPU memory; it is in host memory."""

    def __init__(self, values: NDArray[np.generic]) -> None:
        self.values = values

    @property
    def __cuda_array_interface__(self) -> Mapping[str, object]:
        raise RuntimeError("a simulated array has no address on a GPU")


class SimulatedGpu:
    """A `CheckTarget` without a GPU.

    Args:
        source: The bundle to check; every precision runs its graph as it is.
    """

    is_simulated = True

    def __init__(self, source: Bundle) -> None:
        self._source = source
        self._graph = CpuReference(source)
        self._known: dict[bytes, Outputs] = {}

    def describe(self) -> JsonObject:
        """Describe the device; see `CheckTarget`."""
        return {"gpu": GPU_NAME, "driver": None}

    def bundle(self, precision: GpuCheckPrecision) -> Bundle:
        """Return the bundle; see `CheckTarget`."""
        return self._source

    def reference(self, precision: GpuCheckPrecision) -> Backend:
        """Return the graph on the CPU; see `CheckTarget`."""
        return SimulatedBackend(self._run, uses_graph=False)

    def build(self, precision: GpuCheckPrecision) -> JsonObject:
        """Build nothing; see `CheckTarget`."""
        return {}

    def load(
        self,
        precision: GpuCheckPrecision,
        *,
        cuda_graph: bool = True,
        slots: int = 2,
        stream: int | None = None,
    ) -> CheckBackend:
        """Return a backend that runs the graph on the CPU; see `CheckTarget`."""
        return SimulatedBackend(self._run, cuda_graph)

    def bound(self, precision: GpuCheckPrecision) -> Bound | None:
        """Return None; see `CheckTarget`."""
        return None

    @contextmanager
    def new_stream(self) -> Iterator[int]:
        """Yield a number; see `CheckTarget`."""
        yield 0x10

    @contextmanager
    def upload(self, values: NDArray[np.generic], protocol: ArrayProtocol) -> Iterator[DeviceArrayLike]:
        """Yield a copy in host memory; see `CheckTarget`."""
        yield SimulatedArray(values.copy())

    def download(self, array: object, protocol: ArrayProtocol) -> NDArray[np.generic]:
        """Return the values; see `CheckTarget`."""
        return cast("SimulatedArray", array).values

    def wait(self, array: object) -> None:
        """Do nothing; see `CheckTarget`."""

    def gpu_memory(self) -> tuple[int, str]:
        """Return nothing in use; see `CheckTarget`."""
        return 0, "a simulation"

    def _run(self, inputs: Tensors) -> Outputs:
        """Run the graph; equal inputs are run once, because a CPU takes long and the steps repeat a few frames."""
        digest = hashlib.sha256()
        for name in sorted(inputs):
            digest.update(np.ascontiguousarray(inputs[name]).tobytes())
        key = digest.digest()
        if key not in self._known:
            self._known[key] = self._graph.infer(inputs)
        return self._known[key]


class SimulatedBackend:
    """A `CheckBackend` on the CPU."""

    name = f"tensorrt ({GPU_NAME})"

    def __init__(self, run: Callable[[Tensors], Outputs], uses_graph: bool) -> None:
        self._run, self.uses_graph = run, uses_graph

    def infer(self, inputs: TensorsLike) -> Outputs:
        """Run the graph; see `CheckBackend`."""
        values = {
            name: value.values if isinstance(value, SimulatedArray) else np.asarray(value)
            for name, value in inputs.items()
        }
        return self._run(values)

    def submit(self, inputs: TensorsLike) -> SimulatedFrame:
        """Run the graph; see `CheckBackend`."""
        return SimulatedFrame(self.infer(inputs))

    def infer_device(self, inputs: TensorsLike, stream: int | None = None) -> Mapping[str, object]:
        """Run the graph and wrap its outputs; see `CheckBackend`."""
        outputs: Mapping[str, Any] = self.infer(inputs)
        return {name: SimulatedArray(values) for name, values in outputs.items()}

    def close(self) -> None:
        """Do nothing; see `CheckBackend`."""


class SimulatedFrame:
    """A frame that is finished."""

    def __init__(self, outputs: Outputs) -> None:
        self._outputs = outputs

    def result(self) -> Outputs:
        """Return the outputs; see `PendingFrame`."""
        return self._outputs
