"""libtcmoa through ctypes: the part of `tcmoa.h` that is needed to compare it with the Python runtime."""

from __future__ import annotations

import ctypes
import os
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from tcmoa_runtime import TcmoaError

LIBRARY = Path(
    os.environ.get("TCMOA_LIBRARY", Path(__file__).resolve().parents[1] / "build" / "cpp" / "libtcmoa.so")
)
RGB8, BGR8, GRAY8, GRAY16 = 0, 1, 4, 5
FITS = ("exact", "resize", "pad", "tile", "auto")
"""Names of `tcmoa_fit`, in its order."""


class Frame(ctypes.Structure):
    """`tcmoa_frame`."""

    _fields_ = [
        *((name, ctypes.c_int32) for name in ("format", "memory", "width", "height", "matrix", "reserved0")),
        ("planes", ctypes.c_void_p * 3),
        ("strides", ctypes.c_size_t * 3),
        ("cuda_stream", ctypes.c_void_p),
        ("reserved", ctypes.c_uint64 * 4),
    ]


class Options(ctypes.Structure):
    """`tcmoa_options`."""

    _fields_ = [
        ("struct_size", ctypes.c_size_t),
        ("backend", ctypes.c_char_p),
        ("threads", ctypes.c_int32),
        ("slots", ctypes.c_int32),
        ("stretch_low", ctypes.c_double),
        ("stretch_high", ctypes.c_double),
        ("cuda_device", ctypes.c_int32),
        ("cuda_graph", ctypes.c_int32),
        ("fit", ctypes.c_int32),
        ("trust_engines", ctypes.c_int32),
        ("reserved", ctypes.c_uint64 * 15),
    ]


class Stats(ctypes.Structure):
    """`tcmoa_stats`."""

    _fields_ = [
        *((name, ctypes.c_uint64) for name in ("frames", "failed", "discarded", "backend_ns", "convert_ns")),
        ("reserved", ctypes.c_uint64 * 4),
    ]


class CFuser:
    """A handle of libtcmoa; its errors are raised as TcmoaError."""

    def __init__(
        self, bundle: str | os.PathLike[str], backend: str = "openvino", threads: int = 0, fit: str = "exact"
    ) -> None:
        self._library = ctypes.CDLL(str(LIBRARY))
        self._library.tcmoa_error.restype = ctypes.c_size_t
        options = Options()
        self._library.tcmoa_options_default(ctypes.byref(options))
        options.backend, options.threads, options.fit = backend.encode(), threads, FITS.index(fit)
        self._handle = ctypes.c_void_p()
        self._check(
            self._library.tcmoa_open(os.fsencode(bundle), ctypes.byref(options), ctypes.byref(self._handle)),
            None,
        )

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._library.tcmoa_close(ctypes.byref(self._handle))

    def __call__(
        self,
        x: NDArray[Any],
        y: NDArray[Any],
        *,
        scale: float | None = 1.0,
        shift: float = 0.0,
        out: NDArray[np.uint8] | None = None,
    ) -> NDArray[np.uint8]:
        """Fuse two frames.

        Args:
            x: uint8 [H, W, 3] in RGB order, or gray uint8 or uint16 [H, W].
            y: Like `x`.
            scale: alpha of Eq. 8; None sets no prompt.
            shift: beta of Eq. 8.
            out: Array for the result.

        Returns:
            uint8 [H, W, 3] in RGB order; `out` where that is given.
        """
        fused = np.empty((*x.shape[:2], 3), np.uint8) if out is None else out
        if scale is not None:
            self._check(
                self._library.tcmoa_set_prompt(self._handle, ctypes.c_float(scale), ctypes.c_float(shift)),
                self._handle,
            )
        frames = [self._frame(image) for image in (x, y, fused)]
        self._check(self._library.tcmoa_fuse(self._handle, *map(ctypes.byref, frames)), self._handle)
        return fused

    def with_maps(
        self,
        x: NDArray[Any],
        y: NDArray[Any],
        scale: NDArray[np.float32],
        shift: NDArray[np.float32],
        planes: int,
    ) -> tuple[NDArray[np.uint8], NDArray[np.float32]]:
        """Fuse two frames with prompt maps, and return the prompts too.

        Args:
            x: As in `__call__`.
            y: As in `__call__`.
            scale: Map of alpha, [gh, gw] of `grid`.
            shift: Map of beta.
            planes: Number of maps in the prompt output, K * 2.

        Returns:
            uint8 [H, W, 3] in RGB order, and float32 [planes, gh, gw].
        """
        height, width = x.shape[:2]
        scale, shift = np.ascontiguousarray(scale, np.float32), np.ascontiguousarray(shift, np.float32)
        pointers = (ctypes.c_void_p(scale.ctypes.data), ctypes.c_void_p(shift.ctypes.data))
        self._check(
            self._library.tcmoa_set_prompt_maps_for_size(
                self._handle, width, height, *pointers, ctypes.c_size_t(scale.size)
            ),
            self._handle,
        )
        fused, prompts = np.empty((height, width, 3), np.uint8), np.empty((planes, *scale.shape), np.float32)
        frames = [self._frame(image) for image in (x, y, fused)]
        self._check(
            self._library.tcmoa_fuse_with_prompt(
                self._handle,
                *map(ctypes.byref, frames),
                ctypes.c_void_p(prompts.ctypes.data),
                ctypes.c_size_t(prompts.size),
            ),
            self._handle,
        )
        return fused, prompts

    def grid(self, size: tuple[int, int]) -> tuple[int, int]:
        """Return (gh, gw) of prompt maps for frames of `size` (height, width)."""
        width, height = ctypes.c_int32(), ctypes.c_int32()
        self._check(
            self._library.tcmoa_get_grid(
                self._handle, size[1], size[0], ctypes.byref(width), ctypes.byref(height)
            ),
            self._handle,
        )
        return height.value, width.value

    @property
    def stats(self) -> Stats:
        """Counters of the handle."""
        stats = Stats()
        self._check(self._library.tcmoa_get_stats(self._handle, ctypes.byref(stats)), self._handle)
        return stats

    def _frame(self, image: NDArray[Any]) -> Frame:
        kind = RGB8 if image.ndim == 3 else GRAY16 if image.dtype == np.uint16 else GRAY8
        frame = Frame(format=kind, width=image.shape[1], height=image.shape[0])
        frame.planes[0], frame.strides[0] = image.ctypes.data, image.strides[0]
        return frame

    def _check(self, status: int, handle: ctypes.c_void_p | None) -> None:
        if status:
            text = ctypes.create_string_buffer(1024)
            self._library.tcmoa_error(handle, text, ctypes.c_size_t(len(text)))
            raise TcmoaError(text.value.decode())
