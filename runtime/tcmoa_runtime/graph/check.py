"""Checking the graph of a bundle before a library sees it.

A graph that passes holds only the operators of `graph_rules.json` in the standard domain, reads no other file than
`fusion.data` and only within its listed size, has the inputs and outputs of the contract, and has fixed shapes whose
tensors, tensors alive at once and steps of computing stay below limits that grow with the frames.
"""

from __future__ import annotations

import math
import re
import struct
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final, NoReturn

from tcmoa_runtime.contract import MAX_GRAPH_BYTES, Contract, TensorSpec
from tcmoa_runtime.graph.rules import Operator, read_rules
from tcmoa_runtime.graph.shapes import (
    MAX_SIDE,
    SHAPE_RULES,
    AttributeValue,
    ComputedError,
    Operands,
    Shape,
    ShapeError,
)
from tcmoa_runtime.graph.wire import GraphError, Message, Span, WireReader, as_signed, quoted

_INT32, _INT64, _FLOAT32 = 6, 7, 1
_MAX_CONSTANT_VALUES: Final = 4096
_METADATA_PREFIX: Final = b"tcmoa."
_ATTRIBUTE_KINDS: Final[Mapping[int, tuple[str, str]]] = {
    1: ("float", "f"),
    2: ("int", "i"),
    3: ("string", "s"),
    4: ("tensor", "t"),
    6: ("floats", "floats"),
    7: ("ints", "ints"),
}
"""Kind of an attribute and the field of its value, by the number in its field `type`."""
_CONSTANT_VALUES: Final = (b"value", b"value_float", b"value_floats", b"value_int", b"value_ints")
_HEAD_BYTES: Final = 4096
_OTHER_FORMATS: Final = (b"ORTM", b"TFL3")
"""Bytes 4 to 7 of FlatBuffers that libraries would run in place of the graph."""
_DATA_SLACK_BYTES: Final = 1 << 20
"""What `data_name` may be larger than what the graph reads, for alignment."""
_DIGITS: Final = re.compile(rb"0|[1-9][0-9]{0,18}")


@dataclass(slots=True)
class _Where:
    """What an error is about; its text is made only when there is one."""

    kind: str
    name: bytes
    operator: bytes = b""
    index: int = 0

    def __str__(self) -> str:
        name = quoted(self.name) if self.name or self.kind != "node" else str(self.index)
        return f"{self.kind} {name}" + (f" ({self.operator.decode()})" if self.operator else "")


@dataclass(frozen=True, slots=True)
class _Constant:
    """A tensor that the graph holds; `message` is None for a value of a Constant node's attribute."""

    shape: Shape
    element_type: int
    message: Message | None
    values: list[int] | list[float]


@dataclass(frozen=True, slots=True)
class _Attribute:
    kind: str
    value: AttributeValue
    tensor: Span | None


@dataclass(slots=True)  # not frozen: that takes three times as long to make
class _Node:
    where: object
    operator: Operator
    inputs: list[bytes]
    outputs: list[bytes]
    attributes: Mapping[bytes, _Attribute]


def check_graph(
    data: bytes, contract: Contract, *, graph_name: str, data_name: str, data_bytes: int | None
) -> None:
    """Check the bytes of an ONNX file.

    Args:
        data: The file.
        contract: The contract of the bundle.
        graph_name: The name of the graph in bundle.json.
        data_name: Name of the file with the weights that the graph may read.
        data_bytes: Listed size of that file; None if the bundle has none.

    Raises:
        GraphError: The graph holds something that a bundle may not hold.
    """
    _GraphCheck(data, contract, data_name, data_bytes).run(graph_name)


class _GraphCheck:
    def __init__(self, data: bytes, contract: Contract, data_name: str, data_bytes: int | None) -> None:
        self._reader = WireReader(data)
        self._rules = read_rules()
        self._contract = contract
        self._data_name, self._data_bytes = data_name.encode(), data_bytes
        self._pixels = contract.batch * contract.height * contract.width
        self._shapes: dict[bytes, Shape] = {}
        self._constants: dict[bytes, _Constant] = {}
        self._attributes: dict[bytes, tuple[tuple[bytes, _Attribute], int]] = {}  # with its number of fields
        self._max_elements = self._rules.elements.at(self._pixels)
        self._data_end = 0

    def run(self, graph_name: str) -> None:
        size = len(self._reader.data)
        if size > MAX_GRAPH_BYTES:
            raise GraphError(f"{size} bytes; expected at most {MAX_GRAPH_BYTES}")
        self._check_format()
        model = self._reader.message((0, size), "model", "the model")
        self._check_versions(model)
        span = model.get("graph")
        if not isinstance(span, tuple):
            raise GraphError("the model holds no graph; expected one")
        graph = self._reader.message(span, "graph", "the graph")
        inputs = [self._value_info(span, "input") for span in self._reader.spans(graph, "input")]
        outputs = [self._value_info(span, "output") for span in self._reader.spans(graph, "output")]
        _compare("input", inputs, self._contract.inputs)
        _compare("output", outputs, self._contract.outputs)
        name = self._reader.text(graph, "name")
        if name != graph_name.encode("utf-8", "surrogatepass"):
            expected = quoted(graph_name.encode("utf-8", "surrogatepass"))
            raise GraphError(
                f"the graph of another bundle, named {quoted(name)}; expected {expected} as in bundle.json"
            )
        for spec in self._contract.inputs:
            self._define(spec.name.encode(), spec.shape, f"input '{spec.name}'")
        self._read_initializers(graph)
        self._check_nodes(self._read_nodes(graph))
        for spec in self._contract.outputs:
            self._compare_shape(spec.name.encode(), spec.shape, f"output '{spec.name}'")
        for info in self._reader.spans(graph, "value_info"):
            name, _, shape = self._value_info(info, "value")
            self._compare_shape(name, shape, f"value {quoted(name)}")

    def _check_format(self) -> None:
        """Refuse files that are ONNX and another format too: libraries choose by the first bytes.

        OpenVINO looks for `<net` of its own format, ONNX Runtime and OpenVINO for the identifiers of FlatBuffers.
        """
        data = self._reader.data
        if b"<net" in data[:_HEAD_BYTES] or data[4:8] in _OTHER_FORMATS:
            raise GraphError("the file can be read as another format than ONNX; expected an ONNX graph only")

    def _check_versions(self, model: Message) -> None:
        low, high = self._rules.ir_version
        version = self._reader.number(model, "ir_version")
        if not low <= version <= high:
            raise GraphError(f"IR version {version}; expected {low} to {high}")
        opsets = self._reader.spans(model, "opset_import")
        if len(opsets) != 1:
            raise GraphError(f"{len(opsets)} operator sets; expected the standard one only")
        opset = self._reader.message(opsets[0], "opset", "the operator set")
        if domain := self._reader.text(opset, "domain"):
            raise GraphError(f"operators of the domain {quoted(domain)}; expected the standard one only")
        low, high = self._rules.opset
        version = self._reader.number(opset, "version")
        if not low <= version <= high:
            raise GraphError(f"operator set {version}; expected {low} to {high}")
        for span in self._reader.spans(model, "metadata_props"):
            entry = self._reader.message(span, "metadata", "the metadata")
            key = self._reader.text(entry, "key")
            if not key.startswith(_METADATA_PREFIX):  # libraries read settings from some
                raise GraphError(f"the metadata {quoted(key)}; expected keys that begin with 'tcmoa.'")

    def _name(self, name: bytes, where: object) -> bytes:
        limit = self._rules.counts["name_bytes"]
        if len(name) > limit:
            raise GraphError(f"{where} has a name of {len(name)} bytes; expected at most {limit}")
        return name

    def _value_info(self, span: Span, role: str) -> tuple[bytes, int, Shape]:
        """Return name, element type and shape."""
        reader = self._reader
        info = reader.message(span, "value_info", f"an {role}" if role != "value" else "a value")
        name = self._name(reader.text(info, "name"), role)
        if not name and role == "input":
            raise GraphError("an input without a name; expected a name")
        where = f"{role} {quoted(name)}"
        for part, kind in (("type", "type"), ("tensor_type", "tensor_type")):
            inner = info.get(part)
            if not isinstance(inner, tuple):
                raise GraphError(f"{where} is not a tensor; expected one of fixed shape")
            info = reader.message(inner, kind, where)
        element_type = reader.number(info, "elem_type")
        span_or_none = info.get("shape")
        if not isinstance(span_or_none, tuple):
            raise GraphError(f"{where} has no shape; expected a fixed one")
        dims = reader.spans(reader.message(span_or_none, "shape", where), "dim")
        sides = []
        for dim in dims:
            message = reader.message(dim, "dim", where)
            if "dim_value" not in message:
                raise GraphError(
                    f"{where} holds a size that is not fixed; expected operators on tensors only"
                )
            sides.append(as_signed(reader.number(message, "dim_value")))
        return name, element_type, self._checked(sides, where)

    def _checked(self, sides: list[int], where: object) -> Shape:
        """Return a stated shape within the limits."""
        counts = self._rules.counts
        if len(sides) > counts["rank"]:
            raise GraphError(f"{where} has {len(sides)} axes; expected at most {counts['rank']}")
        if not all(0 <= side <= MAX_SIDE for side in sides):
            raise GraphError(f"{where} has a side out of range; expected 0 to {MAX_SIDE}")
        return tuple(sides)

    def _define(self, name: bytes, shape: Shape, where: object) -> int:
        """Add a tensor and return how many elements it has."""
        if name in self._shapes:
            raise GraphError(f"{where} has the name of another tensor; expected distinct names")
        if len(shape) > self._rules.counts["rank"] or max(shape, default=0) > MAX_SIDE:
            self._checked(list(shape), where)
        elements = math.prod(shape)
        if elements > self._max_elements:
            raise GraphError(
                f"{where} has {elements} elements; expected at most {self._max_elements} "
                f"for {self._pixels} pixels"
            )
        self._shapes[name] = shape
        return elements

    def _compare_shape(self, name: bytes, shape: Shape, where: object) -> None:
        if name not in self._shapes:
            raise GraphError(f"{where} is not computed; expected a node that computes it")
        computed = self._shapes[name]
        if computed != shape:
            raise GraphError(
                f"{where} is stated as {list(shape)} but computed as {list(computed)}; expected equal shapes"
            )

    def _read_initializers(self, graph: Message) -> None:
        spans = self._reader.spans(graph, "initializer")
        self._check_count(len(spans), "tensors", "initializers")
        for span in spans:
            tensor = self._reader.message(span, "tensor", "an initializer")
            name = self._name(self._reader.text(tensor, "name"), "an initializer")
            if not name:  # an empty name means an absent input
                raise GraphError("an initializer without a name; expected a name")
            where = _Where("initializer", name)
            constant = self._tensor(tensor, where, external=True)
            self._define(name, constant.shape, where)
            self._constants[name] = constant
        if self._data_bytes is not None and self._data_bytes > self._data_end + _DATA_SLACK_BYTES:
            raise GraphError(
                f"'{self._data_name.decode()}' is listed with {self._data_bytes} bytes, but the graph reads "
                f"{self._data_end} of them; expected no more than it reads"
            )

    def _check_count(self, count: int, limit: str, what: str) -> None:
        if count > self._rules.counts[limit]:
            raise GraphError(f"{count} {what}; expected at most {self._rules.counts[limit]}")

    def _tensor(self, tensor: Message, where: object, *, external: bool) -> _Constant:
        """Check a tensor that the graph holds: its numbers must be there, as many as its shape states."""
        reader = self._reader
        element_type = reader.number(tensor, "data_type")
        kind = self._rules.element_types.get(element_type)
        if kind is None:
            raise GraphError(f"{where} has the element type {element_type}; expected numbers")
        counts = self._rules.counts
        shape = self._checked(reader.numbers(tensor, "dims", counts["rank"], where), where)
        elements = math.prod(shape)
        num_bytes = elements * kind.bits // 8
        lists = [name for name in ("float_data", "int32_data", "int64_data", "double_data", "uint64_data")
                 if name in tensor]  # fmt: skip
        sources = len(lists) + ("raw_data" in tensor) + ("external_data" in tensor)
        location = reader.number(tensor, "data_location")
        if location not in (0, 1) or (location == 1) != ("external_data" in tensor):
            raise GraphError(f"{where} states another place of its data than it has; expected one place")
        if sources > 1 or (sources == 0 and elements):
            raise GraphError(f"{where} has data in {sources} places; expected one")
        if location == 1:
            if not external:
                raise GraphError(f"{where} is in another file; expected its data in the graph")
            self._check_external(tensor, where, num_bytes)
            return _Constant(shape, element_type, None, [])
        if lists:
            if lists[0] != kind.field:
                raise GraphError(f"{where} has data in '{lists[0]}'; expected '{kind.field}'")
            width = {"float_data": 4, "double_data": 8}.get(kind.field, 0)
            arrived, unit = reader.count(tensor, lists[0], width), "numbers"
            expected = elements
        else:
            span = tensor.get("raw_data", (0, 0))
            arrived = span[1] - span[0] if isinstance(span, tuple) else 0
            expected, unit = num_bytes, "bytes"
        if arrived != expected:
            raise GraphError(f"{where} holds {arrived} {unit}; expected {expected} for {list(shape)}")
        return _Constant(shape, element_type, tensor, [])

    def _check_external(self, tensor: Message, where: object, num_bytes: int) -> None:
        entries: dict[bytes, bytes] = {}
        for span in self._reader.spans(tensor, "external_data"):
            entry = self._reader.message(span, "external_data", where)
            key, value = self._reader.text(entry, "key"), self._reader.text(entry, "value")
            if key not in (b"location", b"offset", b"length") or key in entries:
                raise GraphError(f"{where} has the entry {quoted(key)}; expected location, offset and length")
            entries[key] = value
        location = entries.get(b"location", b"")
        if self._data_bytes is None:
            raise GraphError(f"{where} reads the file {quoted(location)}; expected its data in the graph")
        if location != self._data_name:
            expected = quoted(self._data_name)
            raise GraphError(f"{where} reads the file {quoted(location)}; expected {expected} only")
        numbers = []
        for key in (b"offset", b"length"):
            text = entries.get(key, b"")
            if not _DIGITS.fullmatch(text):
                raise GraphError(f"{where} has the {key.decode()} {quoted(text)}; expected a number of bytes")
            numbers.append(int(text))
        offset, length = numbers
        if length != num_bytes:
            raise GraphError(f"{where} reads {length} bytes; expected {num_bytes}")
        if offset + length > self._data_bytes:
            raise GraphError(
                f"{where} reads up to byte {offset + length}; expected at most {self._data_bytes}, "
                f"the listed size of {self._data_name.decode()}"
            )
        self._data_end = max(self._data_end, offset + length)

    def _read_nodes(self, graph: Message) -> list[_Node]:
        spans = self._reader.spans(graph, "node")
        self._check_count(len(spans), "nodes", "nodes")
        return [self._node(span, index) for index, span in enumerate(spans)]

    def _node(self, span: Span, index: int) -> _Node:
        reader, data, counts = self._reader, self._reader.data, self._rules.counts
        node = reader.message(span, "node", f"node {index}")
        name, op_type = reader.text(node, "name"), reader.text(node, "op_type")
        where = _Where("node", name, index=index)
        self._name(name, f"node {index}")
        if domain := reader.text(node, "domain"):
            raise GraphError(f"{where} is of the domain {quoted(domain)}; expected the standard one only")
        operator = self._rules.operators.get(op_type)
        if operator is None:
            raise GraphError(
                f"{where} is the operator {quoted(op_type)}; expected operators that only compute on tensors"
            )
        where.operator = op_type
        inputs = [data[a:b] for a, b in reader.spans(node, "input")]
        outputs = [data[a:b] for a, b in reader.spans(node, "output")]
        if len(inputs) > counts["node_inputs"] or len(outputs) > counts["node_inputs"]:
            limit = counts["node_inputs"]
            raise GraphError(f"{where} has more than {limit} inputs or outputs; expected fewer")
        while len(outputs) > 1 and not outputs[-1]:
            outputs.pop()
        if not outputs or b"" in outputs or (len(outputs) > 1 and operator.shape != "split"):
            raise GraphError(f"{where} has {len(outputs)} outputs; expected one")
        attributes: dict[bytes, _Attribute] = {}
        for part in reader.spans(node, "attribute"):
            key, attribute = self._attribute(part, operator, where)
            if key in attributes:
                raise GraphError(f"{where} states the attribute {quoted(key)} twice; expected once")
            if attribute.tensor is not None and operator.shape != "constant":
                self._attribute_tensor(attribute.tensor, where)
            attributes[key] = attribute
        return _Node(where, operator, inputs, outputs, attributes)

    def _attribute_tensor(self, span: Span, where: object) -> None:
        """Check the tensor of an attribute other than that of a Constant node: the value of ConstantOfShape."""
        constant = self._tensor(self._reader.message(span, "tensor", where), where, external=False)
        count = math.prod(constant.shape)
        if count != 1:
            raise GraphError(f"{where} has a value of {count} elements; expected one")

    def _attribute(self, span: Span, operator: Operator, where: object) -> tuple[bytes, _Attribute]:
        text = self._reader.data[span[0] : span[1]] if span[1] - span[0] < 256 else b""
        known = self._attributes.get(text) if text else None
        if known is None:
            before = self._reader.fields_left
            found = self._read_attribute(span, where)
            if text and found[1].tensor is None:
                self._attributes[text] = (found, before - self._reader.fields_left)
        else:
            found, count = known
            self._reader.spend_fields(count)
        name, attribute = found
        if operator.attributes.get(name) != attribute.kind:
            raise GraphError(
                f"{where} has the attribute {quoted(name)} of kind {attribute.kind}; "
                f"expected those of its operator"
            )
        return found

    def _read_attribute(self, span: Span, where: object) -> tuple[bytes, _Attribute]:
        reader = self._reader
        where = f"an attribute of {where}"
        message = reader.message(span, "attribute", where)
        name = self._name(reader.text(message, "name"), where)
        kind, field = _ATTRIBUTE_KINDS.get(reader.number(message, "type"), ("", ""))
        fields = {"f", "i", "s", "t", "floats", "ints"} & message.keys()
        if not kind or not fields <= {field} or (field == "t" and not fields):
            raise GraphError(f"{where} has another value than its kind; expected one of its kind")
        limit = self._rules.counts["attribute_values"]
        value: AttributeValue = 0
        tensor = None
        if field == "i":
            value = as_signed(reader.number(message, "i"))
        elif field == "s":
            value = reader.text(message, "s")
        elif field == "ints":
            value = reader.numbers(message, "ints", limit, where)
        elif field == "t":
            inner = message["t"]
            tensor = inner if isinstance(inner, tuple) else None
        elif field == "floats":
            value = reader.count(message, "floats", 4)
            if value > limit:
                raise GraphError(f"{where} has more than {limit} numbers in 'floats'; expected fewer")
        return name, _Attribute(kind, value, tensor)

    def _check_nodes(self, nodes: list[_Node]) -> None:
        """Compute all shapes in the order of the nodes, with the steps and the tensors that are alive at once."""
        last_uses: dict[bytes, int] = {}
        for index, node in enumerate(nodes):
            for name in node.inputs:
                last_uses[name] = index
            for name in node.outputs:
                last_uses[name] = index
        for spec in (*self._contract.inputs, *self._contract.outputs):
            last_uses.pop(spec.name.encode(), None)
        ends: list[list[bytes]] = [[] for _ in nodes]
        for name, index in last_uses.items():
            ends[index].append(name)
        max_live = self._rules.live_elements.at(self._pixels)
        max_steps = self._rules.operations.at(self._pixels)
        live = steps = 0
        elements: dict[bytes, int] = {}
        # Libraries compute what depends on constants only when they load the graph, and keep all of it.
        folded = set(self._constants)
        for index, node in enumerate(nodes):
            is_folded = all(name in folded for name in node.inputs if name)
            results, node_steps = self._infer(node)
            steps += node_steps
            for name, shape in zip(node.outputs, results, strict=True):
                count = self._define(self._name(name, node.where), shape, node.where)
                live += count
                if is_folded:
                    folded.add(name)
                else:
                    elements[name] = count
            if live > max_live:
                self._over(node, f"tensors of {live} elements at once", max_live)
            if steps > max_steps:
                self._over(node, f"a sum of {steps} operations", max_steps)
            for name in ends[index]:
                live -= elements.get(name, 0)

    def _over(self, node: _Node, what: str, limit: int) -> NoReturn:
        raise GraphError(f"{node.where} reaches {what}; expected at most {limit} for {self._pixels} pixels")

    def _infer(self, node: _Node) -> tuple[list[Shape], int]:
        if node.operator.shape == "constant":
            return [self._constant_node(node)], 0
        shapes: list[Shape | None] = []
        for name in node.inputs:
            shape = self._shapes.get(name) if name else None
            if shape is None and name:
                raise GraphError(
                    f"{node.where} reads {quoted(name)}; expected a tensor that is there before it"
                )
            shapes.append(shape)

        def integers(index: int) -> list[int]:
            return self._integers(node, index)

        def floats(index: int) -> list[float]:
            return self._floats(node, index)

        attributes = {name: attribute.value for name, attribute in node.attributes.items()}
        operands = Operands(shapes, attributes, integers, floats, len(node.outputs))
        try:
            results, steps = SHAPE_RULES[node.operator.shape](operands)
        except ShapeError:
            given = [list(shape) if shape is not None else None for shape in shapes]
            raise GraphError(
                f"{node.where} has inputs or attributes that do not fit ({str(given)[:80]}); expected valid ONNX"
            ) from None
        except ComputedError:
            raise GraphError(
                f"{node.where} takes a size that the graph computes; expected constants, as shapes are fixed"
            ) from None
        if len(results) != len(node.outputs):
            raise GraphError(f"{node.where} has {len(node.outputs)} outputs; expected {len(results)}")
        return results, steps

    def _constant_node(self, node: _Node) -> Shape:
        values = [name for name in _CONSTANT_VALUES if name in node.attributes]
        if len(values) != 1 or node.inputs:
            raise GraphError(f"{node.where} has {len(values)} values; expected one")
        attribute = node.attributes[values[0]]
        if attribute.tensor is not None:
            tensor = self._reader.message(attribute.tensor, "tensor", node.where)
            constant = self._tensor(tensor, node.where, external=False)
        elif isinstance(attribute.value, list):
            constant = _Constant((len(attribute.value),), _INT64, None, attribute.value)
        elif values[0] == b"value_floats":
            count = attribute.value
            constant = _Constant((count if isinstance(count, int) else 0,), 0, None, [])
        elif isinstance(attribute.value, int) and values[0] == b"value_int":
            constant = _Constant((), _INT64, None, [attribute.value])
        else:
            constant = _Constant((), 0, None, [])
        self._constants[node.outputs[0]] = constant
        return constant.shape

    def _values(self, node: _Node, index: int) -> tuple[_Constant, int]:
        """Return a constant input of at most one axis, and how many numbers it has."""
        constant = self._constants.get(node.inputs[index]) if index < len(node.inputs) else None
        if constant is None:
            raise ComputedError
        count = math.prod(constant.shape)
        if len(constant.shape) > 1 or count > _MAX_CONSTANT_VALUES:
            raise ShapeError
        return constant, count

    def _integers(self, node: _Node, index: int) -> list[int]:
        constant, count = self._values(node, index)
        if constant.element_type not in (_INT32, _INT64):
            raise ComputedError
        if constant.message is None:
            if len(constant.values) != count:
                raise ComputedError
            return [int(value) for value in constant.values]
        letter, field = ("i", "int32_data") if constant.element_type == _INT32 else ("q", "int64_data")
        if "raw_data" in constant.message:
            return list(struct.unpack(f"<{count}{letter}", self._reader.text(constant.message, "raw_data")))
        numbers = self._reader.numbers(constant.message, field, _MAX_CONSTANT_VALUES, node.where)
        if constant.element_type == _INT32 and not all(-MAX_SIDE <= n <= MAX_SIDE for n in numbers):
            raise ShapeError
        return numbers

    def _floats(self, node: _Node, index: int) -> list[float]:
        constant, count = self._values(node, index)
        if constant.element_type != _FLOAT32 or constant.message is None:
            raise ComputedError
        if "raw_data" in constant.message:
            data = self._reader.text(constant.message, "raw_data")
        else:
            spans = self._reader.spans(constant.message, "float_data")
            data = b"".join(self._reader.data[a:b] for a, b in spans)
        return list(struct.unpack(f"<{count}f", data))


def _compare(kind: str, found: list[tuple[bytes, int, Shape]], specs: tuple[TensorSpec, ...]) -> None:
    """Compare declared inputs or outputs with the contract."""
    types = read_rules().element_types
    arrived: dict[bytes, str] = {}
    for name, element_type, shape in found:
        if name in arrived:
            raise GraphError(f"{kind} {quoted(name)} is declared twice; expected once")
        known = types.get(element_type)
        arrived[name] = f"{known.name if known else f'type {element_type}'} {list(shape)}"
    expected = {spec.name.encode(): f"{spec.dtype} {list(spec.shape)}" for spec in specs}
    for name in (*expected, *arrived):
        if arrived.get(name) != expected.get(name):
            raise GraphError(
                f"{kind} {quoted(name)} is {arrived.get(name, 'absent')}; "
                f"expected {expected.get(name, 'absent')} as in bundle.json"
            )
