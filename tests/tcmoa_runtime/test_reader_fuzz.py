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


def test_the_corpora_hold_no_large_input():
    for path in fuzz.CORPORA.values():
        with zipfile.ZipFile(path) as file:
            assert sum(entry.file_size for entry in file.infolist()) < 4 << 20
