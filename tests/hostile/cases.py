"""The table: name, how the bundle is made, and what both runtimes say when they refuse it."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from hostile.onnx_wire import (
    FLOAT,
    STRING,
    UINT8,
    attribute,
    blob,
    external,
    integers,
    model,
    node,
    number,
    tensor,
    value_info,
    varint,
)
from hostile.write_bundle import INPUTS, OUTPUTS, graph_of, model_of, write_bundle

Make = Callable[[Path], None]
COMPUTES = "expected operators that only compute on tensors"


@dataclass(frozen=True)
class Case:
    """A hostile bundle, and a part of the one line that refuses it in Python and in C."""

    name: str
    make: Make
    refusal: str


CASES: list[Case] = []


def _case(name: str, make: Make, refusal: str) -> None:
    CASES.append(Case(name, make, refusal))


def _graph(name: str, graph_bytes: bytes, refusal: str, data: bytes | None = None) -> None:
    _case(name, lambda folder: write_bundle(folder, graph_bytes, data), refusal)


def _nodes(name: str, nodes: list[bytes], refusal: str, *tensors: bytes) -> None:
    _graph(name, model_of(nodes, tensors), refusal)


# Control flow, functions, other operators
SUBGRAPH = blob(1, "body") + blob(6, blob(2, "g")) + number(20, 5)
for op in ("Loop", "If", "Scan"):
    _nodes(
        op.lower(),
        [node(op, [], ["a"], SUBGRAPH)],
        f"node 'a' is the operator '{op}'; {COMPUTES}",
    )
_nodes(
    "subgraph in a plain operator",
    [node("Abs", ["x_float"], ["a"], SUBGRAPH)],
    "an attribute of node 'a' (Abs) holds a subgraph",
)
_nodes("sequence", [node("SequenceConstruct", ["x_float"], ["a"])], f"'SequenceConstruct'; {COMPUTES}")
_nodes("random", [node("RandomNormal", [], ["a"], attribute("shape", [1]))], f"'RandomNormal'; {COMPUTES}")
_nodes("strings", [node("StringNormalizer", ["x"], ["a"])], f"'StringNormalizer'; {COMPUTES}")
_nodes(
    "node of another domain",
    [node("Gelu", ["x_float"], ["a"], extra=blob(7, "com.microsoft"))],
    "node 'a' is of the domain 'com.microsoft'; expected the standard one only",
)
_nodes(
    "python operator of torch",
    [node("PyOp", ["x_float"], ["a"], extra=blob(7, "pyopmulti_1"))],
    "node 'a' is of the domain 'pyopmulti_1'",
)
FUNCTION = blob(1, "f") + blob(7, node("f", ["x"], ["y"], extra=blob(7, "local"))) + blob(10, "local")
_graph(
    "local function", model(graph_of(), extra=blob(25, FUNCTION)), "the model holds local functions; expected"
)
_graph(
    "two operator sets",
    model(graph_of(), extra=blob(8, blob(1, "local") + number(2, 1))),
    "2 operator sets; expected the standard one only",
)
_graph(
    "operator set of another domain",
    model(graph_of(), domain="ai.onnx.ml"),
    "operators of the domain 'ai.onnx.ml'; expected the standard one only",
)
_graph("old operator set", model(graph_of(), opset=7), "operator set 7; expected 13 to 23")
_graph(
    "unknown operator set", model(graph_of(), opset=1 << 40), "operator set 1099511627776; expected 13 to 23"
)
_graph("old format", model(graph_of(), ir_version=2), "IR version 2; expected 7 to 13")
_graph("training information", model(graph_of(), extra=blob(20, b"")), "the model holds training information")
_graph(
    "settings of a library in metadata",
    model(graph_of(), extra=blob(14, blob(1, "ort_config") + blob(2, "{}"))),
    "the metadata 'ort_config'; expected keys that begin with 'tcmoa.'",
)
_graph("metadata of the graph", model_of(extra=blob(16, b"")), "the graph holds metadata")
_graph("no graph", number(1, 8) + blob(8, number(2, 18)), "the model holds no graph; expected one")
_graph("empty", b"", "IR version 0; expected 7 to 13")

# Other files
_graph(
    "file outside of the bundle",
    model_of(tensors=[external("w", [4], location="etc/shadow", offset=0, length=16)]),
    "initializer 'w' reads the file 'etc/shadow'; expected its data in the graph",
)
WEIGHTS = bytes(64)
for name, entries, refusal in (
    (
        "file that is not listed",
        {"location": "etc/shadow"},
        "reads the file 'etc/shadow'; expected 'fusion.data' only",
    ),
    (
        "absolute path",
        {"location": "/etc/shadow"},
        "reads the file '/etc/shadow'; expected 'fusion.data' only",
    ),
    (
        "path with dots",
        {"location": "../fusion.data"},
        "reads the file '../fusion.data'; expected 'fusion.data'",
    ),
    (
        "path with a dot",
        {"location": "./fusion.data"},
        "reads the file './fusion.data'; expected 'fusion.data'",
    ),
    (
        "memory address",
        {"location": "*/_ORT_MEM_ADDR_/*"},
        "'*/_ORT_MEM_ADDR_/*'; expected 'fusion.data' only",
    ),
    ("path with a zero byte", {"location": "fusion.data\0x"}, r"reads the file 'fusion.data\x00x'; expected"),
    ("end beyond the file", {"offset": 56}, "reads up to byte 72; expected at most 64"),
    (
        "overflowing offset",
        {"offset": 2**63 - 8},
        "reads up to byte 9223372036854775816; expected at most 64",
    ),
    ("negative offset", {"offset": -4}, "has the offset '-4'; expected a number of bytes"),
    ("hexadecimal offset", {"offset": "0x10"}, "has the offset '0x10'; expected a number of bytes"),
    ("other length", {"length": 8}, "reads 8 bytes; expected 16"),
    ("no length", {"length": ""}, "has the length ''; expected a number of bytes"),
    ("other entry", {"checksum": "abc"}, "has the entry 'checksum'; expected location, offset and length"),
):
    stated: dict[str, Any] = {"location": "fusion.data", "offset": 0, "length": 16, **entries}
    _graph(name, model_of(tensors=[external("w", [4], **stated)]), refusal, WEIGHTS)
_graph(
    "location stated twice",
    model_of(
        tensors=[
            external("w", [4], location="fusion.data", offset=0, length=16)
            + blob(13, blob(1, "location") + blob(2, "etc/shadow"))
        ]
    ),
    "has the entry 'location'; expected location, offset and length",
    WEIGHTS,
)
_graph(
    "raw and external data",
    model_of(tensors=[external("w", [4], location="fusion.data", offset=0, length=16) + blob(9, bytes(16))]),
    "initializer 'w' has data in 2 places; expected one",
    WEIGHTS,
)
_graph(
    "external data of a plain tensor",
    model_of(tensors=[tensor("w", [4], bytes(16), extra=number(14, 1))]),
    "initializer 'w' states another place of its data than it has",
)
CONSTANT = external("", [4], location="fusion.data", offset=0, length=16)
_graph(
    "external data of a constant",
    model_of([node("Constant", [], ["a"], blob(1, "value") + blob(5, CONSTANT) + number(20, 4))]),
    "node 'a' (Constant) is in another file; expected its data in the graph",
    WEIGHTS,
)

# Tensors that a small file makes large
HUGE = integers("huge", 1 << 20, 1 << 17)
_nodes(
    "constant of 100 GB",
    [node("ConstantOfShape", ["huge"], ["a"])],
    "node 'a' (ConstantOfShape) has 137438953472 elements; expected at most 16777216 for 1536 pixels",
    HUGE,
)
_nodes(
    "expand",
    [node("Expand", ["x_float", "wide"], ["a"])],
    "node 'a' (Expand) has 46080000 elements",
    integers("wide", 10000, 32, 48, 3),
)
_nodes(
    "tile",
    [node("Tile", ["x_float", "n"], ["a"])],
    "node 'a' (Tile) has 4608000000",
    integers("n", 1000, 1000, 1, 1),
)
_nodes(
    "pad",
    [node("Pad", ["x_float", "pads"], ["a"])],
    "node 'a' (Pad) has",
    integers("pads", 0, 0, 0, 0, 0, 1 << 20, 1 << 10, 0),
)
_nodes(
    "resize",
    [node("Resize", ["x_float", "", "", "sizes"], ["a"])],
    "node 'a' (Resize) has 3221225472 elements",
    integers("sizes", 1, 1 << 15, 1 << 15, 3),
)
_nodes(
    "resize by a factor",
    [node("Resize", ["x_float", "", "factors"], ["a"])],
    "node 'a' (Resize) has inputs or attributes that do not fit",
    tensor("factors", [4], b"\0\0\x80\x7f" * 4),
)
_nodes(
    "gather",
    [node("Gather", ["x_float", "index"], ["a"], attribute("axis", 0))],
    "node 'a' (Gather) has 460800000 elements",
    tensor("index", [100_000], bytes(800_000), 7),
)
_nodes(
    "outer product",
    [
        node("Reshape", ["x_float", "column"], ["c"]),
        node("Reshape", ["x_float", "row"], ["r"]),
        node("Mul", ["c", "r"], ["a"]),
    ],
    "node 'a' (Mul) has 21233664 elements; expected at most 16777216",
    integers("column", 4608, 1),
    integers("row", 1, 4608),
)
_nodes(
    "doubling",
    [
        node("Concat", [f"c{i}" if i else "x_float"] * 2, [f"c{i + 1}"], attribute("axis", 0))
        for i in range(60)
    ],
    "node 'c12' (Concat) has 18874368 elements; expected at most 16777216",
)
_nodes(
    "many tensors at once",
    [node("Expand", ["x_float", "wide"], [f"e{i}"]) for i in range(4)]
    + [node("Sum", [f"e{i}" for i in range(4)], ["a"])],
    "node 'e2' (Expand) reaches tensors of",
    integers("wide", 3000, 32, 48, 3),
)
_nodes(
    "endless work",
    [
        node("ReduceSum", ["x_float"], ["one"], attribute("keepdims", 0)),
        node("Expand", ["one", "square"], ["m"]),
        *(node("MatMul", ["m", "m"], [f"p{i}"]) for i in range(30)),
    ],
    "node 'p23' (MatMul) reaches a sum of 1536",
    integers("square", 4000, 4000),
)
_nodes(
    "more axes than libraries take",
    [node("Reshape", ["x_float", "shape"], ["a"])],
    "node 'a' (Reshape) has 9 axes; expected at most 8",
    integers("shape", *[1] * 8, 4608),
)
_nodes(
    "computed size",
    [
        node("Reshape", ["x_float", "one"], ["s"]),
        node("Cast", ["s"], ["i"], attribute("to", 7)),
        node("ConstantOfShape", ["i"], ["a"]),
    ],
    "node 'a' (ConstantOfShape) takes a size that the graph computes; expected constants",
    integers("one", 4608),
)
_nodes(
    "overflowing convolution",
    [
        node("Transpose", ["x_float"], ["t"], attribute("perm", [0, 3, 1, 2])),
        node("ConvTranspose", ["t", "w"], ["a"], attribute("strides", [2**31 - 1, 2**31 - 1])),
    ],
    "node 'a' (ConvTranspose) has a side out of range",
    tensor("w", [3, 1, 1, 1], bytes(12)),
)
_nodes(
    "overflowing pads",
    [node("Pad", ["x_float", "pads"], ["a"])],
    "node 'a' (Pad) has inputs or attributes that do not fit",
    integers("pads", 0, 0, 0, 0, 0, 2**63 - 1, 2**63 - 1, 0),
)
_nodes(
    "huge initializer without data",
    [],
    "initializer 'w' holds 0 bytes; expected 4398046511104 for [1048576, 1048576]",
    tensor("w", [1 << 20, 1 << 20], b""),
)
_nodes("negative size", [], "initializer 'w' has a side out of range", tensor("w", [-1], b""))
_nodes(
    "string tensor",
    [],
    "initializer 'w' has the element type 8; expected numbers",
    tensor("w", [1], b"", STRING),
)
_nodes(
    "string data",
    [],
    "an initializer holds strings; expected operators on tensors only",
    tensor("w", [1], b"", extra=blob(6, "text")),
)
_nodes("segment", [], "an initializer holds a segment", tensor("w", [1], bytes(4), extra=blob(3, b"")))
_nodes("too few numbers", [], "initializer 'w' holds 4 bytes; expected 8 for [2]", tensor("w", [2], bytes(4)))
_graph(
    "sparse initializer",
    model_of(extra=blob(15, b"")),
    "the graph holds sparse initializers; expected operators",
)

# Wiring
_nodes(
    "unknown tensor", [node("Abs", ["nothing"], ["a"])], "node 'a' (Abs) reads 'nothing'; expected a tensor"
)
_nodes("circle", [node("Abs", ["b"], ["a"]), node("Abs", ["a"], ["b"])], "node 'a' (Abs) reads 'b'; expected")
_nodes(
    "name twice", [node("Abs", ["x_float"], ["x_float"])], "has the name of another tensor; expected distinct"
)
_nodes(
    "initializer named like an input",
    [],
    "initializer 'x' has the name of another",
    tensor("x", [1], bytes(4)),
)
_nodes(
    "attribute twice",
    [node("Concat", ["x_float"], ["a"], attribute("axis", 0), attribute("axis", 1))],
    "node 'a' (Concat) states the attribute 'axis' twice; expected once",
)
_nodes(
    "unknown attribute",
    [node("Abs", ["x_float"], ["a"], attribute("path", "/etc/shadow"))],
    "node 'a' (Abs) has the attribute 'path' of kind string; expected those of its operator",
)
_nodes(
    "attribute of two kinds",
    [node("Concat", ["x_float"], ["a"], attribute("axis", 0) + blob(4, "x"))],
    "an attribute of node 'a' (Concat) has another value than its kind",
)
_nodes(
    "long name", [node("Abs", ["x_float"], ["a" * 2000])], "has a name of 2000 bytes; expected at most 1024"
)
_nodes(
    "escape sequence in a name",
    [node("Loop", [], ["\x1b[2J\x1b]0;owned\x07"])],
    r"node '\x1b[2J\x1b]0;owned\x07' is the operator 'Loop'",
)
_graph(
    "another name of the graph",
    model_of(name="other"),
    "the graph of another bundle, named 'other'; expected 'tcmoa_hostile' as in bundle.json",
)
_graph(
    "another input",
    model_of(infos=[*INPUTS, blob(11, value_info("z", FLOAT, [1])), *OUTPUTS]),
    "input 'z' is float32 [1]; expected absent as in bundle.json",
)
_graph(
    "another output",
    model_of(infos=[*INPUTS, *OUTPUTS, blob(12, value_info("x_float", FLOAT, [1, 32, 48, 3]))]),
    "output 'x_float' is float32 [1, 32, 48, 3]; expected absent as in bundle.json",
)
_graph("missing output", model_of(infos=INPUTS), "output 'fused' is absent; expected uint8 [1, 32, 48, 3]")
_graph(
    "size that is not fixed",
    model_of(infos=[blob(11, value_info("x", UINT8, ["batch", 32, 48, 3])), *INPUTS[1:], *OUTPUTS]),
    "input 'x' holds a size that is not fixed",
)
_graph(
    "input declared twice",
    model_of(infos=[*INPUTS, INPUTS[0], *OUTPUTS]),
    "input 'x' is declared twice; expected once",
)
_graph(
    "false shape of a value",
    model_of(extra=blob(13, value_info("x_float", FLOAT, [1]))),
    "value 'x_float' is stated as [1] but computed as [1, 32, 48, 3]; expected equal shapes",
)
_graph(
    "output that is not computed",
    model(
        b"".join(
            [
                blob(1, node("Cast", ["x"], ["a"], attribute("to", FLOAT))),
                blob(2, "tcmoa_hostile"),
                *INPUTS,
                *OUTPUTS,
            ]
        )
    ),
    "output 'fused' is not computed; expected a node that computes it",
)

# What one parser skips and another one reads
_graph(
    "two graphs",
    model(graph_of(), extra=blob(7, graph_of())),
    "the model states 'graph' twice; expected once",
)
_graph(
    "unknown field", model(graph_of(), extra=blob(99, b"data")), "(a field that ONNX does not have, at byte"
)
_graph("group", model(graph_of(), extra=varint(30 << 3 | 3)), "(a field that ONNX does not have, at byte")
_graph("field zero", model(graph_of(), extra=b"\x02\x00"), "(a field that ONNX does not have, at byte")
_graph("long tag", model(graph_of(), extra=b"\xba\x80\x00\x00"), "(a field that ONNX does not have, at byte")
_graph(
    "number of another kind",
    blob(1, b"8") + blob(7, graph_of()),
    "(a field that ONNX does not have, at byte 0)",
)
_graph("truncated", model(graph_of())[:-1], "not a valid ONNX file")
_graph(
    "length beyond the file", b"\x08\x08\x3a\xff\xff\xff\xff\x07", "(a length beyond its message, at byte 2)"
)
_graph(
    "long number", b"\x08" + b"\xff" * 11, "(a number that is truncated or longer than 64 bits, at byte 1)"
)
_graph("endless number", b"\x08\x80\x80", "(a number that is truncated or longer than 64 bits, at byte 1)")
_graph("text", b"no graph at all", "not a valid ONNX file")
_graph(
    "too many nodes",
    model_of([node("Abs", ["x_float"], ["a"])] * 20_001),
    "20010 nodes; expected at most 20000",
)
_graph(
    "too many fields",
    model(graph_of(extra=blob(10, b"") + blob(1, b"\x0a\x00" * 500_000))),
    "more than 400000 fields; expected fewer",
)
_graph(
    "many sizes",
    model_of(tensors=[number(2, FLOAT) + blob(8, "w") + blob(1, b"\x01" * 5_000_000)]),
    "has more than 8 numbers in 'dims'; expected fewer",
)


_nodes(
    "tensors that are computed when the graph is loaded",
    [
        node("ConstantOfShape", ["wide"], ["a0"]),
        node("Neg", ["a0"], ["a1"]),
        node("Neg", ["a1"], ["a2"]),
    ],
    "node 'a1' (Neg) reaches tensors of 3356",
    integers("wide", 1 << 24),
)


# Files that are ONNX and another format, which libraries prefer
def _other_format(name: str, producer: bytes) -> None:
    graph_bytes = number(1, 8) + blob(2, producer) + model(graph_of())[2:]
    _graph(name, graph_bytes, "the file can be read as another format than ONNX; expected an ONNX graph only")


_other_format("OpenVINO IR in the producer", b'<net name="tcmoa_hostile" version="11"></net>')
_other_format("ONNX Runtime's own format", b"ORTM")
_other_format("TensorFlow Lite's format", b"TFL3")

# Tensors of attributes, and names that mean an absent input
_SHAPE = integers("sides", 4)


def _filled(value: bytes) -> list[bytes]:
    return [node("ConstantOfShape", ["sides"], ["a"], blob(1, "value") + blob(5, value) + number(20, 4))]


_nodes(
    "value of ConstantOfShape in another file",
    _filled(external("", [1], location="etc/shadow", offset=0, length=4)),
    "node 'a' (ConstantOfShape) is in another file; expected its data in the graph",
    _SHAPE,
)
_nodes(
    "two values of ConstantOfShape",
    _filled(tensor("", [2], bytes(8))),
    "node 'a' (ConstantOfShape) has a value of 2 elements; expected one",
    _SHAPE,
)
_nodes(
    "initializer without a name",
    [],
    "an initializer without a name; expected a name",
    tensor("", [1], bytes(4)),
)
_graph(
    "weights that nothing reads",
    model_of(tensors=[external("w", [4], location="fusion.data", offset=0, length=16)]),
    "'fusion.data' is listed with 2097152 bytes, but the graph reads 16 of them; expected no more than it reads",
    bytes(2 << 20),
)


# Files
def _sparse(name: str) -> Make:
    def make(folder: Path) -> None:
        write_bundle(folder, data=WEIGHTS)
        os.truncate(folder / name, 30_000_000_000)

    return make


def _pipe(name: str) -> Make:
    def make(folder: Path) -> None:
        write_bundle(folder, data=WEIGHTS)
        (folder / name).unlink()
        os.mkfifo(folder / name)

    return make


def _link(name: str, target: str) -> Make:
    def make(folder: Path) -> None:
        write_bundle(folder, data=WEIGHTS)
        (folder / name).unlink()
        (folder / name).symlink_to(target)

    return make


def _folder(name: str) -> Make:
    def make(folder: Path) -> None:
        write_bundle(folder, data=WEIGHTS)
        (folder / name).unlink()
        (folder / name).mkdir()

    return make


for file_name in ("fusion.onnx", "fusion.data"):
    _case(
        f"sparse {file_name}",
        _sparse(file_name),
        "30000000000 bytes, truncated or another file; expected",
    )
    _case(f"pipe as {file_name}", _pipe(file_name), "cannot be read: a named pipe; expected a regular file")
    _case(f"folder as {file_name}", _folder(file_name), "cannot be read: a folder; expected a regular file")
    _case(
        f"link as {file_name}",
        _link(file_name, "/etc/passwd"),
        "cannot be read: a symbolic link; expected a regular file",
    )
    _case(
        f"device as {file_name}",
        _link(file_name, "/dev/zero"),
        "cannot be read: a symbolic link; expected a regular file",
    )
_case("sparse bundle.json", _sparse("bundle.json"), "30000000000 bytes; expected at most 1048576")
_case("pipe as bundle.json", _pipe("bundle.json"), "not a bundle; expected a bundle.json in it")
_case(
    "link as bundle.json",
    _link("bundle.json", "/etc/passwd"),
    "cannot be read: a symbolic link; expected a regular file",
)


# Manifests
def _manifest(name: str, change: Callable[[dict], object], refusal: str) -> None:
    _case(name, lambda folder: write_bundle(folder, change=lambda m: (change(m), None)[1]), refusal)


def _encoded(name: str, encode: Callable[[str], bytes], refusal: str) -> None:
    _case(name, lambda folder: write_bundle(folder, encode=encode), refusal)


_manifest(
    "minus one prompts",
    lambda m: m["frame"].update(prompts=-1),
    "'frame.prompts' is -1; expected an integer from 0 to",
)
_manifest(
    "huge default prompt",
    lambda m: m["prompt_default"].update(scale=1e6),
    "'prompt_default.scale' is 1000000.0",
)
_manifest(
    "default prompt of 17",
    lambda m: m["prompt_default"].update(shift=-17),
    "expected a number from -16 to 16",
)
_manifest("integer of 100 digits", lambda m: m.update(other=10**100), "an integer of more than 64 bits")
_manifest("NaN", lambda m: m.update(other=float("nan")), "not valid JSON")
_manifest("infinity", lambda m: m.update(other=float("inf")), "not valid JSON")
_manifest("lone surrogate", lambda m: m.update(other="\ud800"), "not valid JSON")
_manifest(
    "negative size of a file",
    lambda m: m["files"]["fusion.onnx"].update(bytes=-1),
    "'files.fusion.onnx.bytes' is -1",
)
_manifest(
    "escape sequences",
    lambda m: m.update(task="\x1b]0;owned\x07\x1b[31m\u202e\x9b"),
    "expected 'vif', 'mef', 'mff'",
)
_manifest(
    "unknown file with an escape sequence",
    lambda m: m["files"].update({"\x1b[2J": {"sha256": "0", "bytes": 1}}),
    "lists an unknown file '",
)
_manifest(
    "path in a name",
    lambda m: m["files"].update({"../x": {"sha256": "0", "bytes": 1}}),
    "unknown file '../x'",
)


def _nested(depth: int) -> Any:
    value: Any = []
    for _ in range(depth - 1):
        value = [value]
    return value


_manifest("nesting", lambda m: m.update(other=_nested(80)), "not valid JSON (nested too deeply)")
_encoded("deep nesting", lambda text: b'{"a":' * 100_000, "not valid JSON")
_encoded("byte order mark", lambda text: b"\xef\xbb\xbf" + text.encode(), "not valid JSON")
_encoded("UTF-16", lambda text: text.encode("utf-16"), "not valid JSON")
_encoded("UTF-32", lambda text: text.encode("utf-32"), "not valid JSON")
_encoded("invalid UTF-8", lambda text: text.encode().replace(b"custom", b"cust\xff\xfe"), "not valid JSON")
_encoded(
    "key twice",
    lambda text: text.replace('"task"', '"task": "mef", "task"').encode(),
    "not valid JSON (a key occurs twice)",
)
_encoded("number overflow", lambda text: text.replace("1.0", "1e999").encode(), "not valid JSON")
_encoded(
    "number written differently",
    lambda text: text.replace("1.0", "1.00").encode(),
    "which is written differently",
)
_encoded("text after the object", lambda text: text.encode() + b"{}", "not valid JSON")
_encoded("not an object", lambda text: json.dumps([text]).encode(), "not a TC-MoA bundle")
