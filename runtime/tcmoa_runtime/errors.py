"""What can go wrong, as one small tree.

    TcmoaError                    exit 1   a fault of ours
    ├── InputError (ValueError)   exit 2   the user's input is wrong
    │   └── BundleError           exit 2   a bundle that must not be loaded
    ├── MissingError (ImportError) exit 3  a needed package or device is missing
    └── MemoryShortageError       exit 3   a device has less memory than is needed

Every message is one line: what arrived, what was expected, what to do.
"""

from __future__ import annotations


class TcmoaError(Exception):
    """Base of all errors raised on purpose; `exit_code` is what the command line ends with."""

    exit_code = 1


class InputError(TcmoaError, ValueError):
    """The caller's input is wrong: a file, a frame, a prompt, an option."""

    exit_code = 2


class BundleError(InputError):
    """A bundle is damaged, foreign, too new or not what its description says; it was not loaded."""


class MissingError(TcmoaError, ImportError):
    """A package or device that this call needs is not there."""

    exit_code = 3


class MemoryShortageError(TcmoaError):
    """A device has less free memory than is needed. No MissingError: no other backend is tried in silence."""

    exit_code = 3
