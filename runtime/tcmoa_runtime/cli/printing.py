"""What the command line prints: lines of results on stdout, messages on stderr.

Names of files, labels and texts of manifests come from elsewhere and may hold anything: escape sequences that rewrite
the terminal, characters that reverse the direction of text, bytes that are not UTF-8. They are shown escaped.
"""

from __future__ import annotations

import contextlib
import json
import os
import re
import sys
from collections.abc import Iterator, Mapping
from types import MappingProxyType
from typing import Final, Literal, TypeAlias

from rich.console import Console

from tcmoa_runtime.errors import InputError
from tcmoa_runtime.location import redact_text
from tcmoa_runtime.log import ROOT
from tcmoa_runtime.log_output import LogFormat, LogLevel, json_line

MessageKind: TypeAlias = LogLevel | Literal["note", "internal error"] | None
_LEVELS: Final[Mapping[MessageKind, LogLevel]] = {
    None: "info",
    "debug": "debug",
    "info": "info",
    "note": "warning",
    "warning": "warning",
    "error": "error",
    "internal error": "error",
}

console = Console(stderr=True, highlight=False, emoji=False)

_UNPRINTABLE: Final = re.compile(
    "["
    "\x00-\x08\x0a-\x1f\x7f"  # C0 but the tab, DEL
    "\x80-\x9f"  # C1: one of them starts an escape sequence
    "\u200e\u200f\u061c\u202a-\u202e\u2066-\u2069"  # direction of text
    "\u2028\u2029"  # separators of lines and paragraphs
    "\ud800-\udfff"  # bytes of file names that are not UTF-8
    "]"
)


class ClosedPipeError(Exception):
    """The program that reads stdout has ended, e.g. `head`."""


def printable(text: object) -> str:
    r"""Return a text with its control characters escaped, e.g. `\x1b[2J`."""
    return _UNPRINTABLE.sub(_escape, str(text))


def _escape(match: re.Match[str]) -> str:
    code = ord(match[0])
    return {0x0A: "\\n", 0x0D: "\\r"}.get(code) or (f"\\x{code:02x}" if code < 0x100 else f"\\u{code:04x}")


def one_line(text: object) -> str:
    """Return a text as one line, with every run of white space as one space."""
    return printable(" ".join(str(text).split()))


def print_line(text: object = "") -> None:
    """Print a line of a result on stdout.

    Raises:
        InputError: Stdout cannot be written, e.g. because the disk is full.
        ClosedPipeError: Its reader has closed it.
    """
    with _written():
        print(printable(text))


def print_json(value: Mapping[str, object]) -> None:
    """Print one JSON object on stdout; raises like `print_line`."""
    with _written():
        print(json.dumps(value, allow_nan=False))


_format: LogFormat = "text"
"""Form of all that is printed on stderr."""


@contextlib.contextmanager
def formatted_messages(message_format: LogFormat) -> Iterator[None]:
    """Print messages as text or as JSON during a with-block."""
    global _format
    before, _format = _format, message_format
    try:
        yield
    finally:
        _format = before


def is_interactive() -> bool:
    """Return whether stderr is a terminal on which lines may change."""
    return console.is_terminal and _format == "text"


def hides_secrets() -> bool:
    """Return whether messages hide the secrets of URLs, as lines of JSON do: programs keep them."""
    return _format == "json"


def print_message(text: object) -> None:
    """Print a line on stderr, above a progress bar if there is one."""
    with contextlib.suppress(OSError):  # the terminal may be closed
        if _format == "json":
            _write_json("info", str(text))
        else:
            console.print(printable(text), markup=False, soft_wrap=True)


def print_report(
    kind: MessageKind,
    text: object,
    fields: Mapping[str, object] = MappingProxyType({}),
    *,
    logger: str = ROOT.name,
) -> None:
    """Print an error, a warning, a note or a record on stderr, e.g. `tcmoa: error: ...`; secrets of URLs are hidden.

    As JSON it has the level of its kind, e.g. `warning` for a note, and `fields`.
    """
    with contextlib.suppress(OSError):  # the terminal may be closed
        if _format == "json":
            _write_json(_LEVELS[kind], one_line(text), fields, logger=logger)
        else:
            label = "" if kind is None else f"{kind}: "
            print(f"tcmoa: {label}{one_line(redact_text(str(text)))}", file=sys.stderr)


def _write_json(
    level: LogLevel,
    text: str,
    fields: Mapping[str, object] = MappingProxyType({}),
    *,
    logger: str = ROOT.name,
) -> None:
    sys.stderr.write(f"{json_line(level, text, fields, logger=logger)}\n")


def flush_output() -> None:
    """Write what is buffered for stdout; raises like `print_line`."""
    with _written():
        sys.stdout.flush()


@contextlib.contextmanager
def _written() -> Iterator[None]:
    try:
        yield
    except BrokenPipeError:
        _discard_output()
        raise ClosedPipeError from None
    except OSError as error:
        _discard_output()
        raise InputError(f"cannot be written: {error.strerror}", subject="standard output") from error


def _discard_output() -> None:
    """Send stdout to the null device: Python would report the same error again at exit."""
    with contextlib.suppress(OSError, ValueError):  # not a file, e.g. in tests
        null = os.open(os.devnull, os.O_WRONLY)
        os.dup2(null, sys.stdout.fileno())
        os.close(null)
