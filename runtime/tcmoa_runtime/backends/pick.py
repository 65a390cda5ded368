"""Choosing and loading a backend, and the choice that `tcmoa bench` records for `auto`."""

from __future__ import annotations

import importlib
import json
import warnings
from collections.abc import Callable, Mapping
from functools import partial
from importlib.util import find_spec
from pathlib import Path
from types import MappingProxyType
from typing import Final, get_args

from tcmoa_runtime.backends.base import Backend
from tcmoa_runtime.backends.compile_cache import cache_key
from tcmoa_runtime.bundle import Bundle
from tcmoa_runtime.engine_folders import find_engines, graph_key
from tcmoa_runtime.errors import (
    EngineMismatchError,
    InputError,
    MissingError,
    TcmoaError,
    UntrustedEngineError,
    first_line,
)
from tcmoa_runtime.install import install_command
from tcmoa_runtime.log import get_logger
from tcmoa_runtime.machine import machine_id
from tcmoa_runtime.options.option import check_choice
from tcmoa_runtime.regular_file import MAX_SMALL_BYTES, read_regular_file
from tcmoa_runtime.telemetry import without_openvino_telemetry
from tcmoa_runtime.typing import BackendChoice, BackendName, JsonObject
from tcmoa_runtime.user_folders import UnsafeFolderError, open_user_folder, write_private_file

BACKENDS: Final[tuple[BackendName, ...]] = get_args(BackendName)
"""Names of the backends."""
PICKABLE: Final[tuple[BackendName, ...]] = ("onnxruntime", "openvino", "tensorrt")
"""Backends that may be recorded for `auto`: their results were compared with the model's.

An engine of TensorRT is compared when it is built.
"""
INEXACT: Final[BackendName] = "openvino-bf16"
"""A backend that may be recorded where its frames were compared with those of float32, on the same machine."""

_PICK_FOLDER: Final = "picks"
"""Folder in the user's cache folder."""
_OPENVINO_PRECISIONS: Final = ("fp32", "int8")
"""Precisions of bundles that OpenVINO runs as they were exported."""


_log = get_logger("backends")


def load_backend(
    bundle: Bundle, name: BackendChoice = "auto", *, threads: int | None = None, trust_engines: bool = False
) -> Backend:
    """Load a backend.

    `auto` takes the backend that `tcmoa bench --pick` recorded as the fastest on this machine. Without a record it
    takes tensorrt if the bundle has an engine that runs here and may be loaded, else openvino if it is installed and
    onnxruntime-gpu is not (on CPUs it was the faster one in every comparison), else onnxruntime.

    `onnxruntime` takes CUDA if ONNX Runtime has it, else the CPU. `onnxruntime-cuda`, `onnxruntime-tensorrt` and
    `onnxruntime-rtx` take that execution provider of ONNX Runtime or raise.

    OpenVINO's compiled model is kept in the user's cache folder if openvino is named or recorded, but not if `auto`
    falls back to it: loading a bundle by default writes nothing.

    Args:
        bundle: The bundle.
        name: The backend.
        threads: Threads of a backend on the CPU; None: all cores.
        trust_engines: Load engines that this user did not build, too. An engine is native code.

    Raises:
        InputError: The name is unknown, or `threads` is less than 1.
        MissingError: A package or device is missing.
        BundleError: The bundle is damaged, or has nothing that the backend runs.
        UntrustedEngineError: The backend is tensorrt, and this user built none of the engines that run here.
    """
    if threads is not None and threads < 1:
        raise InputError(f"{threads}; expected 1 or more", subject="threads")
    check_choice("backend", name, ("auto", *BACKENDS))
    if name == "auto":
        skipped: list[str] = []
        backend = _load_automatically(bundle, threads, trust_engines, skipped.append)
    elif name == "tensorrt":
        skipped, backend = ["it was named"], _load_tensorrt(bundle, trust_engines)
    else:
        skipped, backend = ["it was named"], _LOADERS[name](bundle, threads)
    _log.info(
        "%s: backend %s (%s)",
        bundle.spelling,
        backend.name,
        "; ".join(skipped),
        extra={
            "event": "backend-chosen",
            "bundle": bundle.spelling,
            "backend": backend.name,
            "reasons": skipped,
        },
    )
    return backend


def _load_automatically(
    bundle: Bundle, threads: int | None, trust_engines: bool, on_reason: Callable[[str], None]
) -> Backend:
    """Load the backend that `auto` takes; `on_reason` takes why, and why not another one."""
    picked = read_pick(bundle)
    if picked is not None and picked != "tensorrt":
        try:  # an error of the bundle is raised again below
            backend = _LOADERS[picked](bundle, threads)
        except TcmoaError as error:
            on_reason(f"{picked}, the recorded one: {error.problem}")
        else:
            on_reason("recorded as the fastest one here")
            return backend
    if not find_engines(bundle):  # without engines, neither TensorRT nor CUDA is imported
        on_reason("tensorrt: no engine of this bundle")
    else:
        try:
            backend = _load_tensorrt(bundle, trust_engines)
        except UntrustedEngineError as error:
            _log.warning("%s", error, extra={"event": "engine-refused", "bundle": bundle.spelling})
            on_reason("tensorrt: an engine that is not trusted")
        except (MissingError, EngineMismatchError) as error:
            on_reason(f"tensorrt: {error.problem}")
        else:
            on_reason("it has an engine that runs here")
            return backend
    if bundle.precision not in _OPENVINO_PRECISIONS:
        on_reason(f"openvino: a bundle in {bundle.precision}")
    elif not find_spec("openvino"):
        on_reason("openvino: not installed")
    elif _has_onnxruntime_gpu():
        on_reason("openvino: onnxruntime-gpu is installed")
    else:
        try:  # as above
            backend = _load_openvino(bundle, threads, use_cache=False)
        except TcmoaError as error:
            on_reason(f"openvino: {error.problem}")
        else:
            on_reason("on CPUs it is the faster one")
            return backend
    return _load_onnxruntime(bundle, threads)


def fastest_backend(
    p50_ms: Mapping[BackendName, float], psnr_db: Mapping[BackendName, float] = MappingProxyType({})
) -> BackendName | None:
    """Return the backend with the lowest median time among those that may be recorded.

    Args:
        p50_ms: Median time of a frame for each backend.
        psnr_db: PSNR to float32 of less exact backends that are close enough to be recorded, too.
    """
    allowed = [name for name in p50_ms if name in PICKABLE or (name == INEXACT and name in psnr_db)]
    return min(allowed, key=lambda name: p50_ms[name], default=None)


def write_pick(
    bundle: Bundle,
    p50_ms: Mapping[BackendName, float],
    psnr_db: Mapping[BackendName, float] = MappingProxyType({}),
) -> Path:
    """Record the fastest backend on this machine, which `auto` takes from now on.

    Args:
        bundle: The bundle that was measured.
        p50_ms: Median time of a frame for each backend.
        psnr_db: As for `fastest_backend`.

    Returns:
        The file in the user's cache folder.

    Raises:
        TcmoaError: No backend that may be recorded was measured.
        InputError: The file cannot be written.
    """
    fastest = fastest_backend(p50_ms, psnr_db)
    if fastest is None:
        raise TcmoaError(f"no backend to pick; expected measurements of {', '.join(PICKABLE)}")
    machine = machine_id()
    entry = {
        "graph": graph_key(bundle),
        "machine": machine,
        "backend": fastest,
        "p50_ms": dict(p50_ms),
        "psnr_db": dict(psnr_db),
    }
    try:
        path = open_user_folder("cache", _PICK_FOLDER, create=True) / _pick_name(bundle, machine)
        write_private_file(path, (json.dumps(entry, indent=1) + "\n").encode())
    except OSError as error:
        raise InputError(f"cannot be written: {error.strerror}", subject=error.filename) from error
    return path


def read_pick(bundle: Bundle) -> BackendName | None:
    """Return the backend that is recorded for this graph on this machine, None if there is none."""
    machine = machine_id()
    try:
        path = open_user_folder("cache", _PICK_FOLDER) / _pick_name(bundle, machine)
        entry = json.loads(read_regular_file(path, max_bytes=MAX_SMALL_BYTES))
        is_valid = entry["graph"] == graph_key(bundle) and entry["machine"] == machine
        backend = entry["backend"]
        compared = entry.get("psnr_db")
        is_compared = isinstance(compared, dict) and INEXACT in compared
        pickable = (*PICKABLE, INEXACT) if is_compared else PICKABLE
    except UnsafeFolderError as error:
        warnings.warn(
            f"{error.filename}: {error.strerror}; picks in it are not used", RuntimeWarning, stacklevel=4
        )
        return None
    except (OSError, ValueError, RecursionError, TypeError, KeyError):
        return None
    return next((name for name in pickable if name == backend), None) if is_valid else None


def _pick_name(bundle: Bundle, machine: JsonObject) -> str:
    return f"{cache_key(graph_key(bundle), json.dumps(machine, sort_keys=True))}.json"


def _has_onnxruntime_gpu() -> bool:
    """Return whether ONNX Runtime comes with CUDA, found without importing it: its users want their GPU."""
    spec = find_spec("onnxruntime")
    folders = (spec.submodule_search_locations if spec is not None else None) or ()
    return any(True for folder in folders for _ in Path(folder, "capi").glob("*onnxruntime_providers_cuda*"))


def _load_onnxruntime(bundle: Bundle, threads: int | None, backend: BackendName = "onnxruntime") -> Backend:
    _import_library("onnxruntime", "pip install onnxruntime", backend)
    from tcmoa_runtime.backends.onnxruntime import OnnxRuntimeBackend

    return OnnxRuntimeBackend(bundle, threads=threads, backend=backend)


def _load_openvino(
    bundle: Bundle, threads: int | None, backend: BackendName = "openvino", *, use_cache: bool = True
) -> Backend:
    _import_library("openvino", install_command("openvino"), backend)
    from tcmoa_runtime.backends.openvino import OpenVinoBackend

    return OpenVinoBackend(bundle, threads=threads, backend=backend, use_cache=use_cache)


def _load_tensorrt(bundle: Bundle, trust_engines: bool) -> Backend:
    from tcmoa_runtime.backends.tensorrt.backend import TensorRTBackend

    return TensorRTBackend(bundle, trust_engines=trust_engines)


def _import_library(package: str, command: str, backend: BackendName) -> None:
    try:
        with without_openvino_telemetry():
            importlib.import_module(package)
    except Exception as error:  # a native library that does not fit the system raises more than ImportError
        raise MissingError(
            f"the package {package} cannot be imported ({first_line(error)})",
            subject=f"backend {backend}",
            remedy=f"Run `{command}`",
        ) from error


_LOADERS: Final[Mapping[BackendName, Callable[[Bundle, int | None], Backend]]] = {
    "onnxruntime": _load_onnxruntime,
    "onnxruntime-cuda": partial(_load_onnxruntime, backend="onnxruntime-cuda"),
    "onnxruntime-tensorrt": partial(_load_onnxruntime, backend="onnxruntime-tensorrt"),
    "onnxruntime-rtx": partial(_load_onnxruntime, backend="onnxruntime-rtx"),
    "openvino": _load_openvino,
    "openvino-bf16": partial(_load_openvino, backend="openvino-bf16"),
}
