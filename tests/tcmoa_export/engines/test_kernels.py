"""Reading kernels from the builder's log and from the inspector's JSON."""

import copy
import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tcmoa_export.engines.kernel_lists import kernels_from_inspector, kernels_from_log
from tcmoa_export.engines.kernels import ELEMENT_BYTES, AuditError, Kernel, TensorView


def tensor(name, shape, dtype):
    """Return a tensor as the log prints it."""
    numbers = ",".join(map(str, shape))
    order = ",".join(map(str, reversed(range(len(shape)))))
    return (
        f"{{ Name: {name}, Dimensions: [{numbers}], Strides: [{numbers}], StrideOrder: [{order}], "
        f"Datatype: {dtype}, Format: (Linear) Row major linear format }}"
    )


def row(name, layer, inputs=(), outputs=(), constants=(), nodes=()):
    """Return a kernel as the log prints it, without the key `Constants` if `constants` is None."""
    lists = {"Inputs": inputs, "Constants": constants, "Outputs": outputs}
    fields = [
        f"{key}: [ {', '.join(tensor(*t) for t in tensors)}]" if tensors else f"{key}: []"
        for key, tensors in lists.items()
        if tensors is not None
    ]
    metadata = "".join(f"[ONNX Layer: {node}]" for node in nodes)
    return f"Name: {name}, LayerType: {layer}, {', '.join(fields)}, TacticName: , StreamId: 0, Metadata: {metadata}"


def kernel(name="k", layer="kgen", inputs=(), outputs=(), constants=(), nodes=()):
    """Return the only kernel of a log."""
    (found,) = kernels_from_log([row(name, layer, inputs, outputs, constants, nodes)])
    return found


ATTENTION = row(
    "_gemm_mha_v2_myl0_4",
    "kgen",
    [("qkv", (144, 196, 32), "Half"), ("qkv", (144, 32, 196), "Half"), ("qkv", (144, 196, 32), "Half")],
    [("mixed", (144, 196, 32), "Half")],
    [("encoder.0/attention/position_bias/fp16_constantHalf_myl0", (1, 8, 196, 196), "Half")],
    [
        f"encoder.0/attention/{n}"
        for n in ("MatMul.2", "MatMul.2/fp16", "Softmax/fp32", "Softmax", "MatMul.1")
    ],
)
PRODUCT = row(
    "__mye61345+__mye61333+__mye61321_myl0_3",
    "gemm",
    [("normed", (3528, 256), "Half")],
    [("qkv", (3, 3528, 256), "Half")],
    [("weight", (3, 256, 256), "Half"), ("alpha", (1,), "Float"), ("beta", (1,), "Float")],
    ["encoder.0/attention/MatMul", "encoder.0/attention/Split"],
)
GATHER = row(
    "__myl_Gath_myl0_9",
    "kgen",
    [("tokens", (10, 4), "Half")],
    [("taken", (6, 4), "Half"), ("mask", (6,), "Bool")],
    [("index", (6,), "Int32"), ("one", (), "Float")],
    ["encoder.0/attention/Gather"],
)
LOG = [
    "Engine generation completed in 1.25 seconds.",
    "Engine Layer Information:\nLayers:\n" + "\n".join([PRODUCT, ATTENTION]),
    GATHER,
    "[MemUsageStats] Peak memory usage of TRT CPU/GPU memory allocators: CPU 4 MiB, GPU 0 MiB",
]
"""Messages as the logger receives them: some have several lines."""


def test_the_kernels_of_a_log_are_read_in_order():
    product, attention, gather = kernels_from_log(LOG)
    assert product == Kernel(
        "__mye61345+__mye61333+__mye61321_myl0_3",
        "gemm",
        (TensorView("normed", (3528, 256), "Half"),),
        (
            TensorView("weight", (3, 256, 256), "Half"),
            TensorView("alpha", (1,), "Float"),
            TensorView("beta", (1,), "Float"),
        ),
        (TensorView("qkv", (3, 3528, 256), "Half"),),
        ("encoder.0/attention/MatMul", "encoder.0/attention/Split"),
    )
    assert [t.shape for t in attention.inputs] == [(144, 196, 32), (144, 32, 196), (144, 196, 32)]
    assert attention.nodes == (
        "encoder.0/attention/MatMul.2",
        "encoder.0/attention/MatMul.2/fp16",
        "encoder.0/attention/Softmax/fp32",
        "encoder.0/attention/Softmax",
        "encoder.0/attention/MatMul.1",
    )
    assert (gather.name, [t.name for t in gather.outputs]) == ("__myl_Gath_myl0_9", ["taken", "mask"])


def test_bytes_equal_those_counted_by_hand():
    product, attention, gather = kernels_from_log(LOG)
    # [3528, 256] halves are read, three times as many written; constants: 3 * 256 * 256 halves and two floats.
    assert product.activation_bytes == 3528 * 256 * 2 * 4 == 7_225_344
    assert product.constant_bytes == 393_216 + 8
    assert product.bytes == 7_225_344 + 393_224
    # q, k, v and the result are views of 144 * 196 * 32 halves each.
    assert attention.activation_bytes == 4 * 1_806_336
    assert attention.constant_bytes == 8 * 196 * 196 * 2 == 614_656
    # 40 + 24 halves, 6 booleans; 6 indices of 4 bytes and one scalar float.
    assert (gather.activation_bytes, gather.constant_bytes) == (128 + 6, 24 + 4)


@pytest.mark.parametrize(("dtype", "count"), ELEMENT_BYTES.items())
def test_the_size_of_every_type(dtype, count):
    sizes = {"Float": 4, "Half": 2, "BFloat16": 2, "Int32": 4, "Int64": 8}
    assert count == sizes.get(dtype, 1)
    assert kernel(outputs=[("a", (3, 5), dtype)]).bytes == 15 * count


def test_markers_are_not_kernels():
    markers = [
        row("__mye_signal_0", "signal", [("a", (2,), "Half")], []),
        row("__mye_wait_0", "wait", [], [("a", (2,), "Half")]),
    ]
    assert [k.layer for k in kernels_from_log([markers[0], GATHER, markers[1]])] == ["kgen"]
    layers = [as_json("s", "signal"), as_json("k", "kgen"), as_json("w", "wait")]
    assert [k.name for k in kernels_from_inspector(json.dumps({"Layers": layers}))] == ["k"]


@pytest.mark.parametrize(
    "name",
    [
        "a, b",
        "a[0], b[1]",
        "{ForeignNode[a...b]}",
        "a + b + c",
        "PWN(PWN(a, b), c)",
        "encoder.0/attention/MatMul.2_U71_myl0_6",
        "LayerType of a",
        "",
    ],
)
def test_names_may_contain_separators(name):
    found = kernel(name, inputs=[(name or "x", (2, 3), "Half")], outputs=[("out [1]", (), "Float")])
    assert (found.name, found.inputs[0].name, found.inputs[0].shape) == (name, name or "x", (2, 3))
    assert found.outputs == (TensorView("out [1]", (), "Float"),)


def test_rows_may_lack_constants():
    (found,) = kernels_from_log([row("k", "Reformat", [("a", (4,), "Half")], [("b", (4,), "Float")], None)])
    assert (found.constants, found.bytes, found.nodes) == ((), 8 + 16, ())


@pytest.mark.parametrize(
    ("messages", "words"),
    [
        ([], "lists no kernels"),
        (["Engine Layer Information:\nLayers:\n", "done"], "lists no kernels"),
        (["Layers: Name: a, LayerType: kgen"], "lists no kernels"),
        ([row("k", "kgen", [("a", (1,), "Int4")])], "tensor 'a': has type 'Int4'; expected one of Float"),
        ([PRODUCT.split(", LayerType")[0]], "row of an unknown form"),
        ([PRODUCT.split(", Outputs")[0]], "row of an unknown form"),
        ([PRODUCT[: PRODUCT.index("StrideOrder")]], "row of an unknown form"),
        ([PRODUCT.replace("Datatype", "Type")], "tensor of an unknown form"),
        ([PRODUCT.replace("Dimensions: [3528,256]", "Dimensions: [-1,256]")], "tensor of an unknown form"),
        ([PRODUCT.replace("[3528,256], Str", f"[{'9' * 5000}], Str")], "tensor of an unknown form"),
        ([ATTENTION[: ATTENTION.index(" Half", 200)]], "of an unknown form"),
        (["Name: "], "row of an unknown form"),
    ],
    ids=range(12),
)
def test_other_logs_are_refused_in_one_line(messages, words):
    with pytest.raises(AuditError, match=words.replace("[", r"\[")) as error:
        kernels_from_log(messages)
    assert "\n" not in str(error.value)
    assert len(str(error.value)) < 400


CAST = [("x", (2,), "UInt8")], [("y", (2,), "Half")]
HALVES = [("a", (4, 4), "Half")], [("b", (4, 4), "Half")]


@pytest.mark.parametrize(
    ("layer", "name", "nodes", "kind"),
    [
        ("kgen", "_gemm_mha_v2", ["e/attention/MatMul.1", "e/attention/Softmax"], "attention"),
        ("gemm", "g", ["e/attention/MatMul.1"], "matmul"),
        ("MatrixMultiply", "g", [], "matmul"),
        ("matmul", "g", [], "matmul"),
        ("runtime_fusion", "__myl_FcAddAdd_myl0_5", ["e/mlp/MatMul.1", "e/mlp/Add"], "matmul"),
        ("kgen", "__myl_DotAdd_myl0_5", [], "matmul"),
        ("correlation", "head/Conv", ["head/Conv"], "convolution"),
        ("CaskConvolution", "c", [], "convolution"),
        ("Convolution", "c", [], "convolution"),
        ("kgen", "__myl_CastMean", ["e/mlp/LayerNormalization", "e/mlp/Cast"], "normalize"),
        ("kgen", "__myl_AddMaxrSubExpSumDivMul", ["e/attention/Softmax", "e/attention/Add"], "other"),
        # Gating has a softmax, and a kernel that prepares an operand lists the product.
        ("kgen", "__myl_Gate", ["encoder_moa.0/MatMul", "encoder_moa.0/Softmax"], "other"),
        ("kgen", "__myl_Tran", ["e/attention/MatMul.1"], "other"),
        ("Reformat", "copy", [], "other"),
    ],
)
def test_every_kind_of_kernel(layer, name, nodes, kind):
    assert kernel(name, layer, *HALVES, nodes=nodes).kind == kind


@pytest.mark.parametrize(
    ("layer", "tensors", "precision"),
    [
        ("kgen", HALVES, "fp16"),
        ("kgen", ([("a", (2,), "BFloat16")], []), "bf16"),
        ("kgen", ([("a", (2,), "FP8")], []), "fp8"),
        ("kgen", ([("i", (2,), "Int32"), ("a", (2,), "Float")], []), "fp32"),
        ("kgen", CAST, "fp16"),
        ("kgen", ([("a", (2,), "Int8")], []), "int8"),
        ("kgen", ([("a", (2,), "Int32")], [("b", (2,), "Bool")]), "none"),
        ("kgen", ([("a", (2,), "Float")], [], [("c", (9, 9), "Half")]), "fp32"),
        # The first tensor of a product can be a float32 residual; its scale factors are always float32.
        ("gemm", ([("old", (2,), "Float"), ("a", (2,), "BFloat16")], [], [("w", (9,), "BFloat16")]), "bf16"),
        ("gemm", (*HALVES, [("alpha", (1,), "Float"), ("beta", (), "Float")]), "fp16"),
        ("correlation", (*HALVES, [("w", (9, 4), "Half"), ("bias", (9,), "Float")]), "fp16"),
        ("gemm", ([("a", (2,), "Float")], [], [("rows", (99,), "Int32"), ("w", (9,), "Float")]), "fp32"),
    ],
)
def test_precision_is_that_of_the_arithmetic(layer, tensors, precision):
    assert kernel("k", layer, *tensors).precision == precision


# --- the inspector ---


def as_json(name, layer, inputs=(), outputs=(), constants=(), nodes=()):
    def plain(tensors):
        return [
            {"Name": n, "Location": "Device", "Dimensions": list(s), "Datatype": d} for n, s, d in tensors
        ]

    return {
        "Name": name,
        "LayerType": layer,
        "Inputs": plain(inputs),
        "Constants": plain(constants),
        "Outputs": plain(outputs),
        "TacticName": "",
        "StreamId": 0,
        "Metadata": "\x1e".join(f"[ONNX Layer: {node}]" for node in nodes),
    }


EXAMPLE = [
    (
        "n+[0], x",
        "gemm",
        [("a", (3, 4), "Half")],
        [("b", (3, 8), "Half")],
        [("w", (4, 8), "Half")],
        ["a/MatMul"],
    ),
    (
        "m",
        "kgen",
        [("b", (3, 8), "Half"), ("s", (), "Float")],
        [("c", (3, 8), "UInt8")],
        [],
        ["a/Add", "a/Mul"],
    ),
]


def test_inspector_and_log_give_the_same_kernels():
    text = json.dumps({"Layers": [as_json(*e) for e in EXAMPLE], "Bindings": ["a", "c"]})
    assert kernels_from_inspector(text) == kernels_from_log([row(*e) for e in EXAMPLE])


def test_the_inspector_may_leave_separators_of_nodes_unescaped():
    """0x1E between the nodes of a kernel, as in the log; strict JSON allows it as an escape only."""
    text = json.dumps({"Layers": [as_json(*e) for e in EXAMPLE]})
    assert "\\u001e" in text
    assert kernels_from_inspector(text.replace("\\u001e", "\x1e")) == kernels_from_inspector(text)


@pytest.mark.parametrize(
    ("form", "dtype"),
    [
        ("Row major linear FP16 format", "Half"),
        ("Row major linear FP32", "Float"),
        ("Channel major FP16 format where channel % 8 == 0", "Half"),
        ("Four wide channel vectorized row major Int8 format", "Int8"),
        ("Row major linear BFloat16 format", "BFloat16"),
        ("Row major linear BF16 format", "BFloat16"),
        ("Half", "Half"),
        ("Row major linear Int32 format", "Int32"),
        ("Row major linear UInt8 format", "UInt8"),
        ("Row major linear Bool format", "Bool"),
    ],
)
def test_older_inspectors_have_format_and_type_in_one_string(form, dtype):
    layer = as_json("k", "kgen", outputs=[("a", (2, 3), "Half")])
    del layer["Outputs"][0]["Datatype"]
    layer["Outputs"][0]["Format/Datatype"] = form
    (found,) = kernels_from_inspector(json.dumps({"Layers": [layer]}))
    assert found.outputs == (TensorView("a", (2, 3), dtype),)


def test_layers_may_lack_constants_and_metadata():
    layer = as_json("k", "kgen", [("a", (2,), "Half")])
    del layer["Constants"], layer["Metadata"], layer["Outputs"]
    assert kernels_from_inspector(json.dumps({"Layers": [layer]})) == [
        Kernel("k", "kgen", (TensorView("a", (2,), "Half"),), (), (), ())
    ]


@pytest.mark.parametrize(
    "text",
    [
        "",
        "{",
        "null",
        "[]",
        "3",
        "{}",
        '{"Layers": null}',
        '{"Layers": 3}',
        '{"Layers": ["gemm_0", "copy_1"]}',  # from a build without verbosity DETAILED
        '{"Layers": [{"Name": "a"}]}',
        '{"Layers": [{"Name": "a", "LayerType": null}]}',
        '{"Layers": [{"Name": 3, "LayerType": "kgen"}]}',
        '{"Layers": [{"Name": "a", "LayerType": "kgen", "Inputs": [{"Name": "x"}]}]}',
        '{"Layers": [{"Name": "a", "LayerType": "kgen", "Metadata": 3}]}',
        "[" * 200_000,
        *(
            json.dumps({"Layers": [as_json("a", "kgen", [("x", shape, dtype)])]})
            for shape, dtype in [
                ((-1,), "Half"),
                (("2",), "Half"),
                ((2.5,), "Half"),
                ((None,), "Half"),
                ("12", "Half"),
                ((2,), "Int4"),
                ((2,), "line\nbreak"),
                ((2,), ["Half"]),
            ]
        ),
    ],
    ids=range(23),
)
def test_other_json_is_refused_in_one_line(text):
    with pytest.raises(AuditError) as error:
        kernels_from_inspector(text)
    assert "\n" not in str(error.value)


def test_an_unknown_older_format_is_refused():
    layer = as_json("k", "kgen", outputs=[("a", (2, 3), "Half")])
    del layer["Outputs"][0]["Datatype"]
    layer["Outputs"][0]["Format/Datatype"] = "N/A due to dynamic shapes"
    with pytest.raises(AuditError, match="tensor 'a': has type 'unknown'"):
        kernels_from_inspector(json.dumps({"Layers": [layer]}))


# --- damage ---


def assert_whole(kernels):
    """Assert that every property of the kernels can be computed."""
    assert all(isinstance(k, Kernel) for k in kernels)
    for k in kernels:
        assert k.bytes == k.activation_bytes + k.constant_bytes >= 0
        assert k.kind in ("attention", "matmul", "convolution", "normalize", "other")
        assert isinstance(k.precision, str)


def assert_whole_or_refused(read, text):
    """Assert that reading returns kernels or raises an AuditError of one line."""
    message = ""
    try:
        kernels = read(text)
    except AuditError as error:
        message = str(error)
    else:
        assert_whole(kernels)
    assert "\n" not in message


def damaged(text):
    """Return a strategy for `text` truncated, or with a part of it replaced."""
    place = st.integers(0, len(text))
    pieces = st.one_of(
        st.text(max_size=6), st.sampled_from(["{ Name: ", "}", "]", ", Inputs: ", '"', "[]", "9"])
    )
    return st.one_of(
        place.map(lambda i: text[:i]),
        st.tuples(place, st.integers(0, 60), pieces).map(lambda t: text[: t[0]] + t[2] + text[t[0] + t[1] :]),
    )


@given(damaged("\n".join([PRODUCT, ATTENTION, GATHER])))
def test_a_damaged_log_gives_kernels_or_an_audit_error(text):
    assert_whole_or_refused(kernels_from_log, [text])


WHOLE = {"Layers": [as_json(*e) for e in EXAMPLE]}


@given(damaged(json.dumps(WHOLE)))
def test_damaged_json_gives_kernels_or_an_audit_error(text):
    assert_whole_or_refused(kernels_from_inspector, text)


def places(value, path=()):
    """Yield the paths of all values inside a JSON value."""
    yield path
    items = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, inner in items:
        yield from places(inner, (*path, key))


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=5,
)


@given(st.sampled_from(list(places(WHOLE))[1:]), JSON)
def test_json_of_another_form_gives_kernels_or_an_audit_error(path, value):
    changed = copy.deepcopy(WHOLE)
    inner = changed
    for key in path[:-1]:
        inner = inner[key]
    inner[path[-1]] = value
    assert_whole_or_refused(kernels_from_inspector, json.dumps(changed))
