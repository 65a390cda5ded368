"""The timings that TensorRT measures while it builds, kept in the user's cache folder for the next build."""

from __future__ import annotations

import warnings
from typing import Final

from tcmoa_export.engines.plan import BuildPlan
from tcmoa_runtime.backends.compile_cache import cache_key
from tcmoa_runtime.regular_file import read_regular_file
from tcmoa_runtime.user_folders import open_user_folder, write_private_file

_FOLDER: Final = "timings"
_MAX_BYTES: Final = 1 << 30


class TimingCache:
    """A private file of timings for one library and one kind of GPU.

    Args:
        plan: The build.
    """

    def __init__(self, plan: BuildPlan) -> None:
        gpu = ("", "") if plan.gpu is None else (plan.gpu.name, plan.gpu.compute_capability)
        self._name = f"{plan.options.flavor}-{cache_key(plan.version, *gpu)}.timing_cache"

    def read(self) -> bytes:
        """Return the timings; empty, after a warning, if the file cannot be used."""
        try:
            return read_regular_file(open_user_folder("cache", _FOLDER) / self._name, max_bytes=_MAX_BYTES)
        except FileNotFoundError:
            return b""
        except OSError as error:
            _warn(f"{error.filename}: {error.strerror}; kernels are timed again")
            return b""

    def write(self, data: bytes) -> None:
        """Replace the timings; a failure is a warning."""
        try:
            write_private_file(open_user_folder("cache", _FOLDER, create=True) / self._name, data)
        except OSError as error:
            _warn(f"{error.filename}: {error.strerror}; the next build times kernels again")


def _warn(text: str) -> None:
    warnings.warn(text, RuntimeWarning, stacklevel=4)
