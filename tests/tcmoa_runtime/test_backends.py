"""Loading and running a backend: inputs are checked, outputs match the contract."""

import sys

import numpy as np
import onnxruntime
import pytest

from tcmoa_runtime import Bundle, InputError, MissingError
from tcmoa_runtime.backends.base import check_inputs
from tcmoa_runtime.backends.pick import BACKENDS, load_backend


@pytest.fixture(scope="module")
def backend(vif):
    loaded = load_backend(Bundle.open(vif))
    yield loaded
    loaded.close()


@pytest.fixture
def inputs(vif):
    return {s.name: np.zeros(s.shape, s.dtype) for s in Bundle.open(vif).contract.inputs}


def test_outputs_match_the_contract(backend, inputs, vif):
    outputs = backend.infer(inputs)
    expected = Bundle.open(vif).contract.outputs
    assert [(n, str(a.dtype), a.shape) for n, a in outputs.items()] == [
        (s.name, s.dtype, s.shape) for s in expected
    ]


def test_each_run_returns_new_arrays(backend, inputs):
    first = backend.infer(inputs)["fused"]
    copy = first.copy()
    backend.infer({**inputs, "x": inputs["x"] + 255})
    np.testing.assert_array_equal(first, copy)


def test_the_name_contains_the_device(backend):
    assert backend.name in ("onnxruntime (CPU)", "onnxruntime (CUDA)", "openvino (CPU)")


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"x": np.zeros((1, 100, 131, 3), np.uint8)}, r"x: uint8 \[1, 100, 131, 3\]; expected uint8"),
        ({"y": np.zeros((1, 100, 130, 3), np.float32)}, "y: float32"),
        ({"prompt_scale": np.zeros((1, 13, 17))}, "prompt_scale: float64"),
        ({"prompt_shift": np.zeros((13, 17), np.float32)}, "prompt_shift: float32"),
        ({"z": np.zeros(1)}, "inputs are"),
    ],
)
def test_wrong_tensors_are_refused_by_name(change, words, backend, inputs, vif):
    with pytest.raises(InputError, match=words):
        backend.infer({**inputs, **change})
    with pytest.raises(InputError, match=words):
        check_inputs(Bundle.open(vif).contract.inputs, {**inputs, **change})


def test_a_missing_tensor_is_refused(backend, inputs):
    del inputs["y"]
    with pytest.raises(InputError, match=r"expected .*'y'"):
        backend.infer(inputs)


@pytest.mark.parametrize("name", ["", "ONNXRUNTIME", "tensorrt2"])
def test_an_unknown_backend_is_refused_with_the_known_ones(name, vif):
    with pytest.raises(InputError, match=f"backend: '{name}'; expected one of auto, {', '.join(BACKENDS)}"):
        load_backend(Bundle.open(vif), name)


@pytest.mark.parametrize("threads", [0, -1])
def test_fewer_than_one_thread_is_refused(threads, vif):
    with pytest.raises(InputError, match="expected 1 or more"):
        load_backend(Bundle.open(vif), threads=threads)


@pytest.mark.parametrize("threads", [1, 3])
def test_threads_reach_onnx_runtime(threads, vif, monkeypatch):
    seen = []
    session = onnxruntime.InferenceSession

    def watch(source, options, **rest):
        seen.append(options.intra_op_num_threads)
        return session(source, options, **rest)

    monkeypatch.setattr(onnxruntime, "InferenceSession", watch)
    load_backend(Bundle.open(vif), "onnxruntime", threads=threads).close()
    assert seen == [threads]


def test_a_missing_package_error_says_what_to_install(vif, monkeypatch, no_openvino):
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    monkeypatch.delitem(sys.modules, "tcmoa_runtime.backends.onnxruntime", raising=False)
    with pytest.raises(MissingError, match="pip install onnxruntime"):
        load_backend(Bundle.open(vif))
