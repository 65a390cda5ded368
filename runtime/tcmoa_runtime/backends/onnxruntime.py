"""The backend of the base install: ONNX Runtime on the CPU, or with one of its GPU providers.

`onnxruntime` takes CUDA where that provider is available and starts, else the CPU. The other backends of this module
take the provider that they name, or raise. This project has run the CPU only, see `providers`.
"""

from __future__ import annotations

import os
import warnings
from typing import Any, Final, cast

import onnxruntime as ort

from tcmoa_runtime.backends.base import (
    Outputs,
    Tensors,
    check_inputs,
    closed_error,
    compare_graph_name,
    compare_tensors,
)
from tcmoa_runtime.backends.compile_cache import CompileCache
from tcmoa_runtime.backends.denormals import flushed_denormals
from tcmoa_runtime.backends.provider_errors import describe_error
from tcmoa_runtime.backends.providers import (
    CPU,
    CUDA,
    CUDA_OPTIONS,
    PROVIDERS,
    Provider,
    ProviderArgument,
    find_provider,
    open_provider_cache,
    preload_libraries,
    provider_options,
    start_error,
)
from tcmoa_runtime.bundle import Bundle
from tcmoa_runtime.checked_graph import checked_graph
from tcmoa_runtime.contract import TensorSpec
from tcmoa_runtime.errors import BundleError, TcmoaError
from tcmoa_runtime.native_calls import native_calls
from tcmoa_runtime.typing import BackendName

QDQ_DISABLED_OPTIMIZERS: Final = ("MatMulAddFusion", "BiasGeluFusion")
"""Graph optimizations that are disabled for graphs with QuantizeLinear/DequantizeLinear pairs.

The first turns a product and its bias into a Gemm before the pairs are fused; the weights are then dequantized in every
run (tiny 640x480: 1271 instead of 780 ms). The second is slower than the bias and GELU that it replaces (753 instead of
730 ms).
"""
QDQ_PRECISIONS: Final = ("int8", "fp8")
"""Precisions of bundles whose graphs have such pairs."""

_DTYPES: Final = {"tensor(uint8)": "uint8", "tensor(float)": "float32"}


class OnnxRuntimeBackend:
    """A session of ONNX Runtime, made from the bytes whose hash was checked.

    The TensorRT providers compile for minutes when a session is created. They keep the result in the user's cache
    folder, see `CompileCache`.

    Args:
        bundle: The bundle.
        threads: CPU threads; None: all cores.
        backend: `onnxruntime`, or a name in `PROVIDERS`.

    Raises:
        MissingError: The provider is not installed, does not start, or would leave a part of the graph to the CPU.
        BundleError: ONNX Runtime cannot load the graph, or it is not this bundle's.
    """

    def __init__(
        self, bundle: Bundle, *, threads: int | None = None, backend: BackendName = "onnxruntime"
    ) -> None:
        self._contract = bundle.contract
        self._threads = threads
        self._cache: CompileCache | None = None
        self._session: ort.InferenceSession | None = None
        with checked_graph(bundle) as graph:
            source = graph if isinstance(graph, bytes) else os.fspath(graph)
            if backend == "onnxruntime":
                self._start_cuda_or_cpu(bundle, source)
            else:
                self._start(bundle, source, PROVIDERS[backend])
        self._check_graph(bundle)

    @property
    def name(self) -> str:
        """Library and provider, e.g. `onnxruntime (CPU)`."""
        return f"onnxruntime ({self._device})"

    @property
    def inputs(self) -> tuple[TensorSpec, ...]:
        """Specifications of the inputs of `infer`."""
        return self._contract.inputs

    def infer(self, inputs: Tensors) -> Outputs:
        """Run the graph once, see `Backend.infer`."""
        check_inputs(self._contract.inputs, inputs)
        names = [spec.name for spec in self._contract.outputs]
        session = self._open_session()
        try:
            with native_calls, flushed_denormals():
                results = session.run(names, dict(inputs))
        except Exception as error:  # the exceptions of ONNX Runtime have no common base class but Exception
            raise TcmoaError(f"ONNX Runtime failed to run the graph ({describe_error(error)})") from error
        return cast("Outputs", dict(zip(names, results, strict=True)))

    def close(self) -> None:
        """Free the session and seal what its provider left in the cache; further calls do nothing."""
        self._session = None
        cache, self._cache = self._cache, None
        if cache is not None:
            cache.close()

    def _start_cuda_or_cpu(self, bundle: Bundle, source: bytes | str) -> None:
        has_cuda = CUDA in ort.get_available_providers()
        if not has_cuda and bundle.precision == "bf16":
            raise BundleError(
                "a bf16 graph, which ONNX Runtime cannot run on the CPU",
                subject=bundle.path,
                remedy="Build an engine with `tcmoa build`, or export the bundle with {precision}",
                settings={"precision": "fp32"},
            )
        if has_cuda:
            preload_libraries(None)
            try:
                self._session = _new_session(
                    source, self._session_options(), [(CUDA, CUDA_OPTIONS), CPU], bundle.precision
                )
            except Exception as error:  # as in `infer`
                if bundle.precision == "bf16":
                    raise _unloadable(bundle, error) from error
                # ONNX Runtime would fall back too, but print that on stdout.
                warnings.warn(
                    f"{CUDA} did not start ({describe_error(error)}); falling back to the CPU",
                    RuntimeWarning,
                    stacklevel=4,
                )
        if self._session is None:
            try:
                self._session = _new_session(source, self._session_options(), [CPU], bundle.precision)
            except Exception as error:  # as in `infer`
                raise _unloadable(bundle, error) from error
        self._device = "CUDA" if CUDA in self._session.get_providers() else "CPU"

    def _start(self, bundle: Bundle, source: bytes | str, provider: Provider) -> None:
        request = find_provider(provider)
        self._cache = open_provider_cache(bundle, provider)
        options = self._session_options()
        try:
            providers = request.apply(options, provider_options(provider, self._cache))
            session = _new_session(source, options, providers, bundle.precision)
        except Exception as error:  # as in `infer`
            if self._cache is not None:
                self._cache.release()
            raise start_error(
                provider,
                f"ONNX Runtime {ort.__version__} cannot run the graph on {provider.name} alone "
                f"({describe_error(error)})",
                bundle.graph_path,
            ) from error
        started = session.get_providers()
        if not request.names & set(started):
            raise start_error(
                provider,
                f"{provider.name} of ONNX Runtime {ort.__version__} did not start; the session would run on "
                f"{', '.join(started)}",
                bundle.graph_path,
            )
        self._session, self._device = session, provider.label
        if self._cache is not None:
            self._cache.close()  # TensorRT has written its engine; TensorRT-RTX writes its kernels at the end

    def _session_options(self) -> ort.SessionOptions:
        options = ort.SessionOptions()
        options.log_severity_level = 3  # errors
        # Otherwise the first bytes decide whether the file is ONNX.
        options.add_session_config_entry("session.load_model_format", "ONNX")
        # For the session's own threads; `flushed_denormals` does the same for the calling one.
        options.add_session_config_entry("session.set_denormal_as_zero", "1")
        if self._threads is not None:
            options.intra_op_num_threads = self._threads
        return options

    def _check_graph(self, bundle: Bundle) -> None:
        """Check that the graph is the one that bundle.json describes."""
        session = self._open_session()
        compare_tensors(
            map(_spec_of, session.get_inputs()),
            map(_spec_of, session.get_outputs()),
            self._contract,
            subject=bundle.graph_path,
        )
        compare_graph_name(session.get_modelmeta().graph_name, bundle)

    def _open_session(self) -> ort.InferenceSession:
        if self._session is None:
            raise closed_error()
        return self._session


def _new_session(
    source: bytes | str, options: ort.SessionOptions, providers: list[ProviderArgument] | None, precision: str
) -> ort.InferenceSession:
    # ONNX Runtime's own fallback replaces providers, even in the middle of a run, and says so on stdout only.
    settings: dict[str, Any] = {"enable_fallback": 0}
    if precision in QDQ_PRECISIONS:
        settings["disabled_optimizers"] = list(QDQ_DISABLED_OPTIMIZERS)
    else:
        # The plan of all buffers is kept beside the buffers of the first run: tiny 640x480 took 1010 instead of 600 MB
        # at equal speed. With QDQ pairs the plan is faster, 735 instead of 775 ms.
        options.enable_mem_pattern = False
    with native_calls, flushed_denormals():
        return ort.InferenceSession(source, options, providers=providers, **settings)


def _spec_of(node: ort.NodeArg) -> TensorSpec:
    return TensorSpec(node.name, _DTYPES.get(node.type, node.type), tuple(node.shape))


def _unloadable(bundle: Bundle, error: Exception) -> BundleError:
    return BundleError(
        f"ONNX Runtime {ort.__version__} cannot load the graph ({describe_error(error)})",
        subject=bundle.graph_path,
        remedy="Export the bundle again with `tcmoa export`, or upgrade onnxruntime",
    )
