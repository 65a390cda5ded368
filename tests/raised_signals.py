"""Signals in the process of a test, which a signal ends where Python cannot handle it."""

import ctypes
import signal
import threading
from pathlib import Path

from tcmoa_runtime import stop_signals


class _Symbol(ctypes.Structure):
    """`Dl_info` of dladdr(3)."""

    _fields_ = (
        ("file", ctypes.c_char_p),
        ("base", ctypes.c_void_p),
        ("name", ctypes.c_char_p),
        ("address", ctypes.c_void_p),
    )


def native_handler(number):
    """Return the address of the handler that the system calls for a signal; 0 and None are its default."""
    return ctypes.cast(stop_signals._read_action(number), ctypes.POINTER(ctypes.c_void_p))[0]


def library_of(address):
    """Return the file of the library that an address is in; None if it is in none."""
    symbol = _Symbol()
    found = ctypes.CDLL(None).dladdr(ctypes.c_void_p(address), ctypes.byref(symbol))
    return symbol.file.decode() if found else None


def python_handler():
    """Return the address of the handler with which Python takes every signal that it handles."""
    with stop_signals.kept_handlers([signal.SIGUSR2]):
        signal.signal(signal.SIGUSR2, lambda _number, _frame: None)
        return native_handler(signal.SIGUSR2)


class _Stack(ctypes.Structure):
    """`stack_t` of sigaltstack(2)."""

    _fields_ = (("start", ctypes.c_void_p), ("flags", ctypes.c_int), ("size", ctypes.c_size_t))


def has_signal_stack():
    """Whether Python's handlers can run in this thread: the stack that a library has given them, if any, is memory."""
    stack = _Stack()
    ctypes.CDLL(None).sigaltstack(None, ctypes.byref(stack))
    if not stack.start:
        return True  # they run on the thread's own stack
    ranges = (line.split()[0].split("-") for line in Path("/proc/self/maps").read_text().splitlines())
    return any(int(start, 16) <= stack.start < int(end, 16) for start, end in ranges)


def raise_handled(number):
    """Raise a signal in this thread, after checking that Python would handle it."""
    handler, native = signal.getsignal(number), native_handler(number)
    blocked = signal.pthread_sigmask(signal.SIG_BLOCK, ())
    assert callable(handler), f"{number.name}: {handler}"
    assert native == python_handler(), f"{number.name}: a handler of {library_of(native) if native else None}"
    assert number not in blocked, f"{number.name} is blocked"
    assert threading.current_thread() is threading.main_thread(), threading.current_thread()
    assert has_signal_stack(), f"{number.name}: the stack of its handler was unmapped"
    signal.raise_signal(number)
