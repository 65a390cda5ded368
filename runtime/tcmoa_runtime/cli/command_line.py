"""The command line that runs, for messages that say what to run next."""

from __future__ import annotations

import shlex
from collections.abc import Sequence
from contextvars import ContextVar
from typing import Final

from tcmoa_runtime.cli.options import flag_of

_arguments: Final[ContextVar[tuple[str, ...]]] = ContextVar("arguments", default=())


def set_arguments(arguments: Sequence[str]) -> None:
    """Record the arguments after `tcmoa`."""
    _arguments.set(tuple(arguments))


def repeat_command(**options: str) -> str:
    """Return the command line with other values for some options, quoted for a shell."""
    flags = {flag_of(name): value for name, value in options.items()}
    kept: list[str] = []
    arguments = iter(_arguments.get())
    for argument in arguments:
        if argument in flags:
            next(arguments, None)
        elif argument.partition("=")[0] not in flags:
            kept.append(argument)
    changed = [part for flag, value in flags.items() for part in (flag, value)]
    return shlex.join(["tcmoa", *kept, *changed])
