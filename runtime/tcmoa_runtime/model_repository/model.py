"""A model of Triton's python backend, written by `tcmoa repository`: it fuses with the bundle beside this file.

Inputs, outputs and parameters are in ../config.pbtxt. What the model does is in the package tcmoa, which must be
installed in the Python that Triton runs; the bundle is checked when the model is loaded.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any


class TritonPythonModel:
    """The class that Triton looks for."""

    def initialize(self, args: dict[str, str]) -> None:
        """Load the bundle; Triton reports the one line of an error as the reason why the model is not ready."""
        import triton_python_backend_utils as triton  # type: ignore[import-not-found]  # exists in Triton only

        try:
            from tcmoa_runtime.model_repository.python_model import PythonModel
        except ImportError as error:
            raise triton.TritonModelException(_describe(error)) from None
        self._model = PythonModel(Path(__file__).parent / "bundle", args, triton)

    def execute(self, requests: list[Any]) -> list[Any]:
        """Answer each request."""
        return self._model.execute(requests)

    def finalize(self) -> None:
        """Free the bundle."""
        self._model.close()


def _describe(error: ImportError) -> str:
    """Say in one line what Triton's Python lacks."""
    python = f"Python {sys.version_info[0]}.{sys.version_info[1]} of this Triton ({sys.prefix})"
    if sys.version_info < (3, 11):  # noqa: UP036  # Triton's Python, not the one that wrote this file
        return f"{python}: too old for tcmoa; expected 3.11 or newer. Use Triton 24.12 or newer."
    command = f"Install it there: {sys.prefix}/bin/python3 -m pip install tcmoa"
    package = (error.name or "").split(".")[0]
    if package == "tcmoa_runtime":
        problem = (
            "is not installed" if error.name == package else "is older than the one that wrote this model"
        )
        return f"tcmoa {problem}, in {python}; expected the package there. {command}"
    return f"tcmoa cannot be imported ({error}), in {python}; expected a whole installation. {command}"
