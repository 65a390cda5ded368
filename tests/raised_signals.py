"""Signals in the process of a test, which a real one ends if Python does not handle it."""

import _thread
import ctypes
import signal
import threading

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


def interrupt(number):
    """Let the main thread run Python's handler of a signal; one of the system could end the process."""
    assert callable(signal.getsignal(number)), f"{number.name}: {signal.getsignal(number)}"
    _thread.interrupt_main(number)


def raise_handled(number):
    """Let this thread handle a signal as if it had come, after checking that the system would give it to Python."""
    handler, native = signal.getsignal(number), native_handler(number)
    blocked = signal.pthread_sigmask(signal.SIG_BLOCK, ())
    assert callable(handler), f"{number.name}: {handler}"
    assert native == python_handler(), f"{number.name}: a handler of {library_of(native) if native else None}"
    assert number not in blocked, f"{number.name} is blocked"
    assert threading.current_thread() is threading.main_thread(), threading.current_thread()
    interrupt(number)
