"""The GPU of this machine as the steps use it, by the same classes that fuse frames."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from types import MappingProxyType
from typing import Any, Final, TypeAlias, cast

import numpy as np
from numpy.typing import NDArray

from tcmoa_runtime.backends.base import Backend
from tcmoa_runtime.backends.tensorrt.backend import TensorRTBackend
from tcmoa_runtime.backends.tensorrt.engine_loading import import_library
from tcmoa_runtime.bundle import Bundle
from tcmoa_runtime.engine import Engine
from tcmoa_runtime.errors import BundleError
from tcmoa_runtime.gpu import cuda, dlpack
from tcmoa_runtime.gpu_check.bundles import CheckBundles
from tcmoa_runtime.gpu_check.memory import describe_driver, gpu_memory_of_process
from tcmoa_runtime.gpu_check.reference import CpuReference
from tcmoa_runtime.gpu_check.target import ArrayProtocol, Bound, CheckBackend, StepSkippedError
from tcmoa_runtime.install import install_hint
from tcmoa_runtime.options.build import BuildOptions
from tcmoa_runtime.options.gpu_check import GpuCheckPrecision
from tcmoa_runtime.typing import DeviceArrayLike, Flavor, JsonObject, Precision

BuildEngine: TypeAlias = Callable[[Bundle, BuildOptions], Engine]
"""Builds an engine into a bundle, see `tcmoa_export.engines.build.build_engine`."""

MIN_CAPABILITY: Final[Mapping[GpuCheckPrecision, tuple[int, int]]] = MappingProxyType(
    {"fp32": (7, 5), "fp16": (7, 5), "bf16": (8, 0), "int8": (7, 5), "fp8": (8, 9)}
)
"""First compute capability with products in a precision, of those that TensorRT runs on."""

CUDA_NAMES: Final[Mapping[str, str]] = MappingProxyType(
    {
        "NVIDIA A100-SXM4-80GB": "A100 SXM 80GB",
        "NVIDIA GeForce RTX 5090": "RTX 5090",
        "NVIDIA GeForce RTX 4090": "RTX 4090",
        "NVIDIA RTX A6000": "RTX A6000",
        "NVIDIA H100 80GB HBM3": "H100 SXM",
    }
)
"""GPUs by the name that CUDA gives them, and the name of their datasheet in an engine's audit."""

COPY_BYTES: Final = 256 << 20
"""Size of the copies that measure the bandwidth: several times the largest L2 cache (128 MB)."""
_NUM_COPIES: Final = 20


class RealGpu:
    """The current device with one flavor of TensorRT.

    Args:
        bundles: The bundles to build engines into.
        flavor: The flavor.
        build_engine: Builds an engine.
    """

    is_simulated = False

    def __init__(self, bundles: CheckBundles, flavor: Flavor, build_engine: BuildEngine) -> None:
        self._bundles, self._flavor, self._build_engine = bundles, flavor, build_engine
        self._device = cuda.CudaDevice.current()

    def describe(self) -> JsonObject:
        """Describe the GPU, the driver, and how fast its memory is; see `CheckTarget`."""
        free, total = cuda.memory_info()
        return {
            "gpu": self._device.name,
            "compute_capability": self._device.compute_capability,
            "memory_bytes": total,
            "free_bytes": free,
            "driver_cuda": self._device.driver_cuda_version,
            "driver": describe_driver(),
            "copy_gb_per_s": round(_copy_bytes_per_second() / 1e9, 1),
        }

    def bundle(self, precision: GpuCheckPrecision) -> Bundle:
        """Return the bundle of a precision; see `CheckTarget`."""
        self._check_capability(precision)
        return self._bundles.bundle(precision)

    def reference(self, precision: GpuCheckPrecision) -> Backend:
        """Return the bundle of a precision on the CPU; see `CheckTarget`."""
        try:
            return CpuReference(self.bundle(precision))
        except BundleError as error:
            raise StepSkippedError(error.problem) from error

    def build(self, precision: GpuCheckPrecision) -> JsonObject:
        """Build an engine anew; see `CheckTarget`."""
        return self._build(precision, rebuild=True).manifest

    def load(
        self,
        precision: GpuCheckPrecision,
        *,
        cuda_graph: bool = True,
        slots: int = 2,
        stream: int | None = None,
    ) -> CheckBackend:
        """Load an engine; see `CheckTarget`."""
        engine = self._build(precision, rebuild=False)
        return TensorRTBackend(
            engine.bundle,
            engine.path,
            stream=stream,
            cuda_graph=cuda_graph,
            slots=slots,
            trust_engines=True,  # built in a folder of this check, by this or an earlier process of it
        )

    def bound(self, precision: GpuCheckPrecision) -> Bound | None:
        """Return the bound of the datasheet, else what the bytes take at the bandwidth of a copy."""
        manifest: Mapping[str, Any] = self._build(precision, rebuild=False).manifest
        if "bounds" not in manifest:  # the kernels could not be audited
            return None
        datasheet = manifest["bounds"].get(CUDA_NAMES.get(self._device.name))
        if datasheet is not None:
            return Bound(float(datasheet["ms"]), "kernels and datasheet")
        milliseconds = float(manifest["bytes_moved"]) / _copy_bytes_per_second() * 1e3
        return Bound(round(milliseconds, 3), "bytes of the kernels at the measured bandwidth of a copy")

    @contextmanager
    def new_stream(self) -> Iterator[int]:
        """Create a caller's stream; see `CheckTarget`."""
        with cuda.CudaStream() as stream:
            try:
                yield stream.handle
            finally:
                stream.synchronize()

    @contextmanager
    def upload(self, values: NDArray[np.generic], protocol: ArrayProtocol) -> Iterator[DeviceArrayLike]:
        """Copy an array to the GPU; see `CheckTarget`."""
        with ExitStack() as stack:
            buffer = stack.enter_context(cuda.DeviceBuffer(values.nbytes))
            pinned = stack.enter_context(cuda.PinnedBuffer(values.nbytes))
            stream = stack.enter_context(cuda.CudaStream())
            pinned.array(str(values.dtype), values.shape)[...] = values
            stream.upload(buffer, pinned)
            stream.synchronize()
            kind = _ByInterface if protocol == "cuda_array_interface" else _ByDlpack
            yield kind(buffer.handle, values, self._device.index)

    def download(self, array: object, protocol: ArrayProtocol) -> NDArray[np.generic]:
        """Read a result by a protocol; see `CheckTarget`."""
        result = cast("Any", array)
        interface = result.__cuda_array_interface__
        shape, dtype = tuple(interface["shape"]), str(np.dtype(interface["typestr"]))
        nbytes = int(np.prod(shape)) * np.dtype(dtype).itemsize
        with ExitStack() as stack:
            buffer = stack.enter_context(cuda.DeviceBuffer(nbytes))
            pinned = stack.enter_context(cuda.PinnedBuffer(nbytes))
            # A stream that reads a result must live as long as the backend, so it is the backend's own.
            stream = cuda.CudaStream(interface["stream"])
            pointer = interface["data"][0]
            if protocol == "dlpack":
                tensor = dlpack.import_tensor(result, stream.handle)
                stack.callback(tensor.release)
                pointer = tensor.pointer
            stream.copy_on_device(buffer, pointer)
            stream.download(pinned, buffer)
            stream.synchronize()
            return pinned.array(dtype, shape).copy()

    def wait(self, array: object) -> None:
        """Wait for a result; see `CheckTarget`."""
        cuda.CudaStream(cast("Any", array).stream).synchronize()

    def gpu_memory(self) -> tuple[int, str]:
        """Return GPU memory in use; see `CheckTarget`."""
        own = gpu_memory_of_process()
        if own is not None:
            return own, "this process"
        free, total = cuda.memory_info()
        return total - free, "all processes on the GPU, as this process is not listed alone"

    def _build(self, precision: GpuCheckPrecision, *, rebuild: bool) -> Engine:
        bundle = self.bundle(precision)
        targets: tuple[str, ...] = ()
        if self._flavor == "rtx":
            targets = (self._rtx_target(),)
        own: Precision | None = None if precision == "int8" or precision == "fp8" else precision
        options = BuildOptions(
            flavor=self._flavor, precision=own, targets=targets, allow_unfused=True, rebuild=rebuild
        )
        return self._build_engine(bundle, options)

    def _rtx_target(self) -> str:
        """Return the target of this GPU; raises StepSkippedError if TensorRT-RTX does not build for it."""
        library, target = import_library("rtx"), self._device.target
        members = getattr(getattr(library, "ComputeCapability", None), "__members__", ())
        known = [name.lower() for name in members] or [target]
        if target not in known or target == "sm75":  # Turing, for which it builds no float32 products
            raise StepSkippedError(
                f"TensorRT-RTX {library.__version__} builds for no {target}, which this GPU is",
                remedy=install_hint("tensorrt"),
            )
        return target

    def _check_capability(self, precision: GpuCheckPrecision) -> None:
        major, minor = map(int, self._device.compute_capability.split("."))
        needed = MIN_CAPABILITY[precision]
        if (major, minor) < needed:
            raise StepSkippedError(
                f"compute capability {major}.{minor}; {precision} needs {needed[0]}.{needed[1]}"
            )


class _ByInterface:
    """Memory with a `__cuda_array_interface__`."""

    def __init__(self, pointer: int, values: NDArray[np.generic], device: int) -> None:
        self.__cuda_array_interface__ = {
            "shape": values.shape,
            "typestr": values.dtype.str,
            "data": (pointer, False),
            "version": 3,
        }


class _ByDlpack:
    """Memory with `__dlpack__`."""

    def __init__(self, pointer: int, values: NDArray[np.generic], device: int) -> None:
        self.shape, self._dtype = values.shape, str(values.dtype)
        self._pointer, self._device = pointer, device

    def __dlpack_device__(self) -> tuple[int, int]:
        return dlpack.CUDA, self._device

    def __dlpack__(self, *, stream: int | None = None) -> object:
        return dlpack.export_tensor(self, self._pointer, self._device, self._dtype, self.shape)


def _copy_bytes_per_second() -> float:
    """Return bytes read and written per second by a large copy within the GPU."""
    with (
        cuda.DeviceBuffer(COPY_BYTES) as source,
        cuda.DeviceBuffer(COPY_BYTES) as target,
        cuda.CudaStream() as stream,
    ):
        stream.copy_on_device(target, source.handle)
        stream.synchronize()
        start = time.perf_counter()
        for _ in range(_NUM_COPIES):
            stream.copy_on_device(target, source.handle)
        stream.synchronize()
        seconds = time.perf_counter() - start
    return 2 * COPY_BYTES * _NUM_COPIES / seconds
