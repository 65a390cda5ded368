"""Choosing an engine and loading it with TensorRT or TensorRT-RTX, whose Python modules have the same interface.

An engine that is refused is refused before TensorRT reads a byte of it.
"""

from __future__ import annotations

import importlib
import os
from collections.abc import Callable, Mapping
from pathlib import Path
from types import ModuleType
from typing import Any, Final, NamedTuple, Protocol

from tcmoa_runtime.backends.base import compare_tensors
from tcmoa_runtime.backends.tensorrt.kernel_cache import KernelCache
from tcmoa_runtime.backends.tensorrt.library_log import log_of
from tcmoa_runtime.bundle import Bundle
from tcmoa_runtime.checked_graph import checked_graph
from tcmoa_runtime.contract import TensorSpec
from tcmoa_runtime.engine import FLAVORS, PRECISIONS, Engine
from tcmoa_runtime.engine_folders import find_engines
from tcmoa_runtime.engine_trust import is_built_here, untrusted
from tcmoa_runtime.errors import (
    BundleError,
    EngineMismatchError,
    MissingError,
    TcmoaError,
    UntrustedEngineError,
    first_line,
    in_remedy,
)
from tcmoa_runtime.gpu import cuda
from tcmoa_runtime.install import install_hint
from tcmoa_runtime.options.option import check_choice
from tcmoa_runtime.typing import Flavor, Precision

MODULES: Final[Mapping[Flavor, str]] = {"tensorrt": "tensorrt", "rtx": "tensorrt_rtx_bindings"}
"""Name of the Python module of each flavor."""


class EngineChoice(NamedTuple):
    """An engine that runs on this machine, the module of its library, and the GPU."""

    engine: Engine
    library: ModuleType
    device: cuda.CudaDevice


class ExecutionContext(Protocol):
    """What is used of TensorRT's `IExecutionContext`."""

    def set_device_memory(self, memory: int, size: int) -> None:
        """Set the memory that the engine computes in."""
        ...

    def set_tensor_address(self, name: str, memory: int) -> bool:
        """Set the address of an input or output."""
        ...

    def execute_async_v3(self, stream_handle: int) -> bool:
        """Enqueue the engine in a stream."""
        ...


def import_library(flavor: Flavor) -> ModuleType:
    """Import the Python module of a flavor.

    Raises:
        MissingError: It cannot be imported.
    """
    try:
        return importlib.import_module(MODULES[flavor])
    except Exception as error:  # a native library that does not fit the system raises more than ImportError
        raise MissingError(
            f"the module {MODULES[flavor]} cannot be imported ({first_line(error)})",
            remedy=install_hint(flavor),
        ) from error


def choose_engine(
    bundle: Bundle,
    path: str | os.PathLike[str] | None = None,
    *,
    flavor: Flavor | None = None,
    precision: Precision | None = None,
    trust_engines: bool = False,
) -> EngineChoice:
    """Choose an engine of a bundle: tensorrt before rtx, then fp16 before bf16 before fp32.

    Args:
        bundle: The bundle.
        path: The engine to take; None: the first one that runs on this machine.
        flavor: Take an engine of this flavor only.
        precision: Take an engine of this precision only.
        trust_engines: Take engines that this user did not build, too.

    Raises:
        InputError: The flavor or precision is unknown.
        BundleError: There is no such engine, or an engine is damaged.
        EngineMismatchError: The engines are for other library versions or GPUs.
        UntrustedEngineError: An engine runs here, but this user did not build it.
        MissingError: The library, the driver or a GPU is missing.
    """
    check_choice("flavor", flavor, (None, *FLAVORS))
    check_choice("precision", precision, (None, *PRECISIONS))
    paths = [Path(path)] if path is not None else find_engines(bundle)
    engines = [
        engine
        for engine in (Engine.open(bundle, p) for p in paths)
        if flavor in (None, engine.flavor) and precision in (None, engine.precision)
    ]
    if not engines:
        kind = " ".join(filter(None, (flavor, precision, "engine")))
        raise BundleError(
            f"has no {kind}",
            subject=bundle.path,
            remedy=f"Build one with `tcmoa build {in_remedy(bundle.spelling)}`, or use {{backend}}",
            settings={"backend": "onnxruntime"},
        )
    engines.sort(key=lambda engine: (FLAVORS.index(engine.flavor), PRECISIONS.index(engine.precision)))
    return _first_that_runs(engines, trust_engines)


def _first_that_runs(engines: list[Engine], trust_engines: bool) -> EngineChoice:
    not_trusted: UntrustedEngineError | None = None
    missing: MissingError | None = None
    mismatch: EngineMismatchError | None = None
    for engine in engines:
        try:
            library = import_library(engine.flavor)
        except MissingError as error:
            missing = missing or error
            continue
        device = cuda.CudaDevice.current()
        reason = engine.mismatch(engine.flavor, library.__version__, device.compute_capability)
        if reason is None and (trust_engines or is_built_here(engine)):
            return EngineChoice(engine, library, device)
        if reason is None:
            not_trusted = not_trusted or untrusted(engine)
            continue
        mismatch = mismatch or EngineMismatchError(reason, subject=engine.path, remedy=engine.remedy)
    raise not_trusted or mismatch or missing or ValueError("no engines to choose from")


class LoadedEngine:
    """A deserialized engine whose tensors have been compared with the bundle's contract.

    A stripped engine is refitted with the weights of the ONNX file that its JSON names, else of the bundle's graph.
    That has been tested on a simulation only, never on a GPU.

    Attributes:
        description: The engine on disk.
        library: Module of its library.
        device: The GPU that it runs on.
    """

    def __init__(self, choice: EngineChoice) -> None:
        description, library, self.device = choice
        self.description, self.library = description, library
        self._log = log_of(library)
        self._cache: KernelCache | None = None
        self._engine: Any = None
        data = description.read()
        self._runtime: Any = self._checked("start", library.Runtime, self._log.logger)
        self._runtime.error_recorder = self._log.recorder  # engine and contexts inherit it
        self._engine = self._checked("load", self._runtime.deserialize_cuda_engine, data)
        if description.stripped:
            self._refit()
        self._check_tensors()
        self._config = self._new_config()

    @property
    def scratch_bytes(self) -> int:
        """Size of the device memory that a context computes in, aligned to 256 bytes."""
        return int(self._engine.device_memory_size_v2)

    def new_context(self, scratch: cuda.DeviceBuffer, addresses: Mapping[str, int]) -> ExecutionContext:
        """Create an execution context.

        Args:
            scratch: Memory that it computes in.
            addresses: Addresses that it reads and writes, by tensor name.
        """
        strategy = self.library.ExecutionContextAllocationStrategy.USER_MANAGED
        argument = self._config if self._config is not None else strategy
        context: ExecutionContext = self._checked(
            "create a context", self._engine.create_execution_context, argument
        )
        self._run("take memory", context.set_device_memory, scratch.handle, scratch.nbytes)
        for name, address in addresses.items():
            self._checked(f"bind '{name}'", context.set_tensor_address, name, address)
        return context

    def enqueue(self, context: ExecutionContext, stream: cuda.CudaStream) -> None:
        """Enqueue the engine once in `stream`; raises TcmoaError when TensorRT refuses."""
        self._checked("enqueue the engine", context.execute_async_v3, stream.handle)

    def can_capture(self, context: ExecutionContext, stream: cuda.CudaStream) -> bool:
        """Return whether the engine can be captured; only TensorRT-RTX can be asked."""
        is_capturable = getattr(context, "is_stream_capturable", None)
        return is_capturable is None or bool(is_capturable(stream.handle))

    def close(self) -> None:
        """Drop TensorRT's objects, the newest first; contexts must be gone."""
        self._cache = self._config = None
        self._engine = None
        self._runtime = None

    def save_cache(self) -> None:
        """Save newly compiled kernels; a failure is a warning."""
        if self._cache is not None:
            self._cache.save()

    def _checked(self, step: str, function: Callable[..., Any], *arguments: Any) -> Any:
        """Call TensorRT; a result of None or False becomes an error with what TensorRT logged."""
        count = self._log.count
        result = self._run(step, function, *arguments)
        if result is None or result is False:
            raise self._failure(step, self._log.first_since(count))
        return result

    def _run(self, step: str, function: Callable[..., Any], *arguments: Any) -> Any:
        try:
            return function(*arguments)
        except Exception as error:  # pybind11 raises what C++ throws
            raise self._failure(step, str(error) or type(error).__name__) from error

    def _failure(self, step: str, reason: str) -> TcmoaError:
        line = " ".join(reason.split())[:300]
        problem = f"{self.library.__name__} {self.library.__version__} could not {step} ({line})"
        path = self.description.path
        if "memory" in line.lower() and "out of" in line.lower():
            return cuda.out_of_memory(problem, path)
        kind = BundleError if self._engine is None else TcmoaError
        return kind(problem, subject=path, remedy=self.description.remedy)

    def _refit(self) -> None:
        refitter = self._checked("refit", self.library.Refitter, self._engine, self._log.logger)
        refitter.error_recorder = self._log.recorder
        parser = self._checked("refit", self.library.OnnxParserRefitter, refitter, self._log.logger)
        if self.description.weights is not None:
            self._checked("read the weights", parser.refit_from_bytes, self.description.read_weights())
            self._checked("refit the weights", refitter.refit_cuda_engine)
            return
        with checked_graph(self.description.bundle) as graph:
            if isinstance(graph, bytes):
                self._checked("read the weights", parser.refit_from_bytes, graph)
            else:
                self._checked("read the weights", parser.refit_from_file, os.fspath(graph))
            self._checked("refit the weights", refitter.refit_cuda_engine)

    def _check_tensors(self) -> None:
        """Check that inputs and outputs are those of bundle.json, on the device and without padding."""
        library, engine = self.library, self._engine
        names = [engine.get_tensor_name(i) for i in range(engine.num_io_tensors)]
        modes = library.TensorIOMode
        compare_tensors(
            (self._spec_of(name) for name in names if engine.get_tensor_mode(name) == modes.INPUT),
            (self._spec_of(name) for name in names if engine.get_tensor_mode(name) == modes.OUTPUT),
            self.description.bundle.contract,
            subject=self.description.path,
            remedy=self.description.remedy,
        )
        for name in names:
            if (
                engine.get_tensor_location(name) != library.TensorLocation.DEVICE
                or engine.get_tensor_format(name) != library.TensorFormat.LINEAR
            ):
                raise BundleError(
                    f"tensor '{name}' is {engine.get_tensor_format(name)} on {engine.get_tensor_location(name)}; "
                    f"expected linear memory on the GPU",
                    subject=self.description.path,
                    remedy=self.description.remedy,
                )

    def _spec_of(self, name: str) -> TensorSpec:
        types = {self.library.DataType.UINT8: "uint8", self.library.DataType.FLOAT: "float32"}
        dtype = self._engine.get_tensor_dtype(name)
        return TensorSpec(name, types.get(dtype, str(dtype)), tuple(self._engine.get_tensor_shape(name)))

    def _new_config(self) -> Any:
        """Configure TensorRT-RTX's cache of compiled kernels; TensorRT compiles none at run time and returns None."""
        if self.description.flavor != "rtx":
            return None
        config = self._checked("configure", self._engine.create_runtime_config)
        strategy = self.library.ExecutionContextAllocationStrategy.USER_MANAGED
        self._run("configure", config.set_execution_context_allocation_strategy, strategy)
        cache = self._checked("create a runtime cache", config.create_runtime_cache)
        self._cache = KernelCache(self.description, self.device, cache)
        self._cache.load()
        self._checked("take the runtime cache", config.set_runtime_cache, cache)
        return config
