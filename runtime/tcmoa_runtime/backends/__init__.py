"""What runs a bundle's graph. One backend is one file; all keep the same small contract."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final, Protocol

import numpy as np
from numpy.typing import NDArray

from tcmoa_runtime.bundle import Bundle
from tcmoa_runtime.contract import TensorSpec
from tcmoa_runtime.errors import InputError, MissingError

Tensors = Mapping[str, NDArray[Any]]

BACKENDS: Final = ("onnxruntime",)
"""Names that `load_backend` takes besides `auto`."""


class Backend(Protocol):
    """Runs one graph: checked contract tensors in, contract tensors out.

    `infer` takes the inputs by name, C-contiguous and exactly as the contract says, and gives new arrays. It
    may be called from several threads. `close` frees what is held; calls after it raise.
    """

    @property
    def name(self) -> str:
        """Name and device, as `onnxruntime (CPU)`."""
        ...

    def infer(self, inputs: Tensors) -> dict[str, NDArray[Any]]:
        """Run the graph once."""
        ...

    def close(self) -> None:
        """Free the session."""
        ...


def load_backend(bundle: Bundle, name: str = "auto", *, threads: int | None = None) -> Backend:
    """Check the bundle's graph and load it. `auto` takes the fastest backend that is installed.

    `threads`: CPU threads, all cores when None. Raises InputError on an unknown name, MissingError when its
    package is not installed, BundleError when the graph does not match the bundle.
    """
    if threads is not None and threads < 1:
        raise InputError(f"threads is {threads}: expected 1 or more")
    if name not in ("auto", *BACKENDS):
        raise InputError(f"backend is {name!r}: expected auto or {', '.join(BACKENDS)}")
    try:
        from tcmoa_runtime.backends.onnxruntime import OnnxRuntimeBackend
    except ImportError as error:
        raise MissingError(
            f"onnxruntime cannot be imported ({error}); run `pip install onnxruntime`"
        ) from error
    return OnnxRuntimeBackend(bundle, threads=threads)


def check_inputs(specs: tuple[TensorSpec, ...], inputs: Tensors) -> None:
    """Raise InputError on a missing, surplus, misshapen or mistyped tensor."""
    names = {spec.name for spec in specs}
    if inputs.keys() != names:
        raise InputError(f"inputs are {sorted(inputs)}: expected {sorted(names)}")
    for spec in specs:
        array = inputs[spec.name]
        if array.dtype != np.dtype(spec.dtype) or array.shape != spec.shape:
            raise InputError(
                f"{spec.name} is {array.dtype} {list(array.shape)}: expected {spec.dtype} {list(spec.shape)}"
            )
