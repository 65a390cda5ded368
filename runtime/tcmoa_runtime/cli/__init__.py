"""The `tcmoa` command. Each subcommand is in a separate module; this module selects it and handles errors.

Exit codes: 0 success, 2 the user's input is wrong, 3 a required package or device is missing, 1 an internal error,
130 interrupted by Ctrl-C, 143 by SIGTERM, 129 by SIGHUP, 141 the reader of stdout has ended. Errors are one line on
stderr; results for programs are one JSON object on stdout.
"""

from __future__ import annotations

import contextlib
import copy
import errno
import logging
import os
import sys
import warnings
from collections.abc import Iterator, Sequence
from importlib import import_module
from types import MappingProxyType
from typing import Final

import typer

from tcmoa_runtime.cli.command_line import set_arguments
from tcmoa_runtime.cli.options import help_of, spell_for_command_line
from tcmoa_runtime.cli.printing import (
    ClosedPipeError,
    flush_output,
    formatted_messages,
    one_line,
    print_report,
)
from tcmoa_runtime.cli.version import print_version
from tcmoa_runtime.errors import InputError, TcmoaError
from tcmoa_runtime.log import fields_of
from tcmoa_runtime.log_output import LogLevel, LogSettings, shown_log
from tcmoa_runtime.stop_signals import Interruption, interrupted_by_signals

DEBUG: Final = "TCMOA_DEBUG"
"""Environment variable that shows tracebacks and the messages of native libraries."""

_INTERRUPTED: Final = 130
_CLOSED_PIPE: Final = 141
"""As of a program that SIGPIPE ends."""

_COMMANDS: Final = MappingProxyType(
    {
        "demo": "Fuse",
        "fuse": "Fuse",
        "stream": "Fuse",
        "export": "Make bundles and engines",
        "wrap": "Make bundles and engines",
        "build": "Make bundles and engines",
        "calibrate": "Make bundles and engines",
        "train": "Make bundles and engines",
        "models": "Examine and measure",
        "inspect": "Examine and measure",
        "doctor": "Examine and measure",
        "bench": "Examine and measure",
        "gpu-check": "Examine and measure",
        "evaluate": "Examine and measure",
        "bulk": "Grow past one machine",
        "serve": "Grow past one machine",
        "fleet": "Grow past one machine",
        "repository": "Grow past one machine",
    }
)
"""Commands in the order of the help, and the heading of each. A command's module has its name, with _ for each dash."""


def make_app(arguments: Sequence[str]) -> typer.Typer:
    """Build the command line, with only the command named in `arguments`: importing the others takes time."""
    app = typer.Typer(
        name="tcmoa",
        help="TC-MoA image fusion: export a trained model for one task and frame size, and fuse frames with it.",
        pretty_exceptions_enable=False,
        rich_markup_mode="markdown",
        context_settings={"help_option_names": ["-h", "--help"]},
        callback=print_version,
    )
    names = arguments[:1] if arguments and arguments[0] in _COMMANDS else _COMMANDS
    for name in names:
        module_name = name.replace("-", "_")
        module = import_module(f"{__name__}.{module_name}")
        if name == "calibrate":
            app.add_typer(module.app, rich_help_panel=_COMMANDS[name])
        else:
            command = getattr(module, module_name)
            app.command(name, help=help_of(command), rich_help_panel=_COMMANDS[name])(command)
    return app


class _ReportHandler(logging.Handler):
    """Prints each log record of the library as one line, e.g. `tcmoa: warning: ...`, or as JSON."""

    def emit(self, record: logging.LogRecord) -> None:
        """Print a record; an error among its arguments spells options as flags."""
        shown = copy.copy(record)
        if isinstance(record.args, tuple):
            shown.args = tuple(
                arg.render(spell_for_command_line) if isinstance(arg, TcmoaError) else arg
                for arg in record.args
            )
        fields = dict(fields_of(record))
        if record.exc_info:
            fields["exception"] = logging.Formatter().formatException(record.exc_info)
        print_report(_kind_of(record.levelno), shown.getMessage(), fields, logger=record.name)


def _kind_of(level: int) -> LogLevel:
    names: dict[int, LogLevel] = {logging.DEBUG: "debug", logging.INFO: "info", logging.WARNING: "warning"}
    return names.get(level, "error")


@contextlib.contextmanager
def _shown_messages(settings: LogSettings) -> Iterator[None]:
    """Show warnings and the library's log on stderr."""

    def show_warning(message: Warning | str, *_: object) -> None:
        if settings.level != "error":
            print_report("note", message, logger="py.warnings")

    with shown_log(_ReportHandler(), settings), warnings.catch_warnings():
        warnings.simplefilter("default", UserWarning)
        warnings.showwarning = show_warning  # type: ignore[assignment]  # the documented way to replace it
        yield


def run(arguments: Sequence[str]) -> int:
    """Run the command line.

    Args:
        arguments: The arguments after `tcmoa`.

    Returns:
        The exit code. No exception escapes unless `TCMOA_DEBUG` is set.
    """
    set_arguments(arguments)
    try:
        settings = LogSettings.from_environment()
    except InputError as error:
        print_report("error", error)
        return error.exit_code
    with formatted_messages(settings.format):
        return _run_reported(arguments, settings)


def _check_no_empty(arguments: Sequence[str]) -> None:
    """Refuse empty paths, which would be the current folder, e.g. `-o "$OUT"` without a value of OUT.

    Other options say themselves what they expect in place of an empty value.
    """
    for i, argument in enumerate(arguments):
        before = arguments[i - 1] if i else ""
        if argument == "--out=" or (not argument and before in ("-o", "--out")):
            subject = "--out"
        elif not argument and not before.startswith("-"):
            subject = f"argument {i + 1}"
        else:
            continue
        raise InputError(
            "''; expected a value", subject=subject, remedy="Check whether a shell variable is empty."
        )


def _run_reported(arguments: Sequence[str], settings: LogSettings) -> int:
    """Run the command and report its error, if there is one, in one line."""
    try:
        with _shown_messages(settings), interrupted_by_signals() as interruption:
            _check_no_empty(arguments)
            code = _run_app(arguments, interruption)
            if not interruption.is_raised:
                flush_output()
            return code
    except ClosedPipeError:
        return _CLOSED_PIPE
    except TcmoaError as error:
        remedy = error.render_remedy(spell_for_command_line)
        parts = {"subject": error.subject, "problem": error.problem, "remedy": remedy}
        print_report("error", error.render(spell_for_command_line), parts)
        return error.exit_code
    except Exception as error:
        usage = _usage_error(error)
        if usage is not None:
            print_report("error", usage)
            return 2
        if os.environ.get(DEBUG):
            raise
        if isinstance(error, OSError) and error.filename is not None:
            # A path that is too long, or in a folder without permission.
            print_report("error", f"{error.filename}: {error.strerror}")
            return 2
        if isinstance(error, BrokenPipeError):
            return _CLOSED_PIPE
        if isinstance(error, OSError) and error.errno == errno.ENOSPC:
            print_report("error", f"output cannot be written: {error.strerror}")
            return 2
        message = f"{type(error).__name__}: {one_line(error)}".removesuffix(": ")
        print_report(
            "internal error",
            f"{message}. Please report it with the output of the same command under {DEBUG}=1",
        )
        return 1


def _run_app(arguments: Sequence[str], interruption: Interruption) -> int:
    """Run the command and return its exit code; that of the signal if one interrupted it."""
    try:
        app = make_app(arguments)
        result = app(args=list(arguments) or ["--help"], prog_name="tcmoa", standalone_mode=False)
    except (KeyboardInterrupt, typer.Abort):
        result = _INTERRUPTED
    except Exception:
        if not interruption.is_raised:  # else a follow-up, e.g. of writing to a terminal that was closed
            raise
        result = _INTERRUPTED
    if result == _INTERRUPTED:  # newer versions of typer catch KeyboardInterrupt themselves
        print_report(None, interruption.message)
        return interruption.exit_code
    return result if isinstance(result, int) else 0


def _usage_error(error: Exception) -> str | None:
    """Describe an error that typer raised about the command line; None for other errors."""
    format_message = getattr(error, "format_message", None)
    if not callable(format_message):
        return None
    command = getattr(getattr(error, "ctx", None), "command_path", "tcmoa")
    message = one_line(format_message()).replace("Value error, ", "").rstrip(".")
    if not message:  # a group without a command, whose help was printed
        return f"no command; expected one of those that `{command} --help` lists"
    end = "" if message.endswith("?") else "."
    return f"{message}{end} See `{command} --help`"


def _silence_native_libraries() -> None:
    """Redirect file descriptor 2 to the null device, but keep `sys.stderr`.

    libpng, libtiff and OpenCV print messages about images that they cannot read. `TCMOA_DEBUG=1` shows them.
    """
    with contextlib.suppress(OSError):  # stderr may be closed
        stderr = os.fdopen(os.dup(2), "w", buffering=1, encoding="utf-8", errors="backslashreplace")
        null = os.open(os.devnull, os.O_WRONLY)
        os.dup2(null, 2)
        os.close(null)
        sys.stderr = stderr


def main() -> None:
    """Run the `tcmoa` command and exit."""
    if not os.environ.get(DEBUG):
        _silence_native_libraries()
    code = run(sys.argv[1:])
    if code:
        _discard_unwritable_output()
    sys.exit(code)


def _discard_unwritable_output() -> None:
    """Let the interpreter flush what cannot be written into the null device: its failure would be exit code 120."""
    for file in (sys.stdout, sys.stderr):
        try:
            file.flush()
        except (OSError, ValueError):  # a closed terminal or pipe; a closed file object
            with contextlib.suppress(OSError, ValueError):
                os.dup2(os.open(os.devnull, os.O_WRONLY), file.fileno())
