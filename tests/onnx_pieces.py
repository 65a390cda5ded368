"""Running parts of a graph, and whole graphs, in ONNX Runtime."""

import numpy as np
import onnx
import onnxruntime as ort

from tcmoa_export.bf16_emulation import emulate_bf16
from tcmoa_export.graph_builder import GraphBuilder
from tcmoa_export.precision import lower


def run_piece(build, precision="fp32", **inputs):
    """Run `build(graph, *names)`, which returns one or several output names, on arrays; return float32 arrays.

    With another `precision` the graph is lowered, inputs and outputs rounded; bf16 is emulated.
    """
    graph = GraphBuilder()
    results = build(graph, *inputs)
    results = [results] if isinstance(results, str) else list(results)
    model = graph.build("piece", [], [], "0")
    for name, value in inputs.items():
        dtype = onnx.helper.np_dtype_to_tensor_dtype(value.dtype)
        model.graph.input.append(onnx.helper.make_tensor_value_info(name, dtype, value.shape))
    lower(model, precision)
    if precision == "bf16":
        emulate_bf16(model)
    for name in results:
        model.graph.output.append(onnx.ValueInfoProto(name=name))
    model = onnx.shape_inference.infer_shapes(model)
    if precision != "bf16":  # the checker expects bfloat16 where emulation has float32
        onnx.checker.check_model(model)
    session = open_graph(model)
    values = session.run(results, inputs)
    return values if precision == "fp32" else [value.astype(np.float32) for value in values]


def open_graph(proto):
    """Return a session of one thread: on busy cores, threads that wait for each other take several times as long."""
    options = ort.SessionOptions()
    options.log_severity_level = 3
    options.intra_op_num_threads = 1
    return ort.InferenceSession(proto.SerializeToString(), options)


def run_graph(graph, **inputs):
    """Return the outputs of a whole model, or of a session of one, by name."""
    session = graph if isinstance(graph, ort.InferenceSession) else open_graph(graph)
    names = [output.name for output in session.get_outputs()]
    return dict(zip(names, session.run(names, inputs), strict=True))
