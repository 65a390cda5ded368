"""PyTorch modules that are wrapped: PyTorch's exporter turns them into a graph."""

from __future__ import annotations

import contextlib
import hashlib
import inspect
import logging
import warnings
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Final

import numpy as np
import onnx
import onnx.inliner
import torch
from numpy.typing import NDArray

from tcmoa_export.graph_builder import OPSET
from tcmoa_export.wrap.network import Arrays, TensorInfo
from tcmoa_runtime.errors import InputError, first_line

_FLOAT32: Final = np.dtype(np.float32)


class ModuleNetwork:
    """A PyTorch module, run in evaluation mode.

    Args:
        module: The module; its mode is restored.

    Raises:
        InputError: `forward` takes no tensors by position.
    """

    def __init__(self, module: torch.nn.Module) -> None:
        self._module = module
        self.name = type(module).__name__
        self.subject = self.name
        parameters = inspect.signature(module.forward).parameters.values()
        positional = (inspect.Parameter.POSITIONAL_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD)
        names = [
            parameter.name
            for parameter in parameters
            if parameter.kind in positional and parameter.default is inspect.Parameter.empty
        ]
        if not names:
            raise InputError("forward takes no tensors; expected one or two sources", subject=self.subject)
        self.inputs: Sequence[TensorInfo] = [TensorInfo(name, _FLOAT32, ()) for name in names]
        self.outputs: Sequence[str] = []
        self.sha256 = self._hash()

    def _hash(self) -> str:
        digest = hashlib.sha256()
        for name, value in self._module.state_dict().items():
            if isinstance(value, torch.Tensor):
                digest.update(name.encode())
                digest.update(
                    value.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy().tobytes()
                )
        return digest.hexdigest()

    def takes(self, inputs: Arrays) -> bool:
        """Whether the module runs with inputs of these shapes."""
        try:
            self.run(inputs)
        except InputError:
            return False
        return True

    def _call(self, inputs: Sequence[torch.Tensor]) -> dict[str, torch.Tensor]:
        with evaluation_mode(self._module), torch.no_grad():
            return _named(self._module(*inputs))

    def run(self, inputs: Arrays) -> dict[str, NDArray[Any]]:
        """Run the module; see `Network`.

        Raises:
            InputError: It raises an error for inputs of these shapes.
        """
        tensors = [torch.from_numpy(np.ascontiguousarray(inputs[info.name])) for info in self.inputs]
        try:
            outputs = self._call(tensors)
        except InputError as error:
            raise error.with_subject(self.subject) from error
        except Exception as error:  # whatever a module raises
            shapes = ", ".join(f"'{name}' {list(value.shape)}" for name, value in inputs.items())
            raise InputError(
                f"the module does not run with {shapes}: {first_line(error)}",
                subject=self.subject,
                remedy="Check the conventions: inputs, layout, channels, size and multiple",
            ) from error
        self.outputs = list(outputs)
        return {name: value.detach().cpu().numpy() for name, value in outputs.items()}

    def graph(self, shapes: Mapping[str, tuple[int, ...]], constants: Arrays) -> onnx.ModelProto:
        """Export the module for inputs of these shapes; see `Network`.

        Raises:
            InputError: PyTorch cannot export it.
        """
        values = [
            torch.from_numpy(constants[info.name].copy())
            if info.name in constants
            else torch.zeros(shapes[info.name])
            for info in self.inputs
        ]
        names = list(self._call(values))
        try:
            with evaluation_mode(self._module), _quiet_exporter():
                program = torch.onnx.export(
                    _Tensors(self._module),
                    tuple(values),
                    input_names=[info.name for info in self.inputs],
                    output_names=names,
                    opset_version=OPSET,
                    dynamo=True,
                    verbose=False,
                )
        except Exception as error:  # of torch.export, of several types
            raise InputError(
                f"PyTorch cannot export it: {first_line(error)}",
                subject=self.subject,
                remedy="Remove control flow that depends on the pictures, or export it to ONNX yourself",
            ) from error
        assert program is not None
        proto: onnx.ModelProto = program.model_proto
        return onnx.inliner.inline_local_functions(proto) if proto.functions else proto


class _Tensors(torch.nn.Module):
    """A module whose outputs are a tuple of tensors, whatever structure those of the inner one have."""

    def __init__(self, module: torch.nn.Module) -> None:
        super().__init__()
        self.module = module

    def forward(self, *inputs: torch.Tensor) -> tuple[torch.Tensor, ...]:
        """Run the inner module."""
        return tuple(_named(self.module(*inputs)).values())


def _named(result: object) -> dict[str, torch.Tensor]:
    """Return the tensors of a result by name: keys of a dict, or numbers of a sequence."""
    if isinstance(result, torch.Tensor):
        return {"output": result}
    items = result.items() if isinstance(result, Mapping) else None
    if items is None and isinstance(result, tuple | list):
        items = ((f"output_{index}", value) for index, value in enumerate(result))  # type: ignore[assignment]
    found = {str(name): value for name, value in items or () if isinstance(value, torch.Tensor)}
    if not found:
        raise InputError(f"forward returns {type(result).__name__}; expected tensors", subject="module")
    return found


@contextlib.contextmanager
def evaluation_mode(module: torch.nn.Module) -> Iterator[None]:
    """Set evaluation mode inside the with-block."""
    modes = [(child, child.training) for child in module.modules()]
    module.eval()
    try:
        yield
    finally:
        for child, was_training in modes:
            child.training = was_training


@contextlib.contextmanager
def _quiet_exporter() -> Iterator[None]:
    """Keep the exporter's notes about other packages from the log."""
    logger = logging.getLogger("torch.onnx")
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logger.setLevel(level)
