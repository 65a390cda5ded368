"""Small networks to wrap, written node by node with fixed seeds, in the forms that published ones have."""

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper


class Writer:
    """Collects nodes of an ONNX graph."""

    def __init__(self, seed=0):
        self.rng = np.random.default_rng(seed)
        self.nodes, self.constants = [], []

    def constant(self, value, dtype=np.float32):
        name = f"constant{len(self.constants)}"
        self.constants.append(numpy_helper.from_array(np.asarray(value, dtype), name))
        return name

    def op(self, kind, *inputs, **attributes):
        name = f"{kind}{len(self.nodes)}"
        self.nodes.append(helper.make_node(kind, inputs, [name], name=name, **attributes))
        return name

    def conv(self, value, source, target, *, kernel=3, scale=0.4):
        weights = self.constant(self.rng.normal(0, scale, (target, source, kernel, kernel)))
        bias = self.constant(self.rng.normal(0.2, 0.1, target))
        pad = kernel // 2
        return self.op("Conv", value, weights, bias, pads=[pad] * 4)

    def save(self, path, inputs, outputs, *, opset=17, dtype=TensorProto.FLOAT):
        """Save a graph; inputs are (name, dims), and outputs (value, name, dims), None for four unknown sizes."""
        nodes = list(self.nodes)
        infos = []
        for value, name, dims in outputs:
            nodes.append(helper.make_node("Identity", [value], [name]))
            infos.append(helper.make_tensor_value_info(name, dtype, dims or tuple("pqrs")))
        graph = helper.make_graph(
            nodes,
            "net",
            [helper.make_tensor_value_info(name, dtype, dims) for name, dims in inputs],
            infos,
            self.constants,
        )
        model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=8)
        onnx.checker.check_model(model)
        onnx.save(model, path)
        return path


# Exporters give sizes names that say nothing, or the wrong thing.
ANY = ("batch", 1, "batch", "batch")
ANY_RGB = ("batch", 3, "batch", "batch")


def two_inputs(
    path, *, channels=(1, 1), out=1, names=("a", "b"), dims=None, last="Sigmoid", opset=17, **sizes
):
    """A network with an input for each source, NCHW; `last` is its last activation, or None."""
    net = Writer()
    joined = net.op("Concat", *names, axis=1)
    hidden = net.op("Relu", net.conv(joined, sum(channels), 6))
    value = net.conv(hidden, 6, out)
    if last:
        value = net.op(last, value)
    shapes = dims or [("n", c, "h", "w") for c in channels]
    return net.save(path, list(zip(names, shapes, strict=True)), [(value, "fused", None)], opset=opset)


def joined_channels(path, *, count=2, out=1, layout="nchw", dims=None):
    """A network with one input, both sources joined as channels."""
    net = Writer()
    value = "pair"
    if layout == "nhwc":
        value = net.op("Transpose", value, perm=[0, 3, 1, 2])
    value = net.op("Sigmoid", net.conv(net.op("Relu", net.conv(value, count, 6)), 6, out))
    if layout == "nhwc":
        value = net.op("Transpose", value, perm=[0, 2, 3, 1])
    return net.save(path, [("pair", dims or ("a", "a", "a", "a"))], [(value, "fused", None)])


def joined_batch(path, *, with_small=False, output="picture"):
    """A network like MEFNet: sources joined as batch, a smaller copy, weight maps or their sum."""
    net = Writer()
    hidden = net.op("Relu", net.conv("I_hr", 1, 4))
    if with_small:
        small = net.op("GlobalAveragePool", net.conv("I_lr", 1, 4))
        hidden = net.op("Mul", hidden, small)
    maps = net.op("Softmax", net.conv(hidden, 4, 1, scale=2.0), axis=0)
    fused = net.op("ReduceSum", net.op("Mul", maps, "I_hr"), net.constant([0], np.int64), keepdims=1)
    inputs = [("I_lr", ANY)] if with_small else []
    outputs = [(fused, "O_hr", None), (maps, "W_hr", None)]
    return net.save(path, [*inputs, ("I_hr", ANY)], outputs if output == "both" else outputs[:1])


def joined_depth(path, layout="ncdhw"):
    """A network like StackMFF: sources joined as depth, 5-D, halved and doubled inside."""
    net = Writer()
    value = "stack"
    if layout == "ndchw":
        value = net.op("Transpose", value, perm=[0, 2, 1, 3, 4])
    weights = net.constant(net.rng.normal(0, 0.4, (4, 1, 2, 3, 3)))
    value = net.op("Conv", value, weights, pads=[0, 1, 1, 0, 1, 1])
    value = net.op("Squeeze", value, net.constant([2], np.int64))
    small = net.op("AveragePool", value, kernel_shape=[4, 4], strides=[4, 4])
    large = net.op("Resize", small, "", net.constant([1, 1, 4, 4]), mode="nearest")
    value = net.op("Sigmoid", net.conv(net.op("Add", value, large), 4, 1))
    dims = ("n", 1, 2, "h", "w") if layout == "ncdhw" else ("n", 2, 1, "h", "w")
    return net.save(path, [("stack", dims)], [(value, "fused", None)])


def with_constants(path):
    """A network with further inputs besides the pictures, and an output that is not used."""
    net = Writer()
    value = net.op("Add", net.op("Mul", "vi", "sigma"), net.op("Mul", "ir", "scale"))
    value = net.op("Sigmoid", net.conv(value, 1, 1))
    heavy = net.conv(net.conv(value, 1, 32), 32, 32)
    inputs = [("vi", ANY), ("ir", ANY), ("sigma", ()), ("scale", ("n", 1, 1, 1))]
    return net.save(path, inputs, [(heavy, "features", None), (value, "fused", None)])


def weights(path, *, maps=1):
    """A network whose outputs weigh the sources."""
    net = Writer()
    value = net.op("Sigmoid", net.conv(net.op("Concat", "a", "b", axis=1), 6, maps, scale=0.8))
    return net.save(path, [("a", ANY_RGB), ("b", ANY_RGB)], [(value, "w", None)])


def old_operators(path):
    """A network in operator set 9: Upsample, Pad and Clip with attributes, misleading names of sizes."""
    net = Writer()
    joined = net.op("Concat", "input1", "input2", axis=1)
    padded = net.op("Pad", joined, mode="reflect", pads=[0, 0, 2, 2, 0, 0, 2, 2])
    weight = net.constant(net.rng.normal(0, 0.4, (6, 2, 3, 3)))
    hidden = net.op("Relu", net.op("Conv", padded, weight, pads=[0] * 4))
    half = net.op("MaxPool", hidden, kernel_shape=[2, 2], strides=[2, 2])
    double = net.op("Upsample", half, net.constant([1, 1, 2, 2]), mode="linear")
    cut = net.op("Slice", double, axes=[2, 3], starts=[1, 1], ends=[-1, -1])
    value = net.op("Clip", net.conv(cut, 6, 1), min=0.0, max=1.0)
    return net.save(path, [("input1", ANY), ("input2", ANY)], [(value, "out", None)], opset=9)
