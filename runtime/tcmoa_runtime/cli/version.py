"""`tcmoa --version`."""

from __future__ import annotations

from typing import Annotated

import typer

from tcmoa_runtime._version import __version__
from tcmoa_runtime.cli.printing import print_line


def _show(is_given: bool) -> None:
    if is_given:
        print_line(f"tcmoa {__version__}")
        raise typer.Exit


def print_version(
    _: Annotated[
        bool, typer.Option("--version", callback=_show, is_eager=True, help="Print the version and exit.")
    ] = False,
) -> None:
    """Handle the options of `tcmoa` itself."""
