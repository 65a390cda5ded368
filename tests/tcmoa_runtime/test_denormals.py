"""Denormal numbers are flushed to zero while a frame is fused, and only then."""

import sys
import threading

import numpy as np
import onnxruntime as ort
import pytest

from tcmoa_runtime import Bundle
from tcmoa_runtime.backends import denormals
from tcmoa_runtime.backends.denormals import flushed_denormals
from tcmoa_runtime.backends.pick import load_backend

known = pytest.mark.skipif(
    denormals._functions is None,
    reason="needs x86-64 Linux with glibc, where the layout of the flags is known",
)
SMALL = np.full(4, 1e-40, np.float32)


def has_denormals():
    return bool(np.all(SMALL * np.float32(1) == SMALL) and np.all(SMALL > 0))


@known
def test_denormals_are_zero_inside_and_restored_afterwards():
    assert has_denormals()
    seen, go = [], threading.Event()
    other = threading.Thread(target=lambda: seen.append(go.wait(60) and has_denormals()))
    other.start()
    with flushed_denormals():
        assert not np.any(SMALL * np.float32(1))
        go.set()
        other.join()
        assert seen == [True]  # only this thread is changed
        with flushed_denormals():
            pass
        assert not np.any(SMALL * np.float32(1))
    assert has_denormals()


@known
def test_denormals_are_restored_after_an_exception():
    with pytest.raises(KeyError), flushed_denormals():
        raise KeyError
    assert has_denormals()


def test_other_platforms_are_not_changed(monkeypatch):
    monkeypatch.setattr(denormals, "_functions", None)
    with flushed_denormals():
        assert has_denormals()
    monkeypatch.setattr(sys, "platform", "win32")
    assert denormals._find_functions() is None


def test_a_state_that_cannot_be_read_is_not_changed(monkeypatch):
    put = []
    monkeypatch.setattr(denormals, "_functions", (lambda _: 1, put.append))
    with flushed_denormals():
        assert has_denormals()
    assert put == []


def test_loading_and_fusing_do_not_change_the_state_of_the_process(fresh_python, vif):
    """ONNX Runtime changes the thread that makes the first session of a process."""
    outcome = fresh_python(
        "import warnings; warnings.simplefilter('error')\n"
        "import numpy as np\n"
        "from tcmoa_runtime import Fuser\n"
        f"with Fuser.load({str(vif)!r}, 'onnxruntime') as fuser:\n"
        "    black = np.zeros((*fuser.size, 3), np.uint8)\n"
        "    fuser(black, black)\n"
        "    print(np.finfo(np.float32).smallest_subnormal > 0)"
    )
    assert (outcome.code, outcome.out, outcome.err) == (0, "True\n", "")


def test_the_graph_runs_with_flushed_denormals(vif, monkeypatch):
    """Both in the threads of the session, by its option, and in the calling thread."""
    inside = []
    session = ort.InferenceSession

    class Watched(session):
        def __init__(self, source, options, **rest):
            inside.append(not has_denormals())
            assert options.get_session_config_entry("session.set_denormal_as_zero") == "1"
            super().__init__(source, options, **rest)

        def run(self, *arguments):
            inside.append(not has_denormals())
            return super().run(*arguments)

    monkeypatch.setattr(ort, "InferenceSession", Watched)
    backend = load_backend(Bundle.open(vif), "onnxruntime")
    contract = Bundle.open(vif).contract
    backend.infer({s.name: np.zeros(s.shape, s.dtype) for s in contract.inputs})
    assert inside == [denormals._functions is not None] * 2
    backend.close()
