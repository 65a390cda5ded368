"""Requests and responses of `infer` in the Open Inference Protocol (KServe v2), in JSON and with binary tensor data.

A body with binary data is JSON, whose length is in the header `Inference-Header-Content-Length`, followed by the data
of the tensors that have a `binary_data_size` among their parameters, in their order. See
https://github.com/kserve/open-inference-protocol.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

from tcmoa_runtime.errors import InputError
from tcmoa_runtime.serving.tensors import Tensor, check_datatype, check_shape, from_binary, from_json
from tcmoa_runtime.typing import JsonObject, JsonValue
from tcmoa_runtime.web.json_text import parse_json

HEADER_LENGTH: Final = "Inference-Header-Content-Length"
MODEL_VERSION: Final = "1"
"""Every model has this one version."""
MAX_JSON_BYTES: Final = 16 << 20
"""Largest JSON of a request: two frames of 640x480 as numbers take 7 MiB."""
MAX_DEPTH: Final = 12
"""Lists and objects in each other: tensors have at most 8 axes."""
MAX_DIGITS: Final = 20
"""Characters of an integer: those of INT64 and UINT64."""
MAX_TENSORS: Final = 16

_KEYS: Final = ("id", "model_name", "model_version", "parameters", "inputs", "outputs")
_INPUT_KEYS: Final = ("name", "shape", "datatype", "parameters", "data")
_OUTPUT_KEYS: Final = ("name", "parameters")


@dataclass(frozen=True, slots=True)
class RequestedOutput:
    """An output that a request names, and whether it is to be binary data."""

    name: str
    is_binary: bool


@dataclass(frozen=True, slots=True)
class InferRequest:
    """A request for inference.

    Attributes:
        inputs: Tensors by name.
        parameters: Parameters of the request.
        outputs: The requested outputs; empty if none is named.
        is_binary: Whether outputs that are not named are to be binary data.
        id: The client's name for the request.
    """

    inputs: Mapping[str, Tensor]
    parameters: JsonObject = field(default_factory=dict)
    outputs: tuple[RequestedOutput, ...] = ()
    is_binary: bool = False
    id: str | None = None


def parse_request(body: memoryview, json_length: str | None) -> InferRequest:
    """Parse the body of a request.

    Args:
        body: The body.
        json_length: The header `Inference-Header-Content-Length`; None without one: the whole body is JSON.

    Raises:
        InputError: The body is not a request of the protocol; the subject is the key or the tensor.
    """
    length = len(body) if json_length is None else _parse_length(json_length, len(body))
    if length > MAX_JSON_BYTES:
        raise InputError(
            f"{length} bytes of JSON; expected at most {MAX_JSON_BYTES}",
            subject="body",
            remedy="Send the tensors as binary data",
        )
    parsed = parse_json(_decode(body[:length]), "body", max_depth=MAX_DEPTH, max_digits=MAX_DIGITS)
    value = _as_object(parsed, "body", _KEYS)
    parameters = _as_object(value.get("parameters"), "parameters", None)
    is_binary = _as_bool(parameters.pop("binary_data_output", None), "binary_data_output")
    request_id = value.get("id")
    if request_id is not None and not isinstance(request_id, str):
        raise InputError("not a string; expected one, or none", subject="id")
    return InferRequest(
        inputs=_parse_inputs(value.get("inputs"), body[length:]),
        parameters=parameters,
        outputs=_parse_outputs(value.get("outputs"), is_binary),
        is_binary=is_binary,
        id=request_id or None,
    )


def encode_response(
    model_name: str, request: InferRequest, outputs: Sequence[tuple[Tensor, bool]]
) -> tuple[bytes, bytes | None]:
    """Return the JSON of a response, and its binary data, None if it has none.

    Args:
        model_name: Name of the model.
        request: The request.
        outputs: The tensors, and whether each is binary data.
    """
    described: list[JsonValue] = []
    data: list[bytes] = []
    for tensor, is_binary in outputs:
        entry: JsonObject = {
            "name": tensor.name,
            "datatype": tensor.datatype,
            "shape": list(tensor.shape),
        }
        if is_binary:
            data.append(tensor.to_binary())
            entry["parameters"] = {"binary_data_size": len(data[-1])}
        else:
            entry["data"] = tensor.to_json()
        described.append(entry)
    head: JsonObject = {"model_name": model_name, "model_version": MODEL_VERSION, "outputs": described}
    if request.id is not None:
        head["id"] = request.id
    text = json.dumps(head, separators=(",", ":")).encode()
    if not data:
        return text, None
    return text, data[0] if len(data) == 1 else b"".join(data)


def _parse_length(text: str, body_length: int) -> int:
    if not (text.isascii() and text.isdigit() and len(text) < 20 and int(text) <= body_length):
        raise InputError(
            f"{text!r}; expected the length of the JSON, at most {body_length}, the length of the body",
            subject=HEADER_LENGTH,
        )
    return int(text)


def _decode(data: memoryview) -> str:
    try:
        return bytes(data).decode()
    except UnicodeDecodeError as error:
        raise InputError(
            f"cannot be decoded: {error.reason}; expected JSON in UTF-8",
            subject="body",
            remedy=f"If binary data follow the JSON, give its length in the header {HEADER_LENGTH}",
        ) from error


def _parse_inputs(value: JsonValue, binary: memoryview) -> dict[str, Tensor]:
    inputs: dict[str, Tensor] = {}
    position = 0
    for entry in _as_list(value, "inputs"):
        given = _as_object(entry, "inputs", _INPUT_KEYS)
        name = _as_name(given.get("name"), "inputs")
        if name in inputs:
            raise InputError("given twice; expected once", subject=name)
        datatype = check_datatype(given.get("datatype"), name)
        shape = check_shape(given.get("shape"), name)
        size = _parse_size(name, given)
        if size is None:
            inputs[name] = from_json(name, datatype, shape, given.get("data"))
            continue
        if position + size > len(binary):
            raise InputError(
                f"{size} bytes of binary data, but {len(binary) - position} are left in the body",
                subject=name,
                remedy=f"Check binary_data_size and the header {HEADER_LENGTH}",
            )
        inputs[name] = from_binary(name, datatype, shape, binary[position : position + size])
        position += size
    if not inputs:
        raise InputError('no inputs; expected {"inputs": [...]}', subject="body")
    if position != len(binary):
        raise InputError(
            f"{len(binary)} bytes follow the JSON; expected {position}, the sum of all binary_data_size",
            subject="body",
        )
    return inputs


def _parse_size(name: str, given: Mapping[str, JsonValue]) -> int | None:
    """Return the number of bytes of a tensor's binary data; None if its data are in the JSON."""
    parameters = _as_object(given.get("parameters"), name, None)
    size = parameters.pop("binary_data_size", None)
    unknown = next(iter(parameters), None)
    if unknown is not None:
        raise InputError(f"unknown parameter {unknown!r}; expected binary_data_size", subject=name)
    if size is None:
        return None
    if type(size) is not int or size < 0:
        raise InputError(f"binary_data_size {size!r}; expected a number of bytes", subject=name)
    if given.get("data") is not None:
        raise InputError("data in the JSON and as binary data; expected one of the two", subject=name)
    return size


def _parse_outputs(value: JsonValue, is_binary: bool) -> tuple[RequestedOutput, ...]:
    outputs: list[RequestedOutput] = []
    for entry in _as_list(value, "outputs"):
        given = _as_object(entry, "outputs", _OUTPUT_KEYS)
        name = _as_name(given.get("name"), "outputs")
        parameters = _as_object(given.get("parameters"), name, None)
        own = parameters.pop("binary_data", None)
        unknown = next(iter(parameters), None)
        if unknown is not None:
            raise InputError(f"unknown parameter {unknown!r}; expected binary_data", subject=name)
        if any(output.name == name for output in outputs):
            raise InputError("requested twice; expected once", subject=name)
        outputs.append(RequestedOutput(name, is_binary if own is None else _as_bool(own, name)))
    return tuple(outputs)


def _as_object(value: Any, subject: str, keys: Sequence[str] | None) -> dict[str, Any]:
    """Return a copy of an object, of these keys only; an empty one for null, except where keys are given."""
    if value is None and keys is None:
        return {}
    if not isinstance(value, dict):
        what = "an object of parameters" if keys is None else f"an object with {', '.join(keys)}"
        raise InputError(f"not a JSON object; expected {what}", subject=subject)
    unknown = next((key for key in value if keys is not None and key not in keys), None)
    if unknown is not None:
        raise InputError(f"unknown key {unknown!r}; expected {', '.join(keys or ())}", subject=subject)
    return dict(value)


def _as_list(value: JsonValue, subject: str) -> list[JsonValue]:
    if value is None:
        return []
    if not isinstance(value, list) or len(value) > MAX_TENSORS:
        arrived = f"{len(value)} entries" if isinstance(value, list) else "not a list"
        raise InputError(f"{arrived}; expected a list of at most {MAX_TENSORS} objects", subject=subject)
    return value


def _as_name(value: JsonValue, subject: str) -> str:
    if not isinstance(value, str) or not value:
        raise InputError("an entry without a name; expected a string", subject=subject)
    return value


def _as_bool(value: JsonValue, subject: str) -> bool:
    if value is None:
        return False
    if not isinstance(value, bool):
        raise InputError(f"{value!r}; expected true or false", subject=subject)
    return value
