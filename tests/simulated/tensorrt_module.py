"""Simulated `tensorrt` and `tensorrt_rtx_bindings`, see the package's docstring."""

import enum
import functools
import json
import sys
import types

import numpy as np
import onnxruntime

from simulated.cuda_runtime import ALIGNMENT, Operation

MAGIC = b"simulated engine\n"
NAMES = {"tensorrt": "tensorrt", "rtx": "tensorrt_rtx_bindings"}
VERSIONS = {"tensorrt": "11.0.0.12", "rtx": "1.7.1.116"}
SCRATCH = 4096


class DataType(enum.Enum):
    FLOAT = 0
    HALF = 1
    UINT8 = 2


class TensorIOMode(enum.Enum):
    NONE = 0
    INPUT = 1
    OUTPUT = 2


class TensorLocation(enum.Enum):
    DEVICE = 0
    HOST = 1


class TensorFormat(enum.Enum):
    LINEAR = 0
    CHW2 = 1


class ExecutionContextAllocationStrategy(enum.Enum):
    STATIC = 0
    ON_PROFILE_CHANGE = 1
    USER_MANAGED = 2


class ILogger:
    """Like a class of pybind11: a subclass must call this `__init__`."""

    INTERNAL_ERROR, ERROR, WARNING, INFO, VERBOSE = range(5)

    def __init__(self):
        self.ready = True


class Logger(ILogger):
    """TensorRT's own logger: it prints what is severe enough."""

    def __init__(self, min_severity=ILogger.WARNING):
        super().__init__()
        self.min_severity = min_severity

    def log(self, severity, msg):
        if severity <= self.min_severity:
            print(msg, file=sys.stderr)


class IErrorRecorder:
    """Like a class of pybind11, as above."""

    def __init__(self):
        self.ready = True


class ErrorCodeTRT(enum.Enum):
    UNSPECIFIED_ERROR = 1


def engine_bytes(bundle, *, stripped=False, **changes):
    """Make an "engine" of a bundle: its tensors as JSON, then the graph unless it is `stripped`.

    `changes`: other descriptions of tensors by name, None to leave one out.
    """
    tensors = {}
    for mode, specs in (("INPUT", bundle.contract.inputs), ("OUTPUT", bundle.contract.outputs)):
        for spec in specs:
            kind = {"uint8": "UINT8", "float32": "FLOAT"}[spec.dtype]
            tensors[spec.name] = {"mode": mode, "dtype": kind, "shape": list(spec.shape)}
    for name, change in changes.items():
        if change is None:
            del tensors[name]
        else:
            tensors[name] = {**tensors.get(name, {}), **change}
    head = json.dumps(tensors).encode()
    return MAGIC + len(head).to_bytes(4, "little") + head + (b"" if stripped else bundle.read_graph())


@functools.lru_cache(maxsize=16)
def session_of(graph):
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    options.log_severity_level = 3
    return onnxruntime.InferenceSession(graph, options, providers=["CPUExecutionProvider"])


@functools.lru_cache(maxsize=64)
def computed(graph, outputs, *inputs):
    """Run a graph: names of outputs, and a name, type, shape and content of each input. Warm-ups repeat."""
    arrays = {name: np.frombuffer(content, dtype).reshape(shape) for name, dtype, shape, content in inputs}
    return session_of(graph).run(list(outputs), arrays)


class Library:
    """The library of a flavor. Tests set what fails: `refuse_enqueue`, `refuse` (names of steps), `capturable`."""

    def __init__(self, device, flavor, version=None):
        self.device, self.flavor = device, flavor
        self.version = version or VERSIONS[flavor]
        self.refuse, self.refuse_enqueue, self.capturable, self.sync_in_enqueue = set(), 0, True, False
        self.loaded, self.released, self.enqueues, self.cache_deserialized = 0, [], 0, []
        self.cache_content = b""  # nothing was compiled

    def install(self, monkeypatch):
        name = NAMES[self.flavor]
        module = types.ModuleType(name)
        module.__version__ = self.version
        for kind in (
            DataType,
            TensorIOMode,
            TensorLocation,
            TensorFormat,
            ExecutionContextAllocationStrategy,
        ):
            setattr(module, kind.__name__, kind)
        module.ILogger, module.Logger, module.IErrorRecorder = ILogger, Logger, IErrorRecorder
        module.ErrorCodeTRT = ErrorCodeTRT
        module.Runtime = functools.partial(Runtime, self)
        module.Refitter = functools.partial(Refitter, self)
        module.OnnxParserRefitter = functools.partial(OnnxParserRefitter, self)
        monkeypatch.setitem(sys.modules, name, module)
        return self

    def refused(self, step, reporter):
        """Return whether a step fails; if so, report the reason and a consequence of it, like TensorRT."""
        if step not in self.refuse:
            return False
        reporter.logger.log(ILogger.WARNING, "simulated warning")
        report(reporter, f"simulated failure of {step}\nin two lines")
        report(reporter, "simulated error that follows")
        return True


def report(reporter, message):
    """Report an error to the logger and the error recorder of an object."""
    reporter.logger.log(ILogger.ERROR, message)
    if reporter.error_recorder is not None:
        assert reporter.error_recorder.ready, "IErrorRecorder.__init__ was not called"
        reporter.error_recorder.report_error(ErrorCodeTRT.UNSPECIFIED_ERROR, message)


class Runtime:
    error_recorder = None

    def __init__(self, library, logger):
        assert logger.ready, "ILogger.__init__ was not called"
        self.library, self.logger = library, logger

    def deserialize_cuda_engine(self, serialized_engine):
        self.library.loaded += 1
        if self.library.refused("deserialize", self):
            return None
        data = bytes(serialized_engine)
        if not data.startswith(MAGIC):
            report(self, "simulated: no engine")
            return None
        return ICudaEngine(self, data[len(MAGIC) :])

    def __del__(self):
        self.library.released.append("runtime")


class ICudaEngine:
    device_memory_size_v2 = SCRATCH

    def __init__(self, runtime, data):
        self.runtime, self.library = runtime, runtime.library
        length = int.from_bytes(data[:4], "little")
        self.tensors, self.graph = json.loads(data[4 : 4 + length]), data[4 + length :]

    @property
    def num_io_tensors(self):
        return len(self.tensors)

    def get_tensor_name(self, index):
        return list(self.tensors)[index]

    def get_tensor_mode(self, name):
        return TensorIOMode[self.tensors[name]["mode"]]

    def get_tensor_dtype(self, name):
        return DataType[self.tensors[name]["dtype"]]

    def get_tensor_shape(self, name):
        return tuple(self.tensors[name]["shape"])

    def get_tensor_location(self, name):
        return TensorLocation[self.tensors[name].get("location", "DEVICE")]

    def get_tensor_format(self, name):
        return TensorFormat[self.tensors[name].get("format", "LINEAR")]

    def create_runtime_config(self):
        assert self.library.flavor == "rtx"
        return IRuntimeConfig(self.library)

    def create_execution_context(self, strategy):
        if self.library.refused("context", self.runtime):
            return None
        if isinstance(strategy, IRuntimeConfig):
            strategy = strategy.strategy
        assert strategy == ExecutionContextAllocationStrategy.USER_MANAGED
        return (RtxExecutionContext if self.library.flavor == "rtx" else IExecutionContext)(self)

    def __del__(self):
        self.library.released.append("engine")


class IRuntimeConfig:
    strategy = ExecutionContextAllocationStrategy.STATIC

    def __init__(self, library):
        self.library = library

    def set_execution_context_allocation_strategy(self, strategy):
        self.strategy = strategy

    def create_runtime_cache(self):
        return IRuntimeCache(self.library)

    def set_runtime_cache(self, cache):
        return isinstance(cache, IRuntimeCache)


class IRuntimeCache:
    def __init__(self, library):
        self.library = library

    def deserialize(self, blob):
        self.library.cache_deserialized.append(bytes(blob))
        return "cache" not in self.library.refuse

    def serialize(self):
        return memoryview(self.library.cache_content) if self.library.cache_content else None


class IExecutionContext:
    """Runs the graph with ONNX Runtime when its stream reaches it, on the addresses bound when it was enqueued."""

    def __init__(self, engine):
        self.engine, self.library, self.device = engine, engine.library, engine.library.device
        self.addresses, self.scratch, self.warm, self.last = {}, None, False, None
        self.home = self.device.device()

    def set_device_memory(self, memory, size):
        assert size >= SCRATCH
        assert memory % ALIGNMENT == 0
        self.device.find(memory, size, self.home)
        self.scratch = (memory, size)

    def set_tensor_address(self, name, memory):
        if name not in self.engine.tensors or self.library.refused("address", self.engine.runtime):
            return False
        if memory % ALIGNMENT:  # by the documentation of `setTensorAddress`
            report(self.engine.runtime, f"simulated: the address {memory:#x} is not aligned")
            return False
        self.addresses[name] = memory
        return True

    def execute_async_v3(self, stream_handle):
        library, device = self.library, self.device
        with device.lock:
            library.enqueues += 1
            if library.refuse_enqueue and library.enqueues >= library.refuse_enqueue:
                library.refuse.add("enqueue")
            if library.refused("enqueue", self.engine.runtime):
                return False
            stream = device.stream_of(stream_handle)
            if device.device() != self.home or stream.device != self.home:
                report(self.engine.runtime, "simulated: another device is current")
                return False
            if self.addresses.keys() != self.engine.tensors.keys() or self.scratch is None:
                device.misuse(f"the engine is queued with only {sorted(self.addresses)} bound")
            if stream.capture is not None and (not self.warm or library.sync_in_enqueue):
                stream.capture.invalid = True  # the first run compiles and allocates
            if self.last is not None and self.last[0] is not stream and not self.last[1]["done"]:
                device.misuse("an execution context is queued in a second stream while it runs in the first")
            self.warm, state, addresses = True, {"done": False}, dict(self.addresses)
            for name, address in addresses.items():
                device.find(address, self.nbytes(name), self.home)
            if stream.capture is None:
                self.last = (stream, state)
            device.push(stream, Operation(lambda: self.run(addresses, state)))
            return True

    def nbytes(self, name):
        size = {"UINT8": 1, "FLOAT": 4, "HALF": 2}[self.engine.tensors[name]["dtype"]]
        return int(np.prod(self.engine.tensors[name]["shape"])) * size

    def view(self, name, address):
        tensor = self.engine.tensors[name]
        dtype = {"UINT8": np.uint8, "FLOAT": np.float32}[tensor["dtype"]]
        found = self.device.find(address, self.nbytes(name), self.home)
        return np.frombuffer(found, dtype).reshape(tensor["shape"])

    def run(self, addresses, state):
        scratch = self.device.find(*self.scratch, self.home)
        inputs, outputs = {}, {}
        for name, address in addresses.items():
            into = inputs if self.engine.tensors[name]["mode"] == "INPUT" else outputs
            into[name] = self.view(name, address)
        # Poisoned memory may be NaN or overflow a cast; the result of a warm-up is meaningless on a GPU too.
        clean = {n: np.nan_to_num(a, nan=0, posinf=0, neginf=0) for n, a in inputs.items()}
        described = ((n, a.dtype.str, a.shape, a.tobytes()) for n, a in clean.items())
        for name, result in zip(
            outputs, computed(self.engine.graph, tuple(outputs), *described), strict=True
        ):
            outputs[name][...] = result
        scratch[:] = np.random.default_rng(0).integers(0, 256, len(scratch), np.uint8)
        state["done"] = True

    def __del__(self):
        self.library.released.append("context")


class RtxExecutionContext(IExecutionContext):
    """Only TensorRT-RTX has `is_stream_capturable`."""

    def is_stream_capturable(self, stream):
        return self.library.capturable


class Refitter:
    error_recorder = None

    def __init__(self, library, engine, logger):
        self.library, self.engine, self.logger, self.graph = library, engine, logger, b""

    def refit_cuda_engine(self):
        if self.library.refused("refit", self) or not self.graph:
            return False
        self.engine.graph = self.graph
        return True


class OnnxParserRefitter:
    def __init__(self, library, refitter, logger):
        self.library, self.refitter, self.logger = library, refitter, logger
        self.error_recorder = refitter.error_recorder

    def refit_from_bytes(self, model):
        if self.library.refused("weights", self):
            return False
        self.refitter.graph = bytes(model)
        return True

    def refit_from_file(self, model):
        with open(model, "rb") as file:  # noqa: PTH123
            return self.refit_from_bytes(file.read())
