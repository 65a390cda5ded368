"""Loading engines with TensorRT or TensorRT-RTX: one code path for both, which differ in their module's name.

What is refused is refused before TensorRT sees a byte of the engine.
"""

from __future__ import annotations

import hashlib
import importlib
import os
import warnings
from collections import deque
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

from tcmoa_runtime.bundle import Bundle
from tcmoa_runtime.contract import TensorSpec
from tcmoa_runtime.engine import FLAVORS, PRECISIONS, Engine, find_engines
from tcmoa_runtime.errors import BundleError, InputError, MemoryShortageError, MissingError, TcmoaError
from tcmoa_runtime.gpu import cuda
from tcmoa_runtime.images import write_bytes

MODULES: Final = {"tensorrt": "tensorrt", "rtx": "tensorrt_rtx_bindings"}
"""Name of the Python module of each flavor."""
_CACHE_MAGIC: Final = b"tcmoa runtime cache 1\n"
_HASH_BYTES: Final = 32


class UnfitError(BundleError):
    """The bundle's engines are sound, but none runs on the libraries and the GPU of this machine."""


def import_library(flavor: str) -> Any:
    """The module of a flavor, or MissingError that names the extra to install."""
    try:
        return importlib.import_module(MODULES[flavor])
    except Exception as error:  # a library that does not fit the system fails with more than ImportError
        reason = (str(error).splitlines() or [type(error).__name__])[0]
        raise MissingError(
            f"{MODULES[flavor]} cannot be imported ({reason}); run `pip install 'tcmoa[{flavor}]'`"
        ) from error


def choose_engine(
    bundle: Bundle,
    path: str | os.PathLike[str] | None = None,
    *,
    flavor: str | None = None,
    precision: str | None = None,
) -> tuple[Engine, Any, cuda.Device]:
    """The engine at `path`, or else the bundle's first that runs here, with its library and the GPU.

    tensorrt comes before rtx, then fp16 before bf16 before fp32. Raises InputError on an unknown flavor or
    precision, BundleError when there is no such engine or one is damaged, UnfitError when they are for other
    libraries or GPUs, MissingError without library, driver or GPU.
    """
    for name, value, known in (("flavor", flavor, FLAVORS), ("precision", precision, PRECISIONS)):
        if value not in (None, *known):
            raise InputError(f"{name} is {value!r}: expected {', '.join(known)}")
    paths = [Path(path)] if path is not None else find_engines(bundle)
    engines = [
        engine
        for engine in (Engine.open(bundle, p) for p in paths)
        if flavor in (None, engine.flavor) and precision in (None, engine.precision)
    ]
    if not engines:
        asked = " ".join(filter(None, (flavor, precision)))
        raise BundleError(
            f"{bundle.path}: holds no {asked + ' ' if asked else ''}engine; make one with `tcmoa build {bundle.path} "
            f"--flavor {flavor or '|'.join(FLAVORS)}`, or use --backend onnxruntime"
        )
    engines.sort(key=lambda e: (FLAVORS.index(e.flavor), PRECISIONS.index(e.precision)))
    return _first_that_fits(engines)


def _first_that_fits(engines: list[Engine]) -> tuple[Engine, Any, cuda.Device]:
    missing: MissingError | None = None
    unfit: UnfitError | None = None
    for engine in engines:
        try:
            library = import_library(engine.flavor)
        except MissingError as error:
            missing = missing or error
            continue
        device = cuda.Device.current()
        reason = engine.fits(engine.flavor, library.__version__, device.compute_capability)
        if reason is None:
            return engine, library, device
        unfit = unfit or UnfitError(f"{engine.path}: {reason}; {engine.again}")
    raise unfit or missing or UnfitError("no engine was given")


class _Log:
    """The errors that TensorRT logged last. One for the process: TensorRT keeps the first logger it is given."""

    def __init__(self, library: Any) -> None:
        self.count = 0
        self._last: deque[str] = deque(maxlen=64)
        severities = (library.ILogger.ERROR, library.ILogger.INTERNAL_ERROR)

        class Logger(library.ILogger):  # type: ignore[misc]
            """What TensorRT writes to."""

            def __init__(self) -> None:
                library.ILogger.__init__(self)  # pybind11 wants exactly this

            def log(self_, severity: Any, msg: str) -> None:  # noqa: N805
                """Keep errors, drop the rest."""
                if severity in severities:
                    self._last.append(msg)
                    self.count += 1

        self.logger = Logger()

    def first_since(self, mark: int) -> str:
        """The first error after `count` was `mark`, in one line; the later ones follow from it."""
        fresh = list(self._last)[-(self.count - mark) :] if self.count > mark else []
        return " ".join(fresh[0].split())[:300] if fresh else "it logged no reason"


_logs: dict[str, _Log] = {}


def _log_of(library: Any) -> _Log:
    name = library.__name__
    if name not in _logs or not isinstance(_logs[name].logger, library.ILogger):
        _logs[name] = _Log(library)
    return _logs[name]


class LoadedEngine:
    """A deserialised engine whose tensors were compared with the bundle's contract.

    A stripped engine gets its weights from the ONNX file that its JSON names, else from the bundle's graph;
    that path is only tried on a simulation, never on a GPU yet.
    """

    def __init__(self, description: Engine, library: Any) -> None:
        self.description, self.library = description, library
        self._log = _log_of(library)
        self._cache: Any = None
        self._cache_blob = b""
        self._engine: Any = None
        data = description.read()
        self._runtime: Any = self._checked("start", library.Runtime, self._log.logger)
        self._engine = self._checked("load", self._runtime.deserialize_cuda_engine, data)
        if description.stripped:
            self._refit()
        self._check_tensors()
        self._config = self._new_config()

    @property
    def scratch_bytes(self) -> int:
        """Device memory that a context works in, 256-byte aligned."""
        return int(self._engine.device_memory_size_v2)

    def new_context(self, scratch: cuda.DeviceBuffer, addresses: dict[str, int]) -> Any:
        """An execution context that works in `scratch` and reads and writes `addresses`, by tensor name."""
        strategy = self.library.ExecutionContextAllocationStrategy.USER_MANAGED
        wanted = self._config if self._config is not None else strategy
        context = self._checked("make a context", self._engine.create_execution_context, wanted)
        self._run("take memory", context.set_device_memory, scratch.handle, scratch.nbytes)
        for name, address in addresses.items():
            self._checked(f"bind '{name}'", context.set_tensor_address, name, address)
        return context

    def enqueue(self, context: Any, stream: cuda.Stream) -> None:
        """Queue the engine once in `stream`; TcmoaError when it refuses."""
        self._checked("queue the engine", context.execute_async_v3, stream.handle)

    def can_capture(self, context: Any, stream: cuda.Stream) -> bool:
        """Whether the engine says that it can be captured; TensorRT has no such question, TensorRT-RTX has."""
        ask = getattr(context, "is_stream_capturable", None)
        return ask is None or bool(ask(stream.handle))

    def close(self) -> None:
        """Drop what TensorRT holds, the newest first; contexts must be gone."""
        self._cache = self._config = None
        self._engine = None
        self._runtime = None

    def save_cache(self) -> None:
        """Write the kernels that were compiled here beside the engine, if any are new; a failure only warns."""
        if self._cache is None:
            return
        memory = self._cache.serialize()
        blob = b"" if memory is None else bytes(memoryview(memory))
        if not blob or blob == self._cache_blob:
            return
        try:
            write_bytes(self._cache_path, self._cache_header(blob) + blob)
        except InputError as error:
            warnings.warn(
                f"{error}; kernels will be compiled again at the next start", RuntimeWarning, stacklevel=3
            )

    def _checked(self, what: str, step: Callable[..., Any], *arguments: Any) -> Any:
        """The result of a step of TensorRT; what it logged becomes the error where it gives None or False."""
        mark = self._log.count
        result = self._run(what, step, *arguments)
        if result is None or result is False:
            raise self._failure(what, self._log.first_since(mark))
        return result

    def _run(self, what: str, step: Callable[..., Any], *arguments: Any) -> Any:
        try:
            return step(*arguments)
        except Exception as error:  # pybind11 raises what C++ threw
            raise self._failure(what, str(error) or type(error).__name__) from error

    def _failure(self, what: str, reason: str) -> TcmoaError:
        line = " ".join(reason.split())[:300]
        text = f"{self.description.path}: {self.library.__name__} {self.library.__version__} could not {what} ({line})"
        if "memory" in line.lower() and "out of" in line.lower():
            return MemoryShortageError(
                f"{text}; export a smaller frame or batch, or end what else holds GPU memory"
            )
        kind = BundleError if self._engine is None else TcmoaError
        return kind(f"{text}; {self.description.again}")

    def _refit(self) -> None:
        refitter = self._checked("refit", self.library.Refitter, self._engine, self._log.logger)
        parser = self._checked("refit", self.library.OnnxParserRefitter, refitter, self._log.logger)
        bundle = self.description.bundle
        if self.description.weights is not None:
            self._checked("read the weights", parser.refit_from_bytes, self.description.read_weights())
        elif bundle.has_external_data:
            bundle.check()  # weights beside the graph are found through its path only
            self._checked("read the weights", parser.refit_from_file, str(bundle.graph_path))
        else:
            self._checked("read the weights", parser.refit_from_bytes, bundle.read_graph())
        self._checked("refit the weights", refitter.refit_cuda_engine)

    def _check_tensors(self) -> None:
        """The engine must take and give what bundle.json says, on the device, unpadded."""
        library, engine = self.library, self._engine
        names = [engine.get_tensor_name(i) for i in range(engine.num_io_tensors)]
        types = {library.DataType.UINT8: "uint8", library.DataType.FLOAT: "float32"}
        contract = self.description.bundle.contract
        for kind, mode, specs in (
            ("input", library.TensorIOMode.INPUT, contract.inputs),
            ("output", library.TensorIOMode.OUTPUT, contract.outputs),
        ):
            arrived = {
                name: TensorSpec(
                    name,
                    types.get(engine.get_tensor_dtype(name), str(engine.get_tensor_dtype(name))),
                    tuple(engine.get_tensor_shape(name)),
                )
                for name in names
                if engine.get_tensor_mode(name) == mode
            }
            wanted = {spec.name: spec for spec in specs}
            if arrived != wanted:
                name = next(n for n in (*wanted, *arrived) if arrived.get(n) != wanted.get(n))
                raise BundleError(
                    f"{self.description.path}: {kind} '{name}' is {_shown(arrived.get(name))}, bundle.json says "
                    f"{_shown(wanted.get(name))}; it is not this bundle's engine: {self.description.again}"
                )
        for name in names:
            if (
                engine.get_tensor_location(name) != library.TensorLocation.DEVICE
                or engine.get_tensor_format(name) != library.TensorFormat.LINEAR
            ):
                raise BundleError(
                    f"{self.description.path}: tensor '{name}' is not linear memory of the GPU; "
                    f"{self.description.again}"
                )

    @property
    def _cache_path(self) -> Path:
        return self.description.path.with_suffix(".runtime_cache")

    def _cache_header(self, blob: bytes) -> bytes:
        """Which engine's kernels these are, and their hash: the library only checks where they were made."""
        engine = bytes.fromhex(self.description.manifest["engine"]["sha256"])
        return _CACHE_MAGIC + engine + hashlib.sha256(blob).digest()

    def _new_config(self) -> Any:
        """TensorRT-RTX compiles kernels when they first run, and keeps them in a cache; TensorRT has nothing to."""
        if self.description.flavor != "rtx":
            return None
        config = self._checked("configure", self._engine.create_runtime_config)
        strategy = self.library.ExecutionContextAllocationStrategy.USER_MANAGED
        self._run("configure", config.set_execution_context_allocation_strategy, strategy)
        self._cache = self._checked("make a runtime cache", config.create_runtime_cache)
        self._load_cache()
        self._checked("take the runtime cache", config.set_runtime_cache, self._cache)
        return config

    def _load_cache(self) -> None:
        try:
            text = self._cache_path.read_bytes()
        except FileNotFoundError:
            return
        except OSError:
            text = b""
        blob = text[len(_CACHE_MAGIC) + 2 * _HASH_BYTES :]
        if text == self._cache_header(blob) + blob and self._cache.deserialize(blob):
            self._cache_blob = blob
            return
        warnings.warn(
            f"{self._cache_path}: is damaged or was written on another machine, so it is ignored and written anew: "
            f"kernels are compiled again",
            RuntimeWarning,
            stacklevel=3,
        )


def _shown(spec: TensorSpec | None) -> str:
    return "absent" if spec is None else f"{spec.dtype} {list(spec.shape)}"
