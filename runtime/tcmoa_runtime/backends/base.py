"""The interface of a backend, and checks that all backends share."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import NotRequired, Protocol, TypeAlias, TypedDict, runtime_checkable

import numpy as np
from numpy.typing import ArrayLike, NDArray

from tcmoa_runtime.bundle import EXPORT_REMEDY, Bundle
from tcmoa_runtime.contract import HELD_EXTREMES, OWN_EXTREMES, PROMPT_SCALE, Contract, TensorSpec
from tcmoa_runtime.errors import BundleError, InputError, TcmoaError
from tcmoa_runtime.gpu.device_arrays import DeviceArray
from tcmoa_runtime.typing import DeviceArrayLike

Tensors: TypeAlias = Mapping[str, NDArray[np.generic]]
"""Inputs of a graph in host memory, by name."""

TensorsLike: TypeAlias = Mapping[str, ArrayLike | DeviceArrayLike]
"""Inputs of a graph in host or GPU memory, by name."""


class Outputs(TypedDict):
    """Outputs of a graph: `fused` uint8 [B, H, W, 3] and, where exported, `prompt` float32 [B, K, 2, gh, gw].

    A network that stretches S pictures by their own minimum and maximum has `extremes` float32 [B, S, 2], too.
    """

    fused: NDArray[np.uint8]
    prompt: NotRequired[NDArray[np.float32]]
    extremes: NotRequired[NDArray[np.float32]]


class DeviceOutputs(TypedDict):
    """Outputs of a graph in GPU memory; shapes and types are those of `Outputs`."""

    fused: DeviceArray
    prompt: NotRequired[DeviceArray]
    extremes: NotRequired[DeviceArray]


class Backend(Protocol):
    """Runs one graph. `infer` may be called from several threads."""

    @property
    def name(self) -> str:
        """Library and device, e.g. `onnxruntime (CPU)`."""
        ...

    def infer(self, inputs: Tensors) -> Outputs:
        """Run the graph once.

        Args:
            inputs: All inputs by name, with the types and shapes of the contract, C-contiguous.

        Returns:
            New arrays.

        Raises:
            InputError: An input is missing, unknown, or of another type or shape.
            TcmoaError: The library failed, or the backend is closed.
        """
        ...

    def close(self) -> None:
        """Free the library's resources; further calls do nothing."""
        ...


@runtime_checkable
class DeviceBackend(Backend, Protocol):
    """A backend that also takes inputs in GPU memory and leaves results there."""

    def infer_device(self, inputs: TensorsLike, stream: int | None = None) -> DeviceOutputs:
        """Run the graph once; the results stay on the GPU, ordered after the work in `stream`."""
        ...


def neutral_input(spec: TensorSpec) -> NDArray[np.float32]:
    """Return the value of an input other than a source with which the network computes as it was trained."""
    if spec.name == HELD_EXTREMES:
        return np.ascontiguousarray(np.broadcast_to(np.array(OWN_EXTREMES, np.float32), spec.shape))
    return np.full(spec.shape, float(spec.name == PROMPT_SCALE), np.float32)


def check_inputs(specs: Iterable[TensorSpec], inputs: Tensors) -> None:
    """Raise InputError unless `inputs` are those that the graph expects."""
    specs = tuple(specs)
    check_names(specs, inputs)
    for spec in specs:
        check_array(spec, inputs[spec.name])


def check_names(specs: Iterable[TensorSpec], inputs: Mapping[str, object]) -> None:
    """Raise InputError on a missing or an unknown name."""
    names = {spec.name for spec in specs}
    if inputs.keys() != names:
        raise InputError(f"inputs are {sorted(inputs)}; expected {sorted(names)}")


def check_array(spec: TensorSpec, array: NDArray[np.generic]) -> None:
    """Raise InputError unless an array has the type and shape of `spec`."""
    if array.dtype != np.dtype(spec.dtype) or array.shape != spec.shape:
        raise InputError(
            f"{array.dtype} {list(array.shape)}; expected {spec.dtype} {list(spec.shape)}", subject=spec.name
        )


def compare_tensors(
    inputs: Iterable[TensorSpec],
    outputs: Iterable[TensorSpec],
    contract: Contract,
    *,
    subject: Path,
    remedy: str = EXPORT_REMEDY,
) -> None:
    """Compare the tensors of a loaded graph with the contract.

    Args:
        inputs: Its inputs, as the library describes them.
        outputs: Its outputs.
        contract: The contract of bundle.json.
        subject: The file that was loaded, for the error.
        remedy: What to do when they differ.

    Raises:
        BundleError: A tensor is missing, unknown, or of another type or shape.
    """
    for kind, found, specs in (("input", inputs, contract.inputs), ("output", outputs, contract.outputs)):
        arrived = {spec.name: spec for spec in found}
        expected = {spec.name: spec for spec in specs}
        for name in (*expected, *arrived):
            if arrived.get(name) != expected.get(name):
                raise BundleError(
                    f"{kind} '{name}' is {_describe(arrived.get(name))}; "
                    f"expected {_describe(expected.get(name))} as in bundle.json",
                    subject=subject,
                    remedy=remedy,
                )


def _describe(spec: TensorSpec | None) -> str:
    return "absent" if spec is None else f"{spec.dtype} {list(spec.shape)}"


def compare_graph_name(name: str, bundle: Bundle) -> None:
    """Raise BundleError unless a loaded graph has the name that bundle.json states, unique to its weights."""
    if name != bundle.graph_name:
        raise BundleError(
            f"the graph of another bundle, named '{name}'; expected '{bundle.graph_name}' as in bundle.json",
            subject=bundle.graph_path,
            remedy=EXPORT_REMEDY,
        )


def closed_error() -> TcmoaError:
    """Make the error for calls after `close`."""
    return TcmoaError("this backend is closed", remedy="Load the bundle again")
