"""Signals that a test raises in its own process, which ends it if nothing handles them."""

import ctypes
import signal
import threading

from tcmoa_runtime import stop_signals


def native_handler(number):
    """Return the address of the handler that the system calls for a signal; 0 and None are its default."""
    return ctypes.cast(stop_signals._read_action(number), ctypes.POINTER(ctypes.c_void_p))[0]


def raise_handled(number):
    """Raise a signal in this process if Python handles it, because others end the process."""
    handler = signal.getsignal(number)
    is_set = (
        callable(handler) and native_handler(number) and threading.current_thread() is threading.main_thread()
    )
    assert is_set, (
        f"{number.name} has no handler: {handler}, {native_handler(number)}, {threading.current_thread()}"
    )
    signal.raise_signal(number)
