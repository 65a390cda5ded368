"""The `tcmoa` command: one file per command, and here what they share.

Exit codes: 0 done, 2 the user's input is wrong, 3 a needed package or device is missing, 1 a fault of ours,
130 interrupted. Errors are one line on stderr; results for machines are one JSON object on stdout.
"""

from __future__ import annotations

import contextlib
import os
import sys
import warnings
from collections.abc import Sequence
from importlib import import_module
from types import MappingProxyType
from typing import Any, Final

import typer

from tcmoa_runtime.cli.options import spell_for_command_line
from tcmoa_runtime.cli.version import print_version
from tcmoa_runtime.errors import TcmoaError

DEBUG = "TCMOA_DEBUG"
"""Environment variable that turns one-line faults into tracebacks."""

_INTERRUPTED = 130

_COMMANDS: Final = MappingProxyType(
    {
        "demo": "demo",
        "export": "export",
        "build": "build",
        "fuse": "fuse",
        "stream": "stream",
        "bench": "bench",
        "evaluate": "evaluate",
        "inspect": "inspect",
        "doctor": "doctor",
        "train": "train",
        "calibrate": "calibrate",
    }
)
"""Commands in the order of the help, and the module of this package that each is in."""


def _app(arguments: Sequence[str]) -> typer.Typer:
    """The command line; of the commands only the one that is asked for, as the others' imports would delay it."""
    app = typer.Typer(
        name="tcmoa",
        help="TC-MoA image fusion: export a trained model for one task and frame size, and fuse frames with it.",
        add_completion=False,
        pretty_exceptions_enable=False,
        rich_markup_mode=None,
        callback=print_version,
    )
    asked = arguments[:1] if arguments and arguments[0] in _COMMANDS else _COMMANDS
    for name in asked:
        module = import_module(f"{__name__}.{_COMMANDS[name]}")
        if name == "calibrate":
            app.add_typer(module.app)
        else:
            app.command(name)(getattr(module, name))
    return app


def _say(line: str) -> None:
    print(f"tcmoa: {line}", file=sys.stderr)


def _show_warning(message: Warning | str, *_: Any) -> None:
    _say(f"note: {message}")


def run(arguments: Sequence[str]) -> int:
    """Run the command line and return its exit code; nothing but KeyboardInterrupt in a debugger escapes."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("default", UserWarning)
            warnings.showwarning = _show_warning  # type: ignore[assignment]
            app = _app(arguments)
            result = app(args=list(arguments) or ["--help"], prog_name="tcmoa", standalone_mode=False)
        if result == _INTERRUPTED:  # newer typer catches KeyboardInterrupt itself
            _say("interrupted")
        return result if isinstance(result, int) else 0
    except TcmoaError as error:
        _say(f"error: {_one_line(error.render(spell_for_command_line))}")
        return error.exit_code
    except (KeyboardInterrupt, typer.Abort):
        _say("interrupted")
        return _INTERRUPTED
    except Exception as error:
        format_message = getattr(error, "format_message", None)
        if callable(format_message):  # a usage error of typer or of the click inside it
            name = getattr(getattr(error, "ctx", None), "command_path", "tcmoa")
            _say(f"error: {_one_line(format_message()).rstrip('.')}; see `{name} --help`")
            return 2
        if os.environ.get(DEBUG):
            raise
        if isinstance(error, OSError) and error.filename is not None:
            # A path that is too long, or in a folder that we may not look into.
            _say(f"error: {error.filename}: {error.strerror}")
            return 2
        _say(
            f"fault: {type(error).__name__}: {_one_line(error)}; please report it, "
            f"with what {DEBUG}=1 adds to this line"
        )
        return 1


def _one_line(text: object) -> str:
    return " ".join(str(text).split())


def _keep_stderr_to_ourselves() -> None:
    """Silence native code: libpng, libtiff and OpenCV write lines of their own about images they cannot read.

    `TCMOA_DEBUG=1` leaves their lines in place.
    """
    with contextlib.suppress(OSError):  # where stderr is closed there is nothing to keep
        ours = os.fdopen(os.dup(2), "w", buffering=1, encoding="utf-8", errors="backslashreplace")
        nowhere = os.open(os.devnull, os.O_WRONLY)
        os.dup2(nowhere, 2)
        os.close(nowhere)
        sys.stderr = ours


def main() -> None:
    """Entry point of the `tcmoa` command."""
    if not os.environ.get(DEBUG):
        _keep_stderr_to_ourselves()
    sys.exit(run(sys.argv[1:]))
