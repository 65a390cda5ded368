"""Numbers too small for float32's normal range cost a CPU a hundred cycles each; here they are zeros.

A softmax makes them of keys that are far from their query: real pairs hardly any, heavy noise (a camera without
signal) so many that a frame of `tiny` took 1.7 times as long in ONNX Runtime. As zeros they change no grey level.
"""

from __future__ import annotations

import ctypes
import platform
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Final

_FLUSH: Final = 0x8040
"""Bits of x86's MXCSR: results to zero (FTZ), operands as zero (DAZ)."""
_MXCSR: Final = 28
"""Its offset in glibc's fenv_t on x86-64."""
_ROOM: Final = 256
"""Bytes that hold fenv_t anywhere."""


def _functions() -> tuple[Callable[..., int], Callable[..., int]] | None:
    """C's fegetenv and fesetenv, where fenv_t is known to hold MXCSR."""
    if not (sys.platform == "linux" and platform.machine() == "x86_64" and platform.libc_ver()[0] == "glibc"):
        return None
    try:
        library = ctypes.CDLL("libm.so.6")
        functions = library.fegetenv, library.fesetenv
    except (OSError, AttributeError):
        return None
    return functions


_found: Final = _functions()


@contextmanager
def flushed_denormals() -> Iterator[None]:
    """This thread computes with zeros for denormal numbers inside the with-block, and as before behind it.

    Its state is put back whatever happens inside: ONNX Runtime leaves the thread that makes a process's first session
    flushing for good, and NumPy then warns of it. Does nothing but on x86-64 Linux with glibc.
    """
    if _found is None:
        yield
        return
    get, put = _found
    before = ctypes.create_string_buffer(_ROOM)
    if get(before) != 0:
        yield
        return
    inside = ctypes.create_string_buffer(before.raw, _ROOM)
    mxcsr = ctypes.c_uint32.from_buffer(inside, _MXCSR)
    mxcsr.value |= _FLUSH
    put(inside)
    try:
        yield
    finally:
        put(before)
