"""The body of an inference request: every type, malformed bodies with their lines, and arbitrary ones."""

import base64
import json
import struct

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tcmoa_runtime import InputError
from tcmoa_runtime.serving.protocol import (
    MAX_JSON_BYTES,
    InferRequest,
    RequestedOutput,
    encode_response,
    parse_request,
)
from tcmoa_runtime.serving.tensors import DATA_TYPES, NUMPY_TYPES, Tensor, from_binary, from_json

NUMBERS = [datatype for datatype in DATA_TYPES if datatype not in ("BYTES", "BF16")]


def tensor_entry(**changes):
    entry = {"name": "x", "shape": [1, 2], "datatype": "UINT8", "data": [1, 2], **changes}
    return {key: value for key, value in entry.items() if value is not None}


def body_of(value, binary=b""):
    head = json.dumps(value).encode()
    return memoryview(head + binary), str(len(head))


def parse(value, binary=b""):
    return parse_request(*body_of(value, binary))


@pytest.mark.parametrize("datatype", NUMBERS)
def test_numbers_arrive_as_they_were_sent(datatype):
    dtype = NUMPY_TYPES[datatype]
    values = np.array([[0, 1, 1], [0, 1, 0]], dtype)
    if dtype.kind in "iu":
        values[0, 0], values[1, 2] = np.iinfo(dtype).min, np.iinfo(dtype).max
    elif dtype.kind == "f":
        values[0, 0], values[1, 2] = -0.1, np.finfo(dtype).max
    for entry, binary in (
        ({"data": values.ravel().tolist()}, b""),
        ({"data": values.tolist()}, b""),
        ({"data": None, "parameters": {"binary_data_size": values.nbytes}}, values.tobytes()),
    ):
        sent = tensor_entry(shape=[2, 3], datatype=datatype, **entry)
        tensor = parse({"inputs": [sent]}, binary).inputs["x"]
        assert (tensor.datatype, tensor.shape, tensor.array.dtype) == (datatype, (2, 3), dtype)
        np.testing.assert_array_equal(tensor.array, values)


def test_bfloat16_arrives_as_float32():
    values = np.array([1.0, -2.5, 0.15625], np.float32)
    bits = (values.view(np.uint32) >> 16).astype("<u2").tobytes()
    entry = tensor_entry(shape=[3], datatype="BF16", data=None, parameters={"binary_data_size": 6})
    tensor = parse({"inputs": [entry]}, bits).inputs["x"]
    assert tensor.array.dtype == np.float32
    np.testing.assert_array_equal(tensor.array, values)


def test_byte_strings_arrive_as_they_were_sent():
    items = (b"", b"\x00\xff", b"x" * 300)
    binary = b"".join(struct.pack("<I", len(item)) + item for item in items)
    entry = tensor_entry(shape=[3], datatype="BYTES", data=None, parameters={"binary_data_size": len(binary)})
    assert tuple(map(bytes, parse({"inputs": [entry]}, binary).inputs["x"].items)) == items
    texts = [base64.b64encode(item).decode() for item in items]
    assert (
        parse({"inputs": [tensor_entry(shape=[3], datatype="BYTES", data=texts)]}).inputs["x"].items == items
    )


def test_binary_data_follow_each_other_in_the_order_of_the_inputs():
    sizes = {"y": 2, "x": 3}
    entries = [
        tensor_entry(name=name, shape=[size], data=None, parameters={"binary_data_size": size})
        for name, size in sizes.items()
    ]
    entries.insert(1, tensor_entry(name="in-json"))
    request = parse({"inputs": entries}, b"abcde")
    assert {name: bytes(tensor.array.ravel()) for name, tensor in request.inputs.items()} == {
        "y": b"ab",
        "in-json": b"\x01\x02",
        "x": b"cde",
    }


def test_what_a_request_asks_for_is_read():
    request = parse(
        {
            "id": "seven",
            "model_name": "other clients repeat it",
            "parameters": {"binary_data_output": True, "prompt_shift": 0.5},
            "inputs": [tensor_entry()],
            "outputs": [{"name": "fused"}, {"name": "prompt", "parameters": {"binary_data": False}}],
        }
    )
    assert request.id == "seven"
    assert request.parameters == {"prompt_shift": 0.5}
    assert request.outputs == (RequestedOutput("fused", True), RequestedOutput("prompt", False))


MALFORMED = {
    "empty": (b"", "body: not valid JSON: Expecting value: line 1 column 1 (char 0)"),
    "list": (b"[]", "body: not a JSON object; expected an object with id, model_name, model_version, parameters, "
             "inputs, outputs"),
    "bytes": (b"\xff\xfe", "body: cannot be decoded: invalid start byte; expected JSON in UTF-8. If binary data follow "
              "the JSON, give its length in the header Inference-Header-Content-Length."),
    "nan": (b'{"inputs": NaN}', "body: not valid JSON: NaN is not a number in JSON"),
    "deep": (b"[" * 50_000, "body: more than 12 levels of lists and objects"),
    "no inputs": ({}, 'body: no inputs; expected {"inputs": [...]}'),
    "unknown key": ({"input": []}, "body: unknown key 'input'; expected id, model_name, model_version, parameters, "
                    "inputs, outputs"),
    "inputs": ({"inputs": {}}, "inputs: not a list; expected a list of at most 16 objects"),
    "many inputs": ({"inputs": [tensor_entry(name=str(i)) for i in range(17)]},
                    "inputs: 17 entries; expected a list of at most 16 objects"),
    "input": ({"inputs": [1]}, "inputs: not a JSON object; expected an object with name, shape, datatype, parameters, "
              "data"),
    "input key": ({"inputs": [tensor_entry(dtype="UINT8")]}, "inputs: unknown key 'dtype'; expected name, shape, "
                  "datatype, parameters, data"),
    "name": ({"inputs": [tensor_entry(name=None)]}, "inputs: an entry without a name; expected a string"),
    "twice": ({"inputs": [tensor_entry(), tensor_entry()]}, "x: given twice; expected once"),
    "shape": ({"inputs": [tensor_entry(shape=[1, -2])]},
              "x: shape [1, -2]; expected at most 8 integers, e.g. [480, 640, 3]"),
    "shape of bool": ({"inputs": [tensor_entry(shape=[True, 2])]},
                      "x: shape [True, 2]; expected at most 8 integers, e.g. [480, 640, 3]"),
    "no shape": ({"inputs": [tensor_entry(shape=None)]},
                 "x: shape None; expected at most 8 integers, e.g. [480, 640, 3]"),
    "huge shape": ({"inputs": [tensor_entry(shape=[0, 1 << 40, 1 << 40])]},
                   "x: shape [0, 1099511627776, 1099511627776]; expected at most 8 integers, e.g. [480, 640, 3]"),
    "datatype": ({"inputs": [tensor_entry(datatype="uint8")]},
                 f"x: datatype 'uint8'; expected one of {', '.join(DATA_TYPES)}"),
    "no data": ({"inputs": [tensor_entry(data=None)]}, "x: data of type null; expected a list"),
    "count": ({"inputs": [tensor_entry(data=[1, 2, 3])]}, "x: 3 values; expected 2 for shape [1, 2]"),
    "ragged": ({"inputs": [tensor_entry(data=[[1], 2])]},
               "x: lists and values beside each other; expected lists of one depth"),
    "float": ({"inputs": [tensor_entry(data=[1, 1.5])]}, "x: the value 1.5; expected values of UINT8"),
    "overflow": ({"inputs": [tensor_entry(data=[1, 256])]}, "x: the value 256; expected values of UINT8"),
    "negative": ({"inputs": [tensor_entry(data=[1, -1])]}, "x: the value -1; expected values of UINT8"),
    "bool": ({"inputs": [tensor_entry(data=[1, True])]}, "x: the value True; expected values of UINT8"),
    "null": ({"inputs": [tensor_entry(data=[1, None])]}, "x: the value None; expected values of UINT8"),
    "text": ({"inputs": [tensor_entry(datatype="FP32", data=[1, "2"])]}, "x: the value '2'; expected values of FP32"),
    "base64": ({"inputs": [tensor_entry(datatype="BYTES", data=["YQ==", "?"])]},
               "x: a value that is not base64; expected each byte string as text in base64"),
    "bf16": ({"inputs": [tensor_entry(datatype="BF16")]}, "x: BF16 in JSON; expected it as binary data"),
    "both": ({"inputs": [tensor_entry(parameters={"binary_data_size": 2})]},
             "x: data in the JSON and as binary data; expected one of the two"),
    "size": ({"inputs": [tensor_entry(data=None, parameters={"binary_data_size": "2"})]},
             "x: binary_data_size '2'; expected a number of bytes"),
    "too long": ({"inputs": [tensor_entry(data=None, parameters={"binary_data_size": 2})]},
                 "x: 2 bytes of binary data, but 0 are left in the body. Check binary_data_size and the header "
                 "Inference-Header-Content-Length."),
    "shared memory": ({"inputs": [tensor_entry(data=None, parameters={"shared_memory_region": "a"})]},
                      "x: unknown parameter 'shared_memory_region'; expected binary_data_size"),
    "parameters": ({"parameters": [], "inputs": [tensor_entry()]},
                   "parameters: not a JSON object; expected an object of parameters"),
    "binary output": ({"parameters": {"binary_data_output": 1}, "inputs": [tensor_entry()]},
                      "binary_data_output: 1; expected true or false"),
    "id": ({"id": 7, "inputs": [tensor_entry()]}, "id: not a string; expected one, or none"),
    "output": ({"inputs": [tensor_entry()], "outputs": ["fused"]},
               "outputs: not a JSON object; expected an object with name, parameters"),
    "output parameter": ({"inputs": [tensor_entry()], "outputs": [{"name": "a", "parameters": {"classification": 1}}]},
                         "a: unknown parameter 'classification'; expected binary_data"),
    "output twice": ({"inputs": [tensor_entry()], "outputs": [{"name": "a"}, {"name": "a"}]},
                     "a: requested twice; expected once"),
}  # fmt: skip


@pytest.mark.parametrize("case", MALFORMED)
def test_a_malformed_body_gets_one_line(case):
    value, line = MALFORMED[case]
    body = value if isinstance(value, bytes) else json.dumps(value).encode()
    with pytest.raises(InputError) as caught:
        parse_request(memoryview(body), None)
    assert str(caught.value) == line


@pytest.mark.parametrize(
    ("datatype", "shape", "binary", "line"),
    [
        ("UINT8", [3], b"ab", "x: 2 bytes of binary data; expected 3 for UINT8 [3]"),
        ("FP32", [2], b"abcdef", "x: 6 bytes of binary data; expected 8 for FP32 [2]"),
        ("BYTES", [2], b"\1\0\0\0a", "x: 1 whole byte strings in 5 bytes of binary data, which end at byte 5; expected "
         "2, each after its length as a little-endian uint32"),
        ("BYTES", [1], b"\2\0\0\0a", "x: 0 whole byte strings in 5 bytes of binary data, which end at byte 0; expected "
         "1, each after its length as a little-endian uint32"),
        ("BYTES", [1], b"\1\0\0\0ab", "x: 1 whole byte strings in 6 bytes of binary data, which end at byte 5; "
         "expected 1, each after its length as a little-endian uint32"),
        ("BYTES", [1025], b"", "x: 1025 byte strings; expected at most 1024"),
    ],
)  # fmt: skip
def test_binary_data_of_another_size_get_one_line(datatype, shape, binary, line):
    entry = tensor_entry(
        shape=shape, datatype=datatype, data=None, parameters={"binary_data_size": len(binary)}
    )
    with pytest.raises(InputError) as caught:
        parse({"inputs": [entry]}, binary)
    assert str(caught.value) == line


@pytest.mark.parametrize(
    ("length", "binary", "line"),
    [
        ("9" * 30, b"", r"Inference-Header-Content-Length: '9+'; expected the length of the JSON, at most \d+, the "
         r"length of the body"),
        ("-1", b"", r"Inference-Header-Content-Length: '-1'; expected .*"),
        ("٣", b"", r"Inference-Header-Content-Length: '٣'; expected .*"),
        ("3", b"", r"body: not valid JSON: .*"),
        (None, b"ab", r"body: not valid JSON: Extra data: .*"),
        ("", b"ab", r"Inference-Header-Content-Length: ''; expected .*"),
    ],
)  # fmt: skip
def test_a_wrong_length_of_the_json_gets_one_line(length, binary, line):
    body, _ = body_of({"inputs": [tensor_entry()]}, binary)
    with pytest.raises(InputError, match=f"^{line}$"):
        parse_request(body, length)


def test_bytes_that_no_tensor_takes_are_refused():
    with pytest.raises(
        InputError, match=r"^body: 3 bytes follow the JSON; expected 0, the sum of all binary_data_size$"
    ):
        parse({"inputs": [tensor_entry()]}, b"abc")


def test_json_is_limited_before_it_is_parsed():
    body = memoryview(b"[" * (MAX_JSON_BYTES + 1))
    with pytest.raises(
        InputError, match=r"^body: 16777217 bytes of JSON; expected at most 16777216\. Send the"
    ):
        parse_request(body, None)


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=8), inner, max_size=4),
    max_leaves=8,
)
ENTRIES = st.fixed_dictionaries(
    {},
    optional={
        "name": st.sampled_from(["x", "y", "prompt_scale", ""]) | JSON,
        "shape": st.lists(st.integers(-1, 5), max_size=4) | JSON,
        "datatype": st.sampled_from(DATA_TYPES) | JSON,
        "data": st.lists(st.integers(-1, 300) | st.text(max_size=4) | st.floats(), max_size=6) | JSON,
        "parameters": st.fixed_dictionaries({}, optional={"binary_data_size": st.integers(-1, 40) | JSON})
        | JSON,
    },
)
BODIES = st.fixed_dictionaries(
    {},
    optional={
        "id": JSON,
        "parameters": JSON,
        "inputs": st.lists(ENTRIES, max_size=3) | JSON,
        "outputs": st.lists(
            st.fixed_dictionaries({}, optional={"name": JSON, "parameters": JSON}), max_size=3
        )
        | JSON,
    },
)


def attempt(function, *arguments):
    """Return the result and the line of the error, one of which is None or empty."""
    try:
        return function(*arguments), ""
    except InputError as error:
        return None, str(error)


@given(BODIES | JSON, st.binary(max_size=40), st.none() | st.integers(-2, 60))
def test_any_body_is_a_request_or_one_line(value, binary, shift):
    head = json.dumps(value).encode()
    length = None if shift is None else str(len(head) + (shift if shift > 20 else 0))
    request, line = attempt(parse_request, memoryview(head + binary), length)
    assert "\n" not in line
    assert line or request.inputs


@given(st.binary(max_size=200), st.none() | st.text(max_size=4))
def test_any_bytes_are_a_request_or_one_line(data, length):
    _, line = attempt(parse_request, memoryview(data), length)
    assert "\n" not in line


@given(
    st.sampled_from(DATA_TYPES),
    st.lists(st.integers(0, 4) | st.integers(0, 1 << 7), max_size=5).map(tuple),
    st.binary(max_size=64),
)
def test_any_binary_data_are_a_tensor_or_one_line(datatype, shape, data):
    tensor, line = attempt(from_binary, "x", datatype, shape, memoryview(data))
    assert line.startswith("x: ") or not line
    if tensor is not None and datatype not in ("BOOL", "BF16"):  # whose bytes are normalized
        assert tensor.to_binary() == data


@given(st.lists(st.integers(0, 255), min_size=6, max_size=6))
def test_json_and_binary_data_of_a_response_hold_the_same(values):
    tensor = from_json("x", "UINT8", (2, 3), values)
    request = InferRequest({"x": tensor}, id="one")
    text, data = encode_response("model", request, [(tensor, True), (Tensor.of_items("f", [b"\xff"]), False)])
    assert data == bytes(values)
    assert json.loads(text) == {
        "model_name": "model",
        "model_version": "1",
        "id": "one",
        "outputs": [
            {"name": "x", "datatype": "UINT8", "shape": [2, 3], "parameters": {"binary_data_size": 6}},
            {"name": "f", "datatype": "BYTES", "shape": [1], "data": ["/w=="]},
        ],
    }
    text, data = encode_response("model", request, [(tensor, False)])
    assert data is None
    assert json.loads(text)["outputs"][0]["data"] == values
