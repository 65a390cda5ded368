"""Handles of CUDA streams that other libraries own."""

from __future__ import annotations

from typing import Final

from tcmoa_runtime.errors import InputError
from tcmoa_runtime.typing import StreamLike

_ATTRIBUTES: Final = ("handle", "ptr", "cuda_stream", "cudaPtr")
"""Where PyCUDA, CuPy, PyTorch and OpenCV keep the handle; newer versions have `__cuda_stream__` too."""


def stream_handle(stream: StreamLike) -> int:
    """Return the handle of a CUDA stream.

    Args:
        stream: The handle as a number, or a stream of another library: an object with `__cuda_stream__` (cuda.core,
            PyTorch, CuPy, Numba), or one of PyCUDA, OpenCV, or an older PyTorch or CuPy.

    Raises:
        InputError: It is neither.
    """
    handle: object = stream
    if hasattr(stream, "__cuda_stream__"):
        handle = stream.__cuda_stream__()[1]
    elif not isinstance(stream, int):
        found = [getattr(stream, name) for name in _ATTRIBUTES if hasattr(stream, name)]
        handle = found[0] if found else None
        handle = handle() if callable(handle) else handle
    if isinstance(handle, bool) or not isinstance(handle, int) or handle < 0:
        raise InputError(
            f"{stream!r}; expected a CUDA stream: its handle, or an object with __cuda_stream__",
            subject="stream",
        )
    return handle
