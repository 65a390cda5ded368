"""Reading the kernels of an engine from what TensorRT prints.

Two sources describe an engine layer by layer, once it is built with profiling verbosity DETAILED. The builder logs one
line per layer ("Engine Layer Information"), also on a machine without a GPU. The inspector of a deserialized engine
returns JSON (`IEngineInspector.get_engine_information`), which needs a GPU: no such JSON has been read by this project.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Final

from tcmoa_export.engines.kernels import ELEMENT_BYTES, AuditError, Kernel, TensorView

MARKERS: Final = ("signal", "wait")
"""Layer types that order streams and launch no kernel."""

_TENSOR: Final = re.compile(
    r"\{ Name: (?P<name>.*?), Dimensions: \[(?P<shape>[\d,]{0,200})\].*?Datatype: (?P<dtype>\w+)"
)
_NODE: Final = re.compile(r"\[ONNX Layer: ([^\]]+)\]")
_FORMAT_TYPES: Final = {
    "FP32": "Float",
    "FP16": "Half",
    "BF16": "BFloat16",
    **{name.upper(): name for name in ELEMENT_BYTES},
}


def kernels_from_log(lines: Iterable[str]) -> list[Kernel]:
    """Read the kernels from the builder's verbose log, in launch order.

    Raises:
        AuditError: The log has no list of kernels, or one of another form.
    """
    rows = [row for line in lines for row in line.splitlines() if row.startswith("Name: ")]
    if not rows:
        raise AuditError(
            "lists no kernels; expected a verbose log of a build with profiling verbosity DETAILED",
            subject="the builder's log",
        )
    return _without_markers(_kernel_from_row(row) for row in rows)


def _kernel_from_row(row: str) -> Kernel:
    # Tensors end in "}" and shapes contain brackets, so lists are cut at the keys that follow them.
    parts = re.split(r", (Inputs|Constants|Outputs|LayerType|TacticName|StreamId|Metadata): ", row)
    fields = dict(zip(parts[1::2], parts[2::2], strict=True))
    if not {"LayerType", "Inputs", "Outputs"} <= fields.keys():
        raise _unknown_form("row", row)
    return Kernel(
        parts[0].removeprefix("Name: "),
        fields["LayerType"],
        _views(fields["Inputs"], row),
        _views(fields.get("Constants", ""), row),
        _views(fields["Outputs"], row),
        tuple(_NODE.findall(fields.get("Metadata", ""))),
    )


def _views(text: str, row: str) -> tuple[TensorView, ...]:
    found = [
        _view(m["name"], [int(n) for n in m["shape"].split(",") if n], m["dtype"])
        for m in _TENSOR.finditer(text)
    ]
    if len(found) != text.count("{ Name: "):
        raise _unknown_form("tensor", row)
    return tuple(found)


def _unknown_form(what: str, row: str) -> AuditError:
    return AuditError(f"has a {what} of an unknown form in {row[:120]!r}", subject="the builder's log")


def _view(name: str, shape: Sequence[int], dtype: str) -> TensorView:
    if dtype not in ELEMENT_BYTES:
        raise AuditError(
            f"has type {dtype!r}; expected one of {', '.join(ELEMENT_BYTES)}", subject=f"tensor {name!r}"
        )
    return TensorView(name, tuple(shape), dtype)


def kernels_from_inspector(text: str) -> list[Kernel]:
    """Read the kernels from `get_engine_information(LayerInformationFormat.JSON)`, in launch order.

    Raises:
        AuditError: The text is not JSON of the known form.
    """
    try:
        layers = json.loads(text, strict=False)["Layers"]  # lists of nodes are separated by unescaped 0x1E
        return _without_markers(_kernel_from_layer(layer) for layer in layers)
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise AuditError(
            f"an unknown form ({type(error).__name__}: {error}); expected the layers of an engine that was built with "
            f"profiling verbosity DETAILED",
            subject="the engine inspector's list",
        ) from error


def _kernel_from_layer(layer: Mapping[str, Any]) -> Kernel:
    def views(key: str) -> tuple[TensorView, ...]:
        return tuple(
            _view(_text(view["Name"]), [_size(n) for n in view["Dimensions"]], _dtype(view))
            for view in layer.get(key, [])
        )

    return Kernel(
        _text(layer["Name"]),
        _text(layer["LayerType"]),
        views("Inputs"),
        views("Constants"),
        views("Outputs"),
        tuple(_NODE.findall(layer.get("Metadata", ""))),
    )


def _text(value: object) -> str:
    if not isinstance(value, str):
        raise TypeError(f"{value!r} is not a string")
    return value


def _size(value: object) -> int:
    if not isinstance(value, int) or value < 0:
        raise TypeError(f"{value!r} is not a size")
    return value


def _dtype(view: Mapping[str, Any]) -> str:
    """Return `Datatype`, or the type in `Format/Datatype` of older versions, e.g. "Row major linear FP16 format"."""
    if "Datatype" in view:
        return str(view["Datatype"])
    words = re.findall(r"[A-Z]+\d*", str(view["Format/Datatype"]).upper())
    return next((_FORMAT_TYPES[word] for word in words if word in _FORMAT_TYPES), "unknown")


def _without_markers(kernels: Iterable[Kernel]) -> list[Kernel]:
    return [kernel for kernel in kernels if kernel.layer not in MARKERS]
