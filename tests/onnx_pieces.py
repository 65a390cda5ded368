"""Running pieces of a graph, and whole ones, in ONNX Runtime."""

import onnx
import onnxruntime as ort

from tcmoa_export.emit import Graph


def run_piece(build, **inputs):
    """Run `build(graph, *names)` (one output name or several) on arrays in ONNX Runtime; a list of arrays."""
    graph = Graph()
    results = build(graph, *inputs)
    results = [results] if isinstance(results, str) else list(results)
    model = graph.model("piece", [], [], "0")
    for name, value in inputs.items():
        dtype = onnx.helper.np_dtype_to_tensor_dtype(value.dtype)
        model.graph.input.append(onnx.helper.make_tensor_value_info(name, dtype, value.shape))
    for name in results:
        model.graph.output.append(onnx.ValueInfoProto(name=name))
    model = onnx.shape_inference.infer_shapes(model)
    onnx.checker.check_model(model)
    session = ort.InferenceSession(model.SerializeToString())
    return session.run(results, inputs)


def run_graph(proto, **inputs):
    """Outputs of a whole model by name."""
    session = ort.InferenceSession(proto.SerializeToString())
    names = [output.name for output in session.get_outputs()]
    return dict(zip(names, session.run(names, inputs), strict=True))
