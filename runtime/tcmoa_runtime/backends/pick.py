"""Choosing and loading a backend."""

from __future__ import annotations

import importlib
from collections.abc import Callable
from contextlib import suppress
from functools import partial
from importlib.util import find_spec
from pathlib import Path
from typing import Final

from tcmoa_runtime.backends.base import Backend
from tcmoa_runtime.bundle import Bundle
from tcmoa_runtime.engine import FOLDER, find_engines
from tcmoa_runtime.errors import InputError, MissingError, TcmoaError


def _load_onnxruntime(bundle: Bundle, threads: int | None, backend: str = "onnxruntime") -> Backend:
    try:
        importlib.import_module("onnxruntime")
    except Exception as error:  # a library that does not fit the system fails with more than ImportError
        reason = (str(error).splitlines() or [type(error).__name__])[0]
        raise MissingError(
            f"onnxruntime cannot be imported ({reason}); run `pip install onnxruntime`"
        ) from error
    from tcmoa_runtime.backends.onnxruntime import OnnxRuntimeBackend

    return OnnxRuntimeBackend(bundle, threads=threads, backend=backend)


def _load_tensorrt(bundle: Bundle, threads: int | None) -> Backend:
    from tcmoa_runtime.backends.tensorrt.backend import TensorRTBackend

    return TensorRTBackend(bundle)


def _load_openvino(
    bundle: Bundle, threads: int | None, backend: str = "openvino", *, keep: bool = True
) -> Backend:
    try:
        importlib.import_module("openvino")
    except Exception as error:  # as above
        reason = (str(error).splitlines() or [type(error).__name__])[0]
        raise MissingError(
            f"{backend} needs the package openvino ({reason}); run `pip install 'tcmoa[openvino]'`"
        ) from error
    from tcmoa_runtime.backends.openvino import OpenVinoBackend

    return OpenVinoBackend(bundle, threads=threads, backend=backend, keep=keep)


_LOADERS: Final[dict[str, Callable[[Bundle, int | None], Backend]]] = {
    "onnxruntime": _load_onnxruntime,
    **{
        name: partial(_load_onnxruntime, backend=name)
        for name in ("onnxruntime-cuda", "onnxruntime-tensorrt", "onnxruntime-rtx")
    },
    "openvino": _load_openvino,
    "openvino-bf16": partial(_load_openvino, backend="openvino-bf16"),
    "tensorrt": _load_tensorrt,
}
_OPENVINO_PRECISIONS: Final = ("fp32", "int8")
"""What it runs as the exporter meant it."""
BACKENDS: Final = tuple(_LOADERS)
"""Names that `load_backend` takes besides `auto`."""


def load_backend(bundle: Bundle, name: str = "auto", *, threads: int | None = None) -> Backend:
    """Check what the backend needs of the bundle and load it.

    `auto` takes what `tcmoa bench --pick` found to be the fastest on this machine, else tensorrt where the bundle
    has an engine that runs there, else openvino where it is installed and onnxruntime-gpu is not, else onnxruntime.
    On CPUs openvino was the faster of the two in every comparison of docs/speed.md. What it compiles is kept in the
    bundle only where it is named or picked: then it starts sooner the next time (tiny 640x480: 0.76 and not 0.84 s).
    `onnxruntime` takes CUDA where ONNX Runtime has it, else the CPU; `onnxruntime-cuda`, `-tensorrt` and `-rtx`
    take that provider of ONNX Runtime or raise. `threads`: threads of a backend that runs on the CPU, all cores
    when None. Raises InputError on an unknown name, MissingError when a package or device is not there,
    BundleError when something does not match the bundle.
    """
    if threads is not None and threads < 1:
        raise InputError(f"threads is {threads}: expected 1 or more")
    if name not in ("auto", *BACKENDS):
        raise InputError(f"backend is {name!r}: expected auto or {', '.join(BACKENDS)}")
    if name != "auto":
        return _LOADERS[name](bundle, threads)
    if (bundle.path / FOLDER).is_dir():
        from tcmoa_runtime.bench.measure import read_pick

        picked = read_pick(bundle)
        if picked is not None:
            with suppress(TcmoaError):  # what fails for all will fail below
                return _LOADERS[picked](bundle, threads)
    if find_engines(bundle):  # or neither TensorRT nor CUDA is looked for
        from tcmoa_runtime.backends.tensorrt.engine_loading import UnfitError

        with suppress(MissingError, UnfitError):
            return _load_tensorrt(bundle, threads)
    if bundle.precision in _OPENVINO_PRECISIONS and find_spec("openvino") and not _may_take_a_gpu():
        with suppress(TcmoaError):  # as above
            return _load_openvino(bundle, threads, keep=False)  # nobody asked for files in the bundle
    return _load_onnxruntime(bundle, threads)


def _may_take_a_gpu() -> bool:
    """Whether ONNX Runtime comes with CUDA: whoever installs that wants a GPU. Found without importing it."""
    spec = find_spec("onnxruntime")
    folders = (spec.submodule_search_locations if spec is not None else None) or ()
    return any(True for folder in folders for _ in Path(folder, "capi").glob("*onnxruntime_providers_cuda*"))
