"""Shapes that the check of a graph computes, compared with those of the package onnx."""

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper, shape_inference

from tcmoa_runtime.graph.rules import read_rules
from tcmoa_runtime.graph.shapes import SHAPE_RULES, ComputedError, Operands, ShapeError

# operator, shapes of the inputs (lists: constants), attributes, number of outputs
CASES = [
    ("Abs", [(2, 3)], {}, 1),
    ("Add", [(2, 1, 3), (4, 1)], {}, 1),
    ("Where", [(2, 1), (1, 3), ()], {}, 1),
    ("MatMul", [(2, 1, 3, 4), (5, 4, 6)], {}, 1),
    ("MatMul", [(4,), (2, 4, 3)], {}, 1),
    ("MatMul", [(2, 3, 4), (4,)], {}, 1),
    ("Gemm", [(3, 2), (5, 3), (5,)], {"transA": 1, "transB": 1}, 1),
    ("Conv", [(1, 4, 9, 10), (6, 2, 3, 3)], {"group": 2, "strides": [2, 1], "pads": [1, 0, 2, 1]}, 1),
    ("Conv", [(1, 4, 9, 10), (6, 4, 3, 3)], {"auto_pad": "SAME_UPPER", "strides": [2, 3]}, 1),
    ("Conv", [(1, 4, 9, 10), (6, 4, 3, 3)], {"auto_pad": "VALID", "dilations": [2, 2]}, 1),
    ("ConvTranspose", [(1, 4, 5, 6), (4, 3, 3, 3)], {"strides": [2, 2], "output_padding": [1, 1]}, 1),
    ("ConvTranspose", [(1, 4, 5, 6), (4, 3, 3, 3)], {"strides": [2, 2], "pads": [1, 1, 0, 1], "group": 2}, 1),
    ("ConvTranspose", [(1, 4, 5, 6), (4, 3, 3, 3)], {"strides": [2, 2], "output_shape": [10, 12]}, 1),
    ("MaxPool", [(1, 3, 10, 11)], {"kernel_shape": [3, 3], "strides": [2, 2]}, 1),
    ("MaxPool", [(1, 3, 10, 12)], {"kernel_shape": [3, 3], "strides": [2, 2], "ceil_mode": 1}, 1),
    ("AveragePool", [(1, 3, 10, 11)], {"kernel_shape": [2, 3], "pads": [0, 1, 1, 1]}, 1),
    ("GlobalAveragePool", [(2, 3, 4, 5)], {}, 1),
    ("ReduceMean", [(2, 3, 4), [1, -1]], {"keepdims": 0}, 1),
    ("ReduceSum", [(2, 3, 4)], {}, 1),
    ("ReduceMax", [(2, 3, 4)], {"noop_with_empty_axes": 1}, 1),
    ("ArgMax", [(2, 3, 4)], {"axis": -2, "keepdims": 0}, 1),
    ("Reshape", [(2, 3, 4), [0, -1]], {}, 1),
    ("Reshape", [(2, 3, 4), [4, 6]], {}, 1),
    ("Flatten", [(2, 3, 4)], {"axis": 2}, 1),
    ("Flatten", [(2, 3, 4)], {"axis": -3}, 1),
    ("Transpose", [(2, 3, 4)], {"perm": [2, 0, 1]}, 1),
    ("Transpose", [(2, 3, 4)], {}, 1),
    ("Squeeze", [(1, 3, 1), [-1]], {}, 1),
    ("Squeeze", [(1, 3, 1)], {}, 1),
    ("Unsqueeze", [(2, 3), [0, -1]], {}, 1),
    ("Concat", [(2, 3), (2, 5), (2, 1)], {"axis": -1}, 1),
    ("Split", [(2, 9), [2, 3, 4]], {"axis": 1}, 3),
    ("Split", [(2, 9)], {"axis": 1, "num_outputs": 4}, 4),
    ("Slice", [(9, 8), [1, -2], [7, -9], [0, 1], [3, -2]], {}, 1),
    ("Slice", [(9, 8), [-100], [2**62]], {}, 1),
    ("Pad", [(2, 3), [1, 0, 2, -1]], {}, 1),
    ("Pad", [(2, 3), [4, 5], None, [1]], {}, 1),
    ("Resize", [(1, 3, 5, 6), None, None, [1, 3, 7, 9]], {}, 1),
    ("Resize", [(1, 3, 5, 6), None, [1.0, 1.0, 1.5, 0.5]], {}, 1),
    ("Resize", [(1, 3, 5, 6), None, None, [7, 9]], {"axes": [2, 3]}, 1),
    ("Gather", [(2, 3, 4), (5, 6)], {"axis": 1}, 1),
    ("GatherElements", [(2, 3), (2, 7)], {"axis": 1}, 1),
    ("Expand", [(3, 1), [2, 1, 6]], {}, 1),
    ("Tile", [(2, 3), [2, 3]], {}, 1),
    ("DepthToSpace", [(1, 12, 2, 3)], {"blocksize": 2}, 1),
    ("SpaceToDepth", [(1, 3, 4, 6)], {"blocksize": 2}, 1),
    ("ConstantOfShape", [[2, 3]], {}, 1),
    ("LayerNormalization", [(2, 3), (3,), (3,)], {}, 1),
    ("Softmax", [(2, 3)], {}, 1),
]


def as_array(values):
    return np.asarray(values, np.float32 if isinstance(values[0], float) else np.int64)


def infer_here(op, inputs, attributes, num_outputs):
    """Return the shapes that the runtime computes."""
    operands = Operands(
        [None if i is None else i if isinstance(i, tuple) else (len(i),) for i in inputs],
        {k.encode(): v.encode() if isinstance(v, str) else v for k, v in attributes.items()},
        lambda index: list(map(int, inputs[index])),
        lambda index: list(map(float, as_array(inputs[index]))),
        num_outputs,
    )
    shapes, steps = SHAPE_RULES[read_rules().operators[op.encode()].shape](operands)
    assert steps >= 0
    return shapes


def infer_with_onnx(op, inputs, attributes, num_outputs):
    """Return the shapes that the package onnx infers."""
    names = ["" if given is None else f"i{n}" for n, given in enumerate(inputs)]
    is_bool = {"Where": {0}}.get(op, set())
    is_index = {"Gather": {1}, "GatherElements": {1}}.get(op, set())
    infos, constants = [], []
    for n, given in enumerate(inputs):
        if isinstance(given, tuple):
            kind = (
                TensorProto.BOOL
                if n in is_bool
                else TensorProto.INT64
                if n in is_index
                else TensorProto.FLOAT
            )
            infos.append(helper.make_tensor_value_info(names[n], kind, given))
        elif given is not None:
            constants.append(numpy_helper.from_array(as_array(given), names[n]))
    outputs = [f"o{n}" for n in range(num_outputs)]
    node = helper.make_node(op, names, outputs, **attributes)
    graph = helper.make_graph([node], "g", infos, [onnx.ValueInfoProto(name=o) for o in outputs], constants)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=8)
    inferred = shape_inference.infer_shapes(model, strict_mode=True, data_prop=True)
    return [tuple(d.dim_value for d in o.type.tensor_type.shape.dim) for o in inferred.graph.output]


@pytest.mark.parametrize("case", CASES, ids=lambda case: case[0])
def test_shapes_equal_those_of_the_package_onnx(case):
    assert infer_here(*case) == infer_with_onnx(*case)


@pytest.mark.parametrize(
    ("op", "inputs", "attributes"),
    [
        ("Add", [(2,), (3,)], {}),
        ("MatMul", [(2, 3), (4, 5)], {}),
        ("Conv", [(1, 3, 2, 2), (4, 3, 3, 3)], {}),
        ("Conv", [(1, 3, 9, 9), (4, 3, 3, 3)], {"strides": [0, 1]}),
        ("Conv", [(1, 3, 9, 9), (4, 3, 3, 3)], {"auto_pad": "LEFT"}),
        ("Reshape", [(2, 3), [-1, -1]], {}),
        ("Reshape", [(2, 3), [5]], {}),
        ("Transpose", [(2, 3)], {"perm": [0, 0]}),
        ("Concat", [(2, 3), (3, 4)], {"axis": 0}),
        ("Squeeze", [(2, 3), [0]], {}),
        ("Split", [(4,), [2, 3]], {}),
        ("Slice", [(4,), [0], [2], [0], [0]], {}),
        ("Pad", [(2,), [-2, -1]], {}),
        ("Tile", [(2,), [-1]], {}),
        ("Expand", [(2,), [-1]], {}),
        ("Resize", [(2,), None, [float("nan")]], {}),
        ("Resize", [(2,), None, None, [2]], {"keep_aspect_ratio_policy": "not_larger"}),
        ("DepthToSpace", [(1, 3, 2, 2)], {"blocksize": 2}),
        ("Gather", [(2,), (1,)], {"axis": 3}),
        ("Abs", [], {}),
        ("Add", [], {}),
    ],
)
def test_inputs_that_do_not_fit_are_refused(op, inputs, attributes):
    with pytest.raises(ShapeError):
        infer_here(op, inputs, attributes, 2 if op == "Split" else 1)


def test_a_size_that_is_computed_is_refused():
    def computed(_):
        raise ComputedError

    with pytest.raises(ComputedError):
        SHAPE_RULES["reshape"](Operands([(2, 3), (1,)], {}, computed, computed, 1))


def test_every_operator_of_the_rules_has_a_rule_and_is_an_operator_of_onnx():
    for name, operator in read_rules().operators.items():
        assert operator.shape in {*SHAPE_RULES, "constant"}
        schema = onnx.defs.get_schema(name.decode(), 23)
        assert not schema.deprecated
        assert not any(a.type == onnx.defs.OpSchema.AttrType.GRAPH for a in schema.attributes.values())
