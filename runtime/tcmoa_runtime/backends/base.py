"""What every backend offers, and checks of what it is given."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Protocol, runtime_checkable

import numpy as np
from numpy.typing import NDArray

from tcmoa_runtime.contract import TensorSpec
from tcmoa_runtime.errors import InputError
from tcmoa_runtime.gpu.device_arrays import DeviceArray

Tensors = Mapping[str, NDArray[Any]]


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


@runtime_checkable
class DeviceBackend(Backend, Protocol):
    """A backend that takes frames on a GPU, too, and leaves results there."""

    def infer_device(self, inputs: Mapping[str, Any], stream: int | None = None) -> dict[str, DeviceArray]:
        """Run the graph once; results stay on the GPU, ordered after the work of `stream`."""
        ...


def check_inputs(specs: tuple[TensorSpec, ...], inputs: Tensors) -> None:
    """Raise InputError on a missing, surplus, misshapen or mistyped tensor."""
    check_names(specs, inputs)
    for spec in specs:
        check_array(spec, inputs[spec.name])


def check_names(specs: tuple[TensorSpec, ...], inputs: Mapping[str, Any]) -> None:
    """Raise InputError on a missing or surplus tensor."""
    names = {spec.name for spec in specs}
    if inputs.keys() != names:
        raise InputError(f"inputs are {sorted(inputs)}: expected {sorted(names)}")


def check_array(spec: TensorSpec, array: NDArray[Any]) -> None:
    """Raise InputError on a misshapen or mistyped array."""
    if array.dtype != np.dtype(spec.dtype) or array.shape != spec.shape:
        raise InputError(
            f"{spec.name} is {array.dtype} {list(array.shape)}: expected {spec.dtype} {list(spec.shape)}"
        )
