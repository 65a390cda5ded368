"""Mutated graphs and images: refused in one line or read, in bounded time; Python and libtcmoa refuse the same."""

import random
import zipfile

import onnx
import pytest

from c_library import LIBRARY, CFuser
from hostile import fuzz
from hostile.write_bundle import write_bundle
from tcmoa_runtime import BundleError, TcmoaError, images
from tcmoa_runtime.bundle import Bundle
from tcmoa_runtime.graph.rules import read_rules

ROUNDS = {"graph": 3000, "image": 1500}


@pytest.mark.parametrize("name", fuzz.TARGETS)
def test_mutated_inputs_keep_the_promises(name, monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)  # for an input that breaks a promise
    monkeypatch.setattr(images, "MAX_PIXELS", 1 << 20)
    seed = random.randrange(1 << 32)
    print(f"seed {seed}")
    inputs = [*fuzz.read_corpus(name), *(fuzz.image_seeds() if name == "image" else ())]
    assert len(inputs) > 20
    assert fuzz.fuzz(name, inputs, iter(range(ROUNDS[name])), seed)


def test_the_package_onnx_sees_in_an_accepted_graph_what_was_checked():
    rng, inputs, accepted = random.Random(0), fuzz.read_corpus("graph"), 0
    valid = next(data for data in inputs if fuzz.check_graph_of(data) == "accepted")
    for _ in range(2000):
        data = fuzz.mutate(rng, valid, rng.choice(inputs))
        if fuzz.check_graph_of(data) != "accepted":
            continue
        accepted += 1
        model = onnx.load_model_from_string(data)
        assert [o.domain for o in model.opset_import] == [""]
        assert not model.functions
        assert not model.training_info
        for node in model.graph.node:
            assert node.op_type.encode() in read_rules().operators
            assert not node.domain
            assert not any(a.HasField("g") or a.graphs or a.HasField("sparse_tensor") for a in node.attribute)
        for tensor in model.graph.initializer:
            assert {e.value for e in tensor.external_data if e.key == "location"} <= {"fusion.data"}
    assert accepted > 20


@pytest.mark.skipif(not LIBRARY.exists(), reason=f"{LIBRARY} is not built: run `make cpp`")
def test_python_and_libtcmoa_refuse_mutated_graphs_with_the_same_words(tmp_path):
    rng, inputs = random.Random(1), fuzz.read_corpus("graph")
    compared = 0
    for number in range(300):
        data = fuzz.mutate(rng, rng.choice(inputs), rng.choice(inputs))
        folder = tmp_path / str(number)
        write_bundle(folder, data, bytes(fuzz.DATA_BYTES))
        if fuzz.check_graph_of(data) == "accepted":
            continue
        with pytest.raises(BundleError) as in_python:
            Bundle.open(folder).read_graph()
        with pytest.raises(TcmoaError) as in_c:
            CFuser(folder)
        problem = in_python.value.render_problem()[:500].rstrip(".")  # a remedy is worded differently
        assert str(in_c.value).startswith(problem)
        compared += 1
    assert compared > 100


def places(value, path=()):
    """Yield the path of each value in a manifest."""
    yield path
    if isinstance(value, dict | list):
        for key in value if isinstance(value, dict) else range(len(value)):
            yield from places(value[key], (*path, key))


VALUES = [
    *(
        None,
        True,
        0,
        -1,
        1,
        2,
        3,
        16,
        17,
        32,
        1 << 20,
        (1 << 20) + 1,
        1 << 31,
        1 << 63,
        (1 << 64) - 1,
        1 << 64,
        -(1 << 63),
    ),
    *(0.0, -0.0, 1.0, 16.0, 16.5, 1e6, 1e16, 1e-5, 1e300, float("nan"), float("inf")),
    *(
        "",
        "vif",
        "rgb",
        "pad",
        "crops",
        "resize",
        "fusion.onnx",
        "\x1b[2J",
        "\u202e",
        "\x9b",
        "\ud800",
        "a" * 5000,
    ),
    *([], {}, [1, 1], [0, 3], [2, 3], {"sha256": "0", "bytes": 1}),
]


@pytest.mark.skipif(not LIBRARY.exists(), reason=f"{LIBRARY} is not built: run `make cpp`")
def test_python_and_libtcmoa_refuse_the_same_manifests(tmp_path):
    rng, refused = random.Random(2), 0
    for number in range(250):

        def change(manifest):
            for _ in range(rng.choice((1, 1, 2))):
                *parents, key = rng.choice(list(places(manifest))[1:])
                holder = manifest
                for parent in parents:
                    holder = holder[parent]
                if rng.randrange(5):
                    holder[key] = rng.choice(VALUES)
                else:
                    del holder[key]

        folder = tmp_path / str(number)
        write_bundle(folder, change=change)
        try:
            bundle = Bundle.open(folder)
            bundle.read_graph()
        except BundleError as error:
            in_python = str(error)
        else:
            in_python = ""
        try:
            with CFuser(folder):
                in_c = ""
        except TcmoaError as error:
            in_c = str(error)
        text = (folder / "bundle.json").read_text()
        assert bool(in_python) == bool(in_c), (text, in_python, in_c)
        assert in_python.isprintable(), in_python
        assert in_c.isprintable(), in_c
        assert len(in_python) < 1200, in_python
        assert len(in_c) < 1200, in_c
        refused += bool(in_python)
    assert 100 < refused < 250


def test_the_corpora_hold_no_large_input():
    for path in fuzz.CORPORA.values():
        with zipfile.ZipFile(path) as file:
            assert sum(entry.file_size for entry in file.infolist()) < 4 << 20
