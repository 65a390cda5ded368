"""ONNX Runtime: the backend of the base install. The CPU, or one of its GPU providers.

`onnxruntime` takes CUDA where that provider is there and starts, else the CPU. The other backends of this file
take the one provider that they name, or raise. Only the CPU was ever run here; see `providers`.
"""

from __future__ import annotations

import warnings
from typing import Any, Final

import onnxruntime as ort
from numpy.typing import NDArray

from tcmoa_runtime.backends.base import Tensors, check_inputs
from tcmoa_runtime.backends.denormals import flushed_denormals
from tcmoa_runtime.backends.providers import (
    CPU,
    CUDA,
    CUDA_OPTIONS,
    PROVIDERS,
    Cache,
    Provider,
    first_line,
    preload,
    request,
    settings_of,
)
from tcmoa_runtime.bundle import Bundle
from tcmoa_runtime.contract import TensorSpec
from tcmoa_runtime.errors import BundleError, MissingError, TcmoaError

LOW_PRECISION_WITHOUT: Final = ("MatMulAddFusion", "BiasGeluFusion")
"""Optimisations that are left out for graphs with Q/DQ pairs. The first turns a product and its bias into a Gemm before
the pairs are looked for, and the weights are then turned back into float32 in every run: tiny 640x480 took 1271 ms and
not 780. The second is slower than what it replaces, a bias and a GELU: 753 ms and not 730."""

LOW_PRECISIONS: Final = ("int8", "fp8")
"""Of bundles whose graphs hold such pairs."""

_TYPES = {"uint8": "tensor(uint8)", "float32": "tensor(float)"}
_INSTEAD: Final = "see `tcmoa doctor`, or use --backend onnxruntime"


class OnnxRuntimeBackend:
    """A session on a bundle's graph; the graph is loaded from the very bytes whose hash was checked.

    `threads`: of the CPU, all cores when None. `backend`: `onnxruntime`, or a name in `PROVIDERS`. The TensorRT
    providers compile when a session is made, for minutes, and keep the result in the bundle's `engines/` where
    that can be written to.

    Raises MissingError when the provider is not installed, does not start, or would leave a part of the graph
    to the CPU; BundleError when ONNX Runtime cannot load the graph or it is not this bundle's.
    """

    def __init__(self, bundle: Bundle, *, threads: int | None = None, backend: str = "onnxruntime") -> None:
        self._contract = bundle.contract
        self._threads = threads
        self._cache: Cache | None = None
        self._session: ort.InferenceSession | None = None
        if backend == "onnxruntime":
            self._start_any(bundle)
        else:
            self._start(bundle, PROVIDERS[backend])
        self._check_graph(bundle)

    def _start_any(self, bundle: Bundle) -> None:
        has_cuda = CUDA in ort.get_available_providers()
        if not has_cuda and bundle.precision == "bf16":
            raise BundleError(
                f"{bundle.path}: is bf16, which ONNX Runtime has no CPU arithmetic for; build an engine with "
                f"`tcmoa build`, or export the bundle in fp32"
            )
        source = _read(bundle)
        if has_cuda:
            preload(None)
            try:
                self._session = self._new_session(
                    source, self._options(), [(CUDA, CUDA_OPTIONS), CPU], bundle.precision
                )
            except Exception as error:  # ONNX Runtime's exceptions share no base but Exception
                if bundle.precision == "bf16":
                    raise _unloadable(bundle, error) from error
                # ONNX Runtime would go on in the same way, but tell so on stdout.
                warnings.warn(
                    f"{CUDA} did not start ({first_line(error)}): the CPU is used",
                    RuntimeWarning,
                    stacklevel=4,
                )
        if self._session is None:
            try:
                self._session = self._new_session(source, self._options(), [CPU], bundle.precision)
            except Exception as error:  # as above
                raise _unloadable(bundle, error) from error
        self._device = "CUDA" if CUDA in self._session.get_providers() else "CPU"

    def _start(self, bundle: Bundle, provider: Provider) -> None:
        asked = request(provider.backend)
        source = _read(bundle)
        if provider.name != CUDA:  # which compiles nothing
            self._cache = Cache.open(bundle, provider.backend)
        options = self._options()
        try:
            providers = asked.apply(options, settings_of(provider, self._cache))
            session = self._new_session(source, options, providers, bundle.precision)
        except Exception as error:  # as above
            raise MissingError(
                f"ONNX Runtime {ort.__version__} cannot run {bundle.graph_path} on {provider.name} alone "
                f"({first_line(error)}): the GPU, its driver or a library may be missing; {_INSTEAD}"
            ) from error
        found = session.get_providers()
        if not asked.names & set(found):
            raise MissingError(
                f"{provider.name} of ONNX Runtime {ort.__version__} did not start, it would run on "
                f"{', '.join(found)}: the GPU, its driver or a library may be missing; {_INSTEAD}"
            )
        self._session, self._device = session, provider.label
        if self._cache is not None:
            self._cache.close()  # TensorRT's engine is written by now; again at the end, for RTX's kernels

    def _options(self) -> Any:
        options = ort.SessionOptions()
        options.log_severity_level = 3
        options.add_session_config_entry(
            "session.set_denormal_as_zero", "1"
        )  # in its threads; see `denormals`
        if self._threads is not None:
            options.intra_op_num_threads = self._threads
        return options

    @staticmethod
    def _new_session(
        source: bytes | str, options: Any, providers: list[Any] | None, precision: str
    ) -> ort.InferenceSession:
        # Without a fallback: that one swaps providers, also in the middle of a run, and tells it on stdout only.
        settings: dict[str, Any] = {"enable_fallback": 0}
        if precision in LOW_PRECISIONS:
            settings["disabled_optimizers"] = list(LOW_PRECISION_WITHOUT)
        else:
            # A plan of all buffers takes as much memory again beside those of the first run: tiny 640x480 1010 MB and
            # not 600, at equal speed. In 8 bits the plan is kept: 735 ms and not 775.
            options.enable_mem_pattern = False
        with flushed_denormals():
            return ort.InferenceSession(source, options, providers=providers, **settings)

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
        """`onnxruntime (CPU)`, or `CUDA`, `TensorRT` or `TensorRT-RTX` instead."""
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
            with flushed_denormals():
                results = self._live().run(names, dict(inputs))
            return dict(zip(names, results, strict=True))
        except TcmoaError:
            raise
        except Exception as error:  # as above
            raise TcmoaError(f"ONNX Runtime failed while running the graph ({first_line(error)})") from error

    def close(self) -> None:
        """Free the session, and note what its provider left in the cache; again does nothing."""
        self._session = None
        cache, self._cache = self._cache, None
        if cache is not None:
            cache.close()


def _read(bundle: Bundle) -> bytes | str:
    """The graph's checked bytes, or its path once all files were checked."""
    if bundle.has_external_data:
        # The weights are found through the graph's own path, so it cannot come from memory.
        bundle.check()
        return str(bundle.graph_path)
    return bundle.read_graph()


def _unloadable(bundle: Bundle, error: Exception) -> BundleError:
    return BundleError(
        f"{bundle.graph_path}: ONNX Runtime {ort.__version__} cannot load it ({first_line(error)}); "
        f"export the bundle again, or upgrade onnxruntime"
    )
