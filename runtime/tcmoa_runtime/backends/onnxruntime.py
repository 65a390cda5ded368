"""ONNX Runtime: the backend of the base install. CPU, or CUDA where that provider is there."""

from __future__ import annotations

from typing import Any

import onnxruntime as ort
from numpy.typing import NDArray

from tcmoa_runtime.backends import Tensors, check_inputs
from tcmoa_runtime.bundle import Bundle
from tcmoa_runtime.contract import TensorSpec
from tcmoa_runtime.errors import BundleError, TcmoaError

_TYPES = {"uint8": "tensor(uint8)", "float32": "tensor(float)"}


class OnnxRuntimeBackend:
    """A session on a bundle's graph; the graph is loaded from the very bytes whose hash was checked."""

    def __init__(self, bundle: Bundle, *, threads: int | None = None) -> None:
        self._contract = bundle.contract
        options = ort.SessionOptions()
        options.log_severity_level = 3
        if threads is not None:
            options.intra_op_num_threads = threads
        providers = ["CPUExecutionProvider"]
        if "CUDAExecutionProvider" in ort.get_available_providers():
            providers.insert(0, "CUDAExecutionProvider")
        elif bundle.precision == "bf16":
            raise BundleError(
                f"{bundle.path}: is bf16, which ONNX Runtime has no CPU arithmetic for; build an engine with "
                f"`tcmoa build`, or export the bundle in fp32"
            )
        source: bytes | str
        if bundle.has_external_data:
            # The weights are found through the graph's own path, so it cannot come from memory.
            bundle.check()
            source = str(bundle.graph_path)
        else:
            source = bundle.read_graph()
        try:
            self._session: ort.InferenceSession | None = ort.InferenceSession(
                source, options, providers=providers
            )
        except Exception as error:  # ONNX Runtime's exceptions share no base but Exception
            raise BundleError(
                f"{bundle.graph_path}: ONNX Runtime {ort.__version__} cannot load it ({_reason(error)}); "
                f"export the bundle again, or upgrade onnxruntime"
            ) from error
        self._check_graph(bundle)
        self._device = "CUDA" if "CUDAExecutionProvider" in self._session.get_providers() else "CPU"

    def _check_graph(self, bundle: Bundle) -> None:
        """The graph must be the one that bundle.json describes: names, types and shapes, and its own name."""
        session = self._live()
        where = bundle.graph_path
        for kind, nodes, specs in (
            ("inputs", session.get_inputs(), self._contract.inputs),
            ("outputs", session.get_outputs(), self._contract.outputs),
        ):
            arrived = {n.name: (n.type, tuple(n.shape)) for n in nodes}
            wanted = {s.name: (_TYPES[s.dtype], s.shape) for s in specs}
            if arrived != wanted:
                name = next(n for n in (*wanted, *arrived) if arrived.get(n) != wanted.get(n))
                raise BundleError(
                    f"{where}: {kind[:-1]} '{name}' is {arrived.get(name, 'absent')}, bundle.json says "
                    f"{wanted.get(name, 'there is none')}; it is not this bundle's graph: export it again"
                )
        name = session.get_modelmeta().graph_name
        if name != bundle.graph_name:
            raise BundleError(
                f"{where}: the graph is named '{name}', bundle.json says '{bundle.graph_name}'; "
                f"it is another bundle's graph: export it again"
            )

    def _live(self) -> ort.InferenceSession:
        if self._session is None:
            raise TcmoaError("this backend is closed; load the bundle again")
        return self._session

    @property
    def name(self) -> str:
        """`onnxruntime (CPU)` or `onnxruntime (CUDA)`."""
        return f"onnxruntime ({self._device})"

    @property
    def inputs(self) -> tuple[TensorSpec, ...]:
        """What `infer` takes."""
        return self._contract.inputs

    def infer(self, inputs: Tensors) -> dict[str, NDArray[Any]]:
        """Run the graph once; see `Backend`."""
        check_inputs(self._contract.inputs, inputs)
        names = [spec.name for spec in self._contract.outputs]
        try:
            return dict(zip(names, self._live().run(names, dict(inputs)), strict=True))
        except TcmoaError:
            raise
        except Exception as error:  # as above
            raise TcmoaError(f"ONNX Runtime failed while running the graph ({_reason(error)})") from error

    def close(self) -> None:
        """Free the session."""
        self._session = None


def _reason(error: Exception) -> str:
    lines = [line for line in str(error).splitlines() if line.strip()]
    return (lines[0] if lines else type(error).__name__)[:200]
