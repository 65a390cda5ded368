"""OpenVINO on the CPU, in float32, or in bfloat16 where the CPU supports it."""

from __future__ import annotations

import io
import os
import queue
import threading
from typing import Any, Final, cast

from tcmoa_runtime.backends.base import (
    Outputs,
    Tensors,
    check_inputs,
    closed_error,
    compare_graph_name,
    compare_tensors,
)
from tcmoa_runtime.backends.compile_cache import CompileCache
from tcmoa_runtime.bundle import Bundle
from tcmoa_runtime.checked_graph import checked_graph
from tcmoa_runtime.contract import TensorSpec
from tcmoa_runtime.errors import BundleError, MissingError, TcmoaError, first_line
from tcmoa_runtime.machine import cpu_identity
from tcmoa_runtime.native_calls import native_calls
from tcmoa_runtime.telemetry import without_openvino_telemetry
from tcmoa_runtime.typing import BackendName

with without_openvino_telemetry():
    import openvino as ov

PRECISIONS: Final = {"openvino": "f32", "openvino-bf16": "bf16"}
"""OpenVINO's inference precision for each backend of this module.

With bf16, OpenVINO chooses which operations are rounded. Its results are not compared with the model's.
"""

_ADVICE: Final = "To facilitate the conversion"
_MAX_REASON: Final = 200
_DTYPES: Final = {"u8": "uint8", "f32": "float32"}


class OpenVinoBackend:
    """A compiled model of OpenVINO, made from the bytes whose hash was checked.

    Args:
        bundle: The bundle.
        threads: CPU threads; None: all cores.
        backend: `openvino` or `openvino-bf16`.
        use_cache: Keep the compiled model in the user's cache folder, so that the next start is faster (tiny 640x480:
            0.76 instead of 0.84 s).

    Raises:
        BundleError: OpenVINO cannot load the graph, or it is not this bundle's.
        MissingError: The CPU does not support bf16.
    """

    def __init__(
        self,
        bundle: Bundle,
        *,
        threads: int | None = None,
        backend: BackendName = "openvino",
        use_cache: bool = True,
    ) -> None:
        self._contract = bundle.contract
        self._backend = backend
        precision = PRECISIONS[backend]
        settings: dict[str, Any] = {
            "PERFORMANCE_HINT": "LATENCY",
            "INFERENCE_PRECISION_HINT": precision,
        }
        if threads is not None:
            settings["INFERENCE_NUM_THREADS"] = threads
        core = _process_core()
        if precision == "bf16" and "BF16" not in core.get_property("CPU", "OPTIMIZATION_CAPABILITIES"):
            raise MissingError(
                "this CPU does not support bfloat16",
                subject=f"backend {backend}",
                remedy="Use {backend}",
                settings={"backend": "openvino"},
            )
        cache: CompileCache | None = None
        try:
            with checked_graph(bundle) as graph:
                model = core.read_model(io.BytesIO(graph) if isinstance(graph, bytes) else os.fspath(graph))
                self._check_graph(bundle, model)
                if use_cache:
                    cache = CompileCache.open(bundle, backend, f"openvino {_version()}", cpu_identity())
                if cache is not None:
                    settings["CACHE_DIR"] = str(cache.folder)
                try:
                    with native_calls:
                        self._compiled: Any = core.compile_model(model, "CPU", settings)
                except BaseException:
                    if cache is not None:
                        cache.release()
                    raise
        except TcmoaError:
            raise
        except Exception as error:  # the exceptions of OpenVINO have no common base class but Exception
            raise BundleError(
                f"OpenVINO {_version()} cannot load the graph ({_reason(error)})",
                subject=bundle.graph_path,
                remedy="Use {backend}, or upgrade openvino",
                settings={"backend": "onnxruntime"},
            ) from error
        if cache is not None:
            cache.close()
        # A request serves one thread at a time, so each concurrent call takes one of its own and returns it.
        self._idle_requests: queue.SimpleQueue[Any] = queue.SimpleQueue()
        self._closing = threading.Lock()

    @property
    def name(self) -> str:
        """Backend and device, e.g. `openvino (CPU)`."""
        return f"{self._backend} (CPU)"

    @property
    def inputs(self) -> tuple[TensorSpec, ...]:
        """Specifications of the inputs of `infer`."""
        return self._contract.inputs

    def infer(self, inputs: Tensors) -> Outputs:
        """Run the graph once, see `Backend.infer`."""
        check_inputs(self._contract.inputs, inputs)
        compiled = self._compiled
        if compiled is None:
            raise closed_error()
        try:
            try:
                request = self._idle_requests.get_nowait()
            except queue.Empty:
                request = compiled.create_infer_request()
            # Inputs are not copied. Outputs are, because the next run overwrites the request's own memory.
            with native_calls:
                results = request.infer(dict(inputs), share_inputs=True, share_outputs=True)
            outputs = {spec.name: results[spec.name].copy() for spec in self._contract.outputs}
        except Exception as error:  # as above
            raise TcmoaError(f"OpenVINO failed to run the graph ({_reason(error)})") from error
        self._idle_requests.put(request)
        return cast("Outputs", outputs)

    def close(self) -> None:
        """Free the model; further calls do nothing."""
        with self._closing:
            self._compiled = None
            while not self._idle_requests.empty():
                self._idle_requests.get_nowait()

    def _check_graph(self, bundle: Bundle, model: ov.Model) -> None:
        """Check that the graph is the one that bundle.json describes."""
        compare_tensors(
            map(_spec_of, model.inputs),
            map(_spec_of, model.outputs),
            self._contract,
            subject=bundle.graph_path,
        )
        if not bundle.has_external_data:  # OpenVINO renames a graph that is read from a path
            compare_graph_name(model.get_friendly_name(), bundle)


_core_lock: Final = threading.Lock()
_core: ov.Core | None = None


def _process_core() -> ov.Core:
    """Return the one core of this process, which is never freed.

    On a CPU with AMX, each core of OpenVINO gives the thread that makes it another stack for signal handlers, and
    unmaps that stack when it is freed. It puts the previous stack back only if it is freed in the same thread and after
    all later cores. Otherwise the next signal, e.g. Ctrl-C, ends the process with SIGSEGV (seen with OpenVINO 2026.4).

    `to_dtype`, which every inference calls, is called here once, before threads do: its first call initializes a static
    variable in C++ and releases the GIL while it does. A second thread then holds the GIL and blocks on that variable,
    which is a deadlock of the whole process (seen with OpenVINO 2026.4).
    """
    global _core
    with _core_lock:
        if _core is None:
            ov.Type.f32.to_dtype()
            _core = ov.Core()
        return _core


def _reason(error: Exception) -> str:
    """Return the line of OpenVINO's message that says why: the last one that is no place in its sources or heading."""
    lines = [line.strip().removeprefix("-- ") for line in str(error).splitlines()]
    reasons = [line for line in lines if line and not line.endswith(":") and not line.startswith(_ADVICE)]
    return reasons[-1][:_MAX_REASON] if reasons else first_line(error)


def _version() -> str:
    """Return the version without the build number, e.g. `2026.4.1`."""
    return str(ov.__version__).split("-", maxsplit=1)[0]


def _spec_of(node: Any) -> TensorSpec:
    dtype, shape = node.get_element_type().to_string(), node.get_partial_shape()
    return TensorSpec(
        node.get_any_name(), _DTYPES.get(dtype, dtype), tuple(shape.to_shape()) if shape.is_static else ()
    )
