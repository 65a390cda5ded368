"""OpenVINO on the CPU: the faster one of the two there, in float32 or in bfloat16 where the CPU has it."""

from __future__ import annotations

import io
import queue
import threading
from typing import Any, Final

import openvino as ov
from numpy.typing import NDArray

from tcmoa_runtime.backends.base import Tensors, check_inputs
from tcmoa_runtime.backends.providers import Cache, first_line
from tcmoa_runtime.bundle import Bundle
from tcmoa_runtime.contract import TensorSpec
from tcmoa_runtime.errors import BundleError, MissingError, TcmoaError

PRECISIONS: Final = {"openvino": "f32", "openvino-bf16": "bf16"}
"""What each backend of this file computes in. bf16 is OpenVINO's choice of operations, not the exporter's: it comes
with no gate of ours."""

_TYPES: Final = {"uint8": "u8", "float32": "f32"}


class OpenVinoBackend:
    """A compiled model on a bundle's graph; the graph is loaded from the very bytes whose hash was checked.

    `threads`: all cores when None. With `keep`, what OpenVINO compiled is kept in the bundle's `engines/` where that
    can be written to, hashed as engines are, so that the next start is shorter.

    Raises BundleError when OpenVINO cannot load the graph or it is not this bundle's; MissingError when bf16 is asked
    of a CPU that has no arithmetic for it.
    """

    def __init__(
        self, bundle: Bundle, *, threads: int | None = None, backend: str = "openvino", keep: bool = True
    ) -> None:
        self._contract = bundle.contract
        self._backend = backend
        settings: dict[str, Any] = {
            "PERFORMANCE_HINT": "LATENCY",
            "INFERENCE_PRECISION_HINT": PRECISIONS[backend],
        }
        if threads is not None:
            settings["INFERENCE_NUM_THREADS"] = threads
        core = ov.Core()
        abilities = core.get_property("CPU", "OPTIMIZATION_CAPABILITIES")
        if PRECISIONS[backend] == "bf16" and "BF16" not in abilities:
            raise MissingError(
                f"{backend} needs a CPU with bfloat16 arithmetic, this one has none; use --backend openvino"
            )
        self._cache = Cache.open(bundle, f"{backend}-{_version()}") if keep else None
        if self._cache is not None:
            settings["CACHE_DIR"] = str(self._cache.folder)
        try:
            model = core.read_model(_read(bundle))
            self._check_graph(bundle, model)
            self._compiled: Any = core.compile_model(model, "CPU", settings)
        except TcmoaError:
            raise
        except Exception as error:  # OpenVINO's exceptions share no base but Exception
            raise BundleError(
                f"{bundle.graph_path}: OpenVINO {_version()} cannot load it ({first_line(error)}); use --backend "
                f"onnxruntime, or upgrade openvino"
            ) from error
        if self._cache is not None:
            self._cache.close()
        # A request is for one thread at a time; each that runs beside others gets one of its own, and gives it back.
        self._free: queue.SimpleQueue[Any] = queue.SimpleQueue()
        self._closing = threading.Lock()

    def _check_graph(self, bundle: Bundle, model: Any) -> None:
        """The graph must be the one that bundle.json describes: names, types and shapes, and its own name."""
        for kind, nodes, specs in (
            ("inputs", model.inputs, self._contract.inputs),
            ("outputs", model.outputs, self._contract.outputs),
        ):
            arrived = {n.get_any_name(): (n.get_element_type().to_string(), _shape(n)) for n in nodes}
            wanted = {s.name: (_TYPES[s.dtype], s.shape) for s in specs}
            if arrived != wanted:
                name = next(n for n in (*wanted, *arrived) if arrived.get(n) != wanted.get(n))
                raise BundleError(
                    f"{bundle.graph_path}: {kind[:-1]} '{name}' is {arrived.get(name, 'absent')}, bundle.json says "
                    f"{wanted.get(name, 'there is none')}; it is not this bundle's graph: export it again"
                )
        name = model.get_friendly_name()
        # Read from a path, it gets another name.
        if name != bundle.graph_name and not bundle.has_external_data:
            raise BundleError(
                f"{bundle.graph_path}: the graph is named '{name}', bundle.json says '{bundle.graph_name}'; "
                f"it is another bundle's graph: export it again"
            )

    @property
    def name(self) -> str:
        """`openvino (CPU)`, or `openvino-bf16 (CPU)`."""
        return f"{self._backend} (CPU)"

    @property
    def inputs(self) -> tuple[TensorSpec, ...]:
        """What `infer` takes."""
        return self._contract.inputs

    def infer(self, inputs: Tensors) -> dict[str, NDArray[Any]]:
        """Run the graph once; see `Backend`."""
        check_inputs(self._contract.inputs, inputs)
        compiled = self._compiled
        if compiled is None:
            raise TcmoaError("this backend is closed; load the bundle again")
        try:
            try:
                request = self._free.get_nowait()
            except queue.Empty:
                request = compiled.create_infer_request()
            # Inputs are read where they lie. Outputs are copied out: the request's own are written again.
            results = request.infer(dict(inputs), share_inputs=True, share_outputs=True)
            outputs = {spec.name: results[spec.name].copy() for spec in self._contract.outputs}
        except Exception as error:  # as above
            raise TcmoaError(f"OpenVINO failed while running the graph ({first_line(error)})") from error
        self._free.put(request)
        return outputs

    def close(self) -> None:
        """Free the model; again does nothing."""
        with self._closing:
            self._compiled = None
            while not self._free.empty():
                self._free.get_nowait()


def _version() -> str:
    """`2026.4.1` of `2026.4.1-22012-...`."""
    return str(ov.__version__).split("-", maxsplit=1)[0]


def _shape(node: Any) -> tuple[int, ...]:
    partial = node.get_partial_shape()
    return tuple(partial.to_shape()) if partial.is_static else ()


def _read(bundle: Bundle) -> Any:
    """The graph's checked bytes, or its path once all files were checked."""
    if bundle.has_external_data:
        # The weights are found through the graph's own path, so it cannot come from memory.
        bundle.check()
        return str(bundle.graph_path)
    return io.BytesIO(bundle.read_graph())
