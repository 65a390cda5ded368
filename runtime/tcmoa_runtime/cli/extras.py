"""Importing modules whose dependencies are in an extra."""

from __future__ import annotations

import importlib
from types import ModuleType
from typing import Final

from tcmoa_runtime.errors import MissingError
from tcmoa_runtime.install import install_hint

_PROJECT_PACKAGES: Final = ("tcmoa", "tcmoa_export", "tcmoa_runtime", "tcmoa_calibration")


def require(module: str, command: str, extra: str) -> ModuleType:
    """Import a module of this project that needs an extra.

    Args:
        module: Full name of the module.
        command: The command that needs it, for the message.
        extra: The extra with the dependencies of the module.

    Raises:
        MissingError: A package of the extra is not installed.
    """
    try:
        return importlib.import_module(module)
    except ImportError as error:
        if error.name is None or error.name.split(".")[0] in _PROJECT_PACKAGES:
            raise
        raise MissingError(
            f"the package {error.name} is not installed",
            subject=f"tcmoa {command}",
            remedy=install_hint(extra),
        ) from error
