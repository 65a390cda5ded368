"""Inputs and outputs of models in Triton."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from tcmoa_runtime.bundle import Bundle
from tcmoa_runtime.contract import FUSED, PROMPT, PROMPT_SCALE, PROMPT_SHIFT, X, Y
from tcmoa_runtime.request_images import FUSED_FILES
from tcmoa_runtime.typing import JsonObject

UINT16: Final = "_uint16"
ENCODED: Final = "_encoded"
SOURCE_FORMS: Final[tuple[str, ...]] = ("", UINT16, ENCODED)
"""What follows `x` and `y` in the names of the inputs of the python backend: frames in 8 bits, in 16 bits, or the bytes
of image files."""

_CONFIG_TYPES: Final = {"uint8": "UINT8", "uint16": "UINT16", "float32": "FP32", "bytes": "STRING"}
_PROTOCOL_TYPES: Final = {**_CONFIG_TYPES, "bytes": "BYTES"}
_SOURCE_TYPES: Final = {"": "uint8", UINT16: "uint16", ENCODED: "bytes"}


@dataclass(frozen=True)
class ModelTensor:
    """An input or output of a model.

    Attributes:
        name: Its name.
        dtype: `uint8`, `uint16`, `float32` or `bytes`.
        dims: Its shape, with the batch; -1 for a size that each request chooses.
        optional: Whether a request may leave the input out.
    """

    name: str
    dtype: str
    dims: tuple[int, ...]
    optional: bool = False

    @property
    def config_type(self) -> str:
        """Its type in config.pbtxt, e.g. `TYPE_UINT8`."""
        return f"TYPE_{_CONFIG_TYPES[self.dtype]}"

    @property
    def protocol_type(self) -> str:
        """Its type in requests, e.g. `UINT8` or `BYTES`."""
        return _PROTOCOL_TYPES[self.dtype]

    def to_json(self) -> JsonObject:
        """Describe the tensor as Triton's metadata does; `optional` only where it is."""
        entry: JsonObject = {"name": self.name, "datatype": self.protocol_type, "shape": list(self.dims)}
        return {**entry, "optional": True} if self.optional else entry


def graph_inputs(bundle: Bundle) -> tuple[ModelTensor, ...]:
    """Return the inputs of a model that is the graph alone."""
    return tuple(ModelTensor(spec.name, spec.dtype, spec.shape) for spec in bundle.contract.inputs)


def graph_outputs(bundle: Bundle) -> tuple[ModelTensor, ...]:
    """Return the outputs of a model that is the graph alone."""
    return tuple(ModelTensor(spec.name, spec.dtype, spec.shape) for spec in bundle.contract.outputs)


def python_inputs(bundle: Bundle) -> tuple[ModelTensor, ...]:
    """Return the inputs of a model of the python backend; x and y are needed in one form each."""
    sources = [
        ModelTensor(
            f"{source}{form}",
            _SOURCE_TYPES[form],
            (-1,) if form == ENCODED else (-1, -1, -1, -1),
            optional=True,
        )
        for form in SOURCE_FORMS
        for source in (X, Y)
    ]
    prompts = (PROMPT_SCALE, PROMPT_SHIFT) if bundle.has_prompt else ()
    return (*sources, *(ModelTensor(name, "float32", (-1, -1, -1), optional=True) for name in prompts))


def python_outputs(bundle: Bundle) -> tuple[ModelTensor, ...]:
    """Return the outputs of a model of the python backend."""
    outputs = [
        ModelTensor(FUSED, "uint8", (-1, -1, -1, 3)),
        *(ModelTensor(name, "bytes", (-1,)) for name in FUSED_FILES),
    ]
    contract = bundle.contract
    if contract.with_prompt:
        outputs.append(ModelTensor(PROMPT, "float32", (-1, contract.prompts, 2, -1, -1)))
    return tuple(outputs)
