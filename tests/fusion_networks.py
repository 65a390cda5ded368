"""Small fusion networks of others as ONNX files: seeded convolutions written by hand, which really fuse."""

from pathlib import Path

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

LUMA = np.array([0.299, 0.587, 0.114], np.float32)


class Net:
    """A graph that grows node by node; every value is float32 NCHW with free sizes."""

    def __init__(self, seed=0):
        self.rng = np.random.default_rng(seed)
        self.nodes, self.constants, self.inputs = [], [], []

    def input(self, name, channels):
        """Add an input."""
        self.inputs.append(helper.make_tensor_value_info(name, TensorProto.FLOAT, [1, channels, "h", "w"]))
        return name

    def op(self, kind, *inputs, **attributes):
        """Add a node; arrays become constants."""
        names = []
        for value in inputs:
            if isinstance(value, np.ndarray):
                name = f"constant{len(self.constants)}"
                self.constants.append(numpy_helper.from_array(value, name))
                value = name
            names.append(value)
        output = f"value{len(self.nodes)}"
        self.nodes.append(helper.make_node(kind, names, [output], **attributes))
        return output

    def conv(self, value, weights, bias=0.0):
        """Convolve with weights [C_out, C_in, k, k], of the same size."""
        weights = np.asarray(weights, np.float32)
        half = weights.shape[-1] // 2
        return self.op("Conv", value, weights, np.full(len(weights), bias, np.float32), pads=[half] * 4)

    def blur(self, value, side=9):
        """Blur one channel with a seeded positive kernel, whose edges are those of the network's padding."""
        kernel = self.rng.uniform(0.8, 1.2, (1, 1, side, side)).astype(np.float32)
        half = side // 2
        pads = np.array([0, 0, half, half, 0, 0, half, half], np.int64)
        padded = self.op("Pad", value, pads, mode="edge")
        return self.op("Conv", padded, kernel / kernel.sum())

    def scaled(self, value, factor):
        """Multiply by a number."""
        return self.op("Mul", value, np.array(factor, np.float32))

    def total(self, *values):
        """Add several values."""
        return self.op("Sum", *values)

    def clipped(self, value, low=0.0, high=1.0):
        """Clip."""
        return self.op("Clip", value, np.array(low, np.float32), np.array(high, np.float32))

    def write(self, path: Path, output, channels):
        """Write the file with one output."""
        result = helper.make_tensor_value_info("out", TensorProto.FLOAT, [1, channels, "h", "w"])
        self.nodes.append(helper.make_node("Identity", [output], ["out"]))
        graph = helper.make_graph(self.nodes, "net", self.inputs, [result], self.constants)
        model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=8)
        onnx.checker.check_model(model)
        onnx.save(model, path)
        return path


def fuse_luma(net: Net, first, second, keep=0.4):
    """Fuse two planes in 0..1: mean of the blurred ones, all details of the first and some of the second."""
    base = [net.blur(value) for value in (first, second)]
    details = [net.op("Sub", value, blurred) for value, blurred in zip((first, second), base, strict=True)]
    return net.total(*(net.scaled(value, 0.5) for value in base), details[0], net.scaled(details[1], keep))


def luma_network(path, *, low=0.0, high=1.0, seed=0):
    """Write a network of two planes, first and second, that clips to its range as a last activation does."""
    net = Net(seed)
    fused = fuse_luma(net, net.input("first", 1), net.input("second", 1))
    return net.write(path, net.clipped(fused, low, high), 1)


def joined_network(path, *, seed=1):
    """Write a network of two planes joined as channels, the second one first."""
    net = Net(seed)
    both = net.input("pair", 2)
    second, first = (net.conv(both, np.eye(2)[i].reshape(1, 2, 1, 1)) for i in range(2))
    return net.write(path, net.clipped(fuse_luma(net, first, second)), 1)


def color_network(path, *, order="rgb", seed=2):
    """Write a network of a color and a gray picture: it fuses the luma of the color, which it computes itself."""
    net = Net(seed)
    color, gray = net.input("color", 3), net.input("thermal", 1)
    weights = LUMA if order == "rgb" else LUMA[::-1]
    luma = net.conv(color, weights.reshape(1, 3, 1, 1))
    change = net.op("Sub", fuse_luma(net, luma, gray), luma)
    return net.write(path, net.clipped(net.op("Add", color, change)), 3)


def maximum_network(path):
    """Write a network that takes the maximum of two planes."""
    net = Net()
    return net.write(path, net.op("Max", net.input("first", 1), net.input("second", 1)), 1)
