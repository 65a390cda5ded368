"""Shared libraries of ONNX Runtime's GPU providers: loading them from Python packages, and naming one that is missing.

ONNX Runtime raises a sentence that names no library. What the dynamic linker says is in its log only.
"""

from __future__ import annotations

import contextlib
import ctypes
import importlib
import importlib.util
import io
import os
import sys
from pathlib import Path
from typing import Final

import onnxruntime as ort

from tcmoa_runtime.backends.provider_errors import missing_library_in

_SHARED: Final = "libonnxruntime_providers_shared.so"
"""Defines symbols that the providers use; ONNX Runtime loads it first, too."""


def preload_cuda() -> None:
    """Load CUDA's libraries from Python packages; one that is not found is no error, the provider does not start."""
    with (
        contextlib.redirect_stdout(io.StringIO()),
        contextlib.suppress(Exception),
    ):  # it prints what it does not find
        ort.preload_dlls()  # since ONNX Runtime 1.21


def preload_tensorrt() -> None:
    """Load TensorRT's libraries by importing its Python package, which does so; errors are ignored as above."""
    with contextlib.redirect_stdout(io.StringIO()), contextlib.suppress(Exception):
        importlib.import_module("tensorrt")


def preload_bundled_cudart(module: str) -> None:
    """Load the CUDA runtime that a plugin package carries, which the package does not load itself.

    Libraries of the package need it by its soname, e.g. `libcudart.so.13`. The dynamic linker takes a library that is
    loaded, and searches the folders of the system otherwise, where it is only with a CUDA toolkit.

    Args:
        module: Name of the package's module, which is not imported here.
    """
    for folder in _folders_of(module):
        for path in sorted(Path(folder).glob("libcudart.so.*")):
            soname = ".".join(path.name.split(".")[:3])
            with contextlib.suppress(OSError):
                ctypes.CDLL(soname, mode=os.RTLD_NOLOAD | os.RTLD_NOW)  # e.g. PyTorch has loaded it
                continue
            with contextlib.suppress(OSError):  # what needs it names it
                ctypes.CDLL(os.fspath(path), mode=os.RTLD_GLOBAL | os.RTLD_NOW)


def _folders_of(module: str) -> list[str]:
    """Return the folders of a package, without importing it."""
    if module in sys.modules:
        return list(getattr(sys.modules[module], "__path__", ()))
    spec = importlib.util.find_spec(module)
    return list((spec.submodule_search_locations if spec is not None else None) or ())


def missing_library(provider: str) -> str | None:
    """Return the first shared library that a provider of ONNX Runtime needs and the dynamic linker does not find.

    Args:
        provider: The provider as in its file name, e.g. `tensorrt`.

    Returns:
        The library's name, e.g. `libnvinfer.so.10`; None if nothing is missing, or something else is wrong.
    """
    folder = Path(ort.__file__).parent / "capi"
    path = folder / f"libonnxruntime_providers_{provider}.so"
    if path.is_file():
        try:
            ctypes.CDLL(os.fspath(folder / _SHARED), mode=os.RTLD_GLOBAL | os.RTLD_NOW)
            ctypes.CDLL(os.fspath(path), mode=os.RTLD_NOW)
        except OSError as error:
            return missing_library_in(str(error)) or None
    return None
