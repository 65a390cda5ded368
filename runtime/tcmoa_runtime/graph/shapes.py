"""Shapes of a node's outputs from those of its inputs, for every operator that `graph_rules.json` lists.

All shapes of a bundle's graph are fixed, so each one is known before a library sees the graph. Sizes that an operator
takes as an input (Reshape, Pad, Resize ...) must be constants.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Final, NoReturn

Shape = tuple[int, ...]
AttributeValue = int | float | bytes | list[int]
"""Values of attributes; those of other kinds (tensors, floats) are not needed here."""

MAX_SIDE: Final = (1 << 31) - 1
"""Largest side of a tensor, and largest size that an attribute or input may state."""
_MAX_BLOCK: Final = 32768


class ShapeError(Exception):
    """A node's inputs and attributes that do not fit its operator."""


class ComputedError(Exception):
    """An input that sets a shape, but is computed by the graph."""


@dataclass(slots=True)  # not frozen: that takes three times as long to make
class Operands:
    """What a shape depends on.

    Attributes:
        shapes: Shapes of the inputs; None for an input that is left out.
        attributes: Values of attributes by name.
        integers: Returns the values of a constant input by its index.
        floats: Likewise for floating-point numbers.
        num_outputs: How many outputs the node has.
    """

    shapes: Sequence[Shape | None]
    attributes: Mapping[bytes, AttributeValue]
    integers: Callable[[int], list[int]]
    floats: Callable[[int], list[float]]
    num_outputs: int

    def shape(self, index: int) -> Shape:
        """Return the shape of an input that must be there."""
        found = self.shapes[index] if index < len(self.shapes) else None
        return _misfit() if found is None else found

    def has(self, index: int) -> bool:
        """Whether an input is there."""
        return index < len(self.shapes) and self.shapes[index] is not None

    def integer(self, name: bytes, default: int) -> int:
        """Return the value of an attribute of kind int."""
        value = self.attributes.get(name, default)
        return value if isinstance(value, int) else _misfit()

    def sizes(self, name: bytes, default: Sequence[int], low: int = 0) -> list[int]:
        """Return an attribute of kind ints with as many values as `default`, each from `low` to MAX_SIDE."""
        values = self.attributes.get(name)
        if values is None:
            return list(default)
        if not isinstance(values, list) or len(values) != len(default):
            return _misfit()
        if not all(low <= value <= MAX_SIDE for value in values):
            return _misfit()
        return values

    def axes(self, index: int) -> list[int] | None:
        """Return the axes that are stated by an input or, in older opsets, an attribute; None if they are not."""
        if self.has(index):
            return self.integers(index)
        values = self.attributes.get(b"axes")
        return values if isinstance(values, list) else None


Result = tuple[list[Shape], int]
"""Shapes of the outputs, and how many multiplications or other steps the node takes."""


def _misfit() -> NoReturn:
    raise ShapeError


def _axis(axis: int, rank: int) -> int:
    return axis % rank if -rank <= axis < rank else _misfit()


def _axis_set(axes: Sequence[int], rank: int) -> set[int]:
    found = {_axis(axis, rank) for axis in axes}
    return found if len(found) == len(axes) else _misfit()


def _one(shape: Shape, steps: int | None = None) -> Result:
    return [shape], math.prod(shape) if steps is None else steps


def broadcast(shapes: Sequence[Shape]) -> Shape:
    """Return the shape that the given ones are broadcast to."""
    result = shapes[0]
    for shape in shapes[1:]:
        if shape == result or not shape:
            continue
        longer, shorter = (result, shape) if len(result) >= len(shape) else (shape, result)
        offset = len(longer) - len(shorter)
        sides = list(longer)
        for i, side in enumerate(shorter, offset):
            if sides[i] == 1:
                sides[i] = side
            elif side not in (1, sides[i]):
                return _misfit()
        result = tuple(sides)
    return result


def _same(node: Operands) -> Result:
    return _one(node.shape(0))


def _broadcast(node: Operands) -> Result:
    return _one(broadcast([node.shape(i) for i in range(len(node.shapes))] or _misfit()))


def _matmul(node: Operands) -> Result:
    a, b = node.shape(0), node.shape(1)
    if not a or not b:
        return _misfit()
    rows, columns = a[-2:-1], b[-1:] if len(b) > 1 else ()
    depth = a[-1]
    if depth != (b[-2] if len(b) > 1 else b[0]):
        return _misfit()
    shape = (*broadcast([a[:-2], b[:-2]]), *rows, *columns)
    return _one(shape, math.prod(shape) * depth)


def _gemm(node: Operands) -> Result:
    a, b = node.shape(0), node.shape(1)
    if len(a) != 2 or len(b) != 2:
        return _misfit()
    a = a[::-1] if node.integer(b"transA", 0) else a
    b = b[::-1] if node.integer(b"transB", 0) else b
    shape = (a[0], b[1])
    if a[1] != b[0] or (node.has(2) and broadcast([shape, node.shape(2)]) != shape):
        return _misfit()
    return _one(shape, math.prod(shape) * a[1])


@dataclass(frozen=True, slots=True)
class _Window:
    """Sizes of a sliding window, per spatial axis."""

    kernel: list[int]
    strides: list[int]
    dilations: list[int]
    pads: list[int]
    auto: bytes

    @staticmethod
    def of(node: Operands, kernel: Sequence[int], rank: int) -> _Window:
        auto = node.attributes.get(b"auto_pad", b"NOTSET")
        if auto not in (b"NOTSET", b"VALID", b"SAME_UPPER", b"SAME_LOWER") or len(kernel) != rank or not rank:
            return _misfit()
        if not all(1 <= side <= MAX_SIDE for side in kernel):
            return _misfit()
        ones = [1] * rank
        pads = node.sizes(b"pads", [0] * 2 * rank)
        if auto != b"NOTSET":
            pads = [0] * 2 * rank
        strides, dilations = node.sizes(b"strides", ones, 1), node.sizes(b"dilations", ones, 1)
        return _Window(list(kernel), strides, dilations, pads, bytes(auto))

    def extent(self, axis: int) -> int:
        return (self.kernel[axis] - 1) * self.dilations[axis] + 1

    def output(self, sides: Sequence[int], *, ceil: bool = False) -> Shape:
        """Return the spatial sides of the output."""
        result = []
        for i, side in enumerate(sides):
            stride, rank = self.strides[i], len(sides)
            if self.auto.startswith(b"SAME"):
                result.append(-(-side // stride))
                continue
            room = side + self.pads[i] + self.pads[i + rank] - self.extent(i)
            if room < 0:
                return _misfit()
            count = (-(-room // stride) if ceil else room // stride) + 1
            if ceil and (count - 1) * stride >= side + self.pads[i]:
                count -= 1
            result.append(count)
        return tuple(result)


def _conv(node: Operands) -> Result:
    x, weight = node.shape(0), node.shape(1)
    group = node.integer(b"group", 1)
    if len(x) < 3 or len(weight) != len(x) or not 1 <= group <= MAX_SIDE:
        return _misfit()
    if x[1] != weight[1] * group or weight[0] % group:
        return _misfit()
    kernel = list(weight[2:])
    if node.sizes(b"kernel_shape", kernel) != kernel:
        return _misfit()
    shape = (x[0], weight[0], *_Window.of(node, kernel, len(x) - 2).output(x[2:]))
    return _one(shape, math.prod(shape) * math.prod(weight[1:]))


def _conv_transpose(node: Operands) -> Result:
    x, weight = node.shape(0), node.shape(1)
    group, rank = node.integer(b"group", 1), len(x) - 2
    if rank < 1 or len(weight) != len(x) or not 1 <= group <= MAX_SIDE or x[1] != weight[0] or x[1] % group:
        return _misfit()
    kernel = list(weight[2:])
    if node.sizes(b"kernel_shape", kernel) != kernel:
        return _misfit()
    window = _Window.of(node, kernel, rank)
    extra = node.sizes(b"output_padding", [0] * rank)
    stated = node.sizes(b"output_shape", [0] * rank)
    sides = []
    for i, side in enumerate(x[2:]):
        full = window.strides[i] * (side - 1) + window.extent(i) + extra[i]
        if any(stated):
            sides.append(stated[i])
        elif window.auto.startswith(b"SAME"):
            sides.append(side * window.strides[i])
        else:
            sides.append(full - window.pads[i] - window.pads[i + rank])
    if min(sides) < 0:
        return _misfit()
    return _one((x[0], weight[1] * group, *sides), math.prod(x) * math.prod(weight[1:]))


def _pool(node: Operands) -> Result:
    x, kernel = node.shape(0), node.attributes.get(b"kernel_shape")
    if not isinstance(kernel, list) or len(x) < 3:
        return _misfit()
    window = _Window.of(node, kernel, len(x) - 2)
    shape = (*x[:2], *window.output(x[2:], ceil=bool(node.integer(b"ceil_mode", 0))))
    return _one(shape, math.prod(shape) * math.prod(kernel))


def _global_pool(node: Operands) -> Result:
    x = node.shape(0)
    if len(x) < 3:
        return _misfit()
    return _one((*x[:2], *[1] * (len(x) - 2)), math.prod(x))


def _without(shape: Shape, axes: set[int], keep: int) -> Shape:
    if keep:
        return tuple(1 if i in axes else side for i, side in enumerate(shape))
    return tuple(side for i, side in enumerate(shape) if i not in axes)


def _reduce(node: Operands) -> Result:
    x, axes = node.shape(0), node.axes(1)
    if not axes:
        if node.integer(b"noop_with_empty_axes", 0):
            return _one(x)
        axes = list(range(len(x)))
    return _one(_without(x, _axis_set(axes, len(x)), node.integer(b"keepdims", 1)), math.prod(x))


def _arg_reduce(node: Operands) -> Result:
    x = node.shape(0)
    axis = _axis(node.integer(b"axis", 0), len(x))
    return _one(_without(x, {axis}, node.integer(b"keepdims", 1)), math.prod(x))


def _reshape(node: Operands) -> Result:
    x, sides = node.shape(0), list(node.integers(1))
    if not node.integer(b"allowzero", 0):
        for i, side in enumerate(sides):
            if side == 0:
                sides[i] = x[i] if i < len(x) else _misfit()
    total = math.prod(x)
    if not all(-1 <= side <= MAX_SIDE for side in sides):
        return _misfit()
    if -1 in sides:
        rest = math.prod(side for side in sides if side != -1)
        if sides.count(-1) > 1 or rest == 0 or total % rest:
            return _misfit()
        sides[sides.index(-1)] = total // rest
    if math.prod(sides) != total:
        return _misfit()
    return _one(tuple(sides))


def _flatten(node: Operands) -> Result:
    x, axis = node.shape(0), node.integer(b"axis", 1)
    if not -len(x) <= axis <= len(x):
        return _misfit()
    axis += len(x) if axis < 0 else 0
    return _one((math.prod(x[:axis]), math.prod(x[axis:])))


def _transpose(node: Operands) -> Result:
    x = node.shape(0)
    order = node.attributes.get(b"perm", list(range(len(x)))[::-1])
    if not isinstance(order, list) or sorted(order) != list(range(len(x))):
        return _misfit()
    return _one(tuple([x[i] for i in order]))


def _squeeze(node: Operands) -> Result:
    x, axes = node.shape(0), node.axes(1)
    chosen = {i for i, side in enumerate(x) if side == 1} if axes is None else _axis_set(axes, len(x))
    if any(x[i] != 1 for i in chosen):
        return _misfit()
    return _one(_without(x, chosen, 0))


def _unsqueeze(node: Operands) -> Result:
    x, axes = node.shape(0), node.axes(1)
    if axes is None:
        return _misfit()
    chosen, rest = _axis_set(axes, len(x) + len(axes)), iter(x)
    return _one(tuple(1 if i in chosen else next(rest) for i in range(len(x) + len(axes))))


def _concat(node: Operands) -> Result:
    shapes = [node.shape(i) for i in range(len(node.shapes))]
    if not shapes or b"axis" not in node.attributes:
        return _misfit()
    first = shapes[0]
    axis = _axis(node.integer(b"axis", 0), len(first))
    before, after = first[:axis], first[axis + 1 :]
    for shape in shapes:
        if len(shape) != len(first) or shape[:axis] != before or shape[axis + 1 :] != after:
            return _misfit()
    return _one((*before, sum(shape[axis] for shape in shapes), *after))


def _split(node: Operands) -> Result:
    x, count = node.shape(0), node.num_outputs
    axis = _axis(node.integer(b"axis", 0), len(x))
    stated = node.attributes.get(b"split")
    if node.has(1):
        sizes = node.integers(1)
    elif isinstance(stated, list):
        sizes = stated
    else:
        if node.integer(b"num_outputs", count) != count:
            return _misfit()
        part = -(-x[axis] // count)
        sizes = [part] * (count - 1) + [x[axis] - part * (count - 1)]
    if len(sizes) != count or not all(0 <= size <= MAX_SIDE for size in sizes) or sum(sizes) != x[axis]:
        return _misfit()
    return [(*x[:axis], size, *x[axis + 1 :]) for size in sizes], math.prod(x)


def _slice(node: Operands) -> Result:
    x = node.shape(0)
    starts, ends = node.integers(1), node.integers(2)
    axes = node.integers(3) if node.has(3) else list(range(len(starts)))
    steps = node.integers(4) if node.has(4) else [1] * len(starts)
    if not len(starts) == len(ends) == len(axes) == len(steps):
        return _misfit()
    _axis_set(axes, len(x))
    sides = list(x)
    for start, end, axis, step in zip(starts, ends, axes, steps, strict=True):
        if step == 0:
            return _misfit()
        sides[_axis(axis, len(x))] = len(range(*slice(start, end, step).indices(x[axis])))
    return _one(tuple(sides))


def _pad(node: Operands) -> Result:
    x, pads = node.shape(0), node.integers(1)
    axes = [_axis(axis, len(x)) for axis in node.integers(3)] if node.has(3) else list(range(len(x)))
    if len(pads) != 2 * len(axes) or len(set(axes)) != len(axes):
        return _misfit()
    sides = list(x)
    for i, axis in enumerate(axes):
        before, after = pads[i], pads[i + len(axes)]
        if abs(before) > MAX_SIDE or abs(after) > MAX_SIDE:
            return _misfit()
        sides[axis] += before + after
        if sides[axis] < 0:
            return _misfit()
    return _one(tuple(sides))


def _resize(node: Operands) -> Result:
    x = node.shape(0)
    mode = node.attributes.get(b"coordinate_transformation_mode", b"half_pixel")
    policy = node.attributes.get(b"keep_aspect_ratio_policy", b"stretch")
    if mode == b"tf_crop_and_resize" or policy != b"stretch":
        return _misfit()
    axes = node.axes(4)
    chosen = list(range(len(x))) if axes is None else [_axis(axis, len(x)) for axis in axes]
    _axis_set(chosen, len(x))
    sides = list(x)
    if node.has(3):
        values = node.integers(3)
        if len(values) != len(chosen) or not all(1 <= value <= MAX_SIDE for value in values):
            return _misfit()
        for axis, value in zip(chosen, values, strict=True):
            sides[axis] = value
    else:
        scales = node.floats(2)
        if len(scales) != len(chosen) or not all(0 < scale <= 65536 for scale in scales):
            return _misfit()
        for axis, scale in zip(chosen, scales, strict=True):
            sides[axis] = int(x[axis] * scale)
    return _one(tuple(sides))


def _gather(node: Operands) -> Result:
    x, index = node.shape(0), node.shape(1)
    axis = _axis(node.integer(b"axis", 0), len(x))
    return _one((*x[:axis], *index, *x[axis + 1 :]))


def _gather_elements(node: Operands) -> Result:
    x, index = node.shape(0), node.shape(1)
    return _one(index) if len(x) == len(index) else _misfit()


def _sides(values: list[int]) -> Shape:
    return tuple(values) if all(0 <= value <= MAX_SIDE for value in values) else _misfit()


def _expand(node: Operands) -> Result:
    return _one(broadcast([node.shape(0), _sides(node.integers(1))]))


def _tile(node: Operands) -> Result:
    x, repeats = node.shape(0), _sides(node.integers(1))
    if len(x) != len(repeats):
        return _misfit()
    return _one(tuple(side * count for side, count in zip(x, repeats, strict=True)))


def _block(node: Operands) -> tuple[Shape, int]:
    x, block = node.shape(0), node.integer(b"blocksize", 0)
    return (x, block) if len(x) == 4 and 1 <= block <= _MAX_BLOCK else _misfit()


def _depth_to_space(node: Operands) -> Result:
    (batch, channels, height, width), block = _block(node)
    if channels % (block * block):
        return _misfit()
    return _one((batch, channels // (block * block), height * block, width * block))


def _space_to_depth(node: Operands) -> Result:
    (batch, channels, height, width), block = _block(node)
    if height % block or width % block:
        return _misfit()
    return _one((batch, channels * block * block, height // block, width // block))


def _constant_of_shape(node: Operands) -> Result:
    return _one(_sides(node.integers(0)))


SHAPE_RULES: Final[Mapping[str, Callable[[Operands], Result]]] = {
    "same": _same,
    "broadcast": _broadcast,
    "matmul": _matmul,
    "gemm": _gemm,
    "conv": _conv,
    "conv_transpose": _conv_transpose,
    "pool": _pool,
    "global_pool": _global_pool,
    "reduce": _reduce,
    "arg_reduce": _arg_reduce,
    "reshape": _reshape,
    "flatten": _flatten,
    "transpose": _transpose,
    "squeeze": _squeeze,
    "unsqueeze": _unsqueeze,
    "concat": _concat,
    "split": _split,
    "slice": _slice,
    "pad": _pad,
    "resize": _resize,
    "gather": _gather,
    "gather_elements": _gather_elements,
    "expand": _expand,
    "tile": _tile,
    "depth_to_space": _depth_to_space,
    "space_to_depth": _space_to_depth,
    "constant_of_shape": _constant_of_shape,
}
"""The rule of each name in `graph_rules.json`; `constant` is not among them, as its shape is that of its value."""
