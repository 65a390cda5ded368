"""Hostile bundles are refused in one line, by Python and by libtcmoa alike, before a library sees them."""

import resource

import pytest

from c_library import LIBRARY, CFuser
from hostile.cases import CASES
from hostile.cpu_time import limited_cpu_time
from hostile.write_bundle import write_bundle
from tcmoa_runtime import BundleError, Fuser, TcmoaError

MAX_SECONDS = 1.0
MAX_MEGABYTES = 200

needs_library = pytest.mark.skipif(not LIBRARY.exists(), reason=f"{LIBRARY} is not built: run `make cpp`")


def load_in_python(folder):
    with pytest.raises(BundleError) as caught:
        Fuser.load(folder, backend="onnxruntime")
    return str(caught.value)


def load_in_c(folder):
    with pytest.raises(TcmoaError) as caught:
        CFuser(folder)
    return str(caught.value)


@pytest.fixture
def no_library(monkeypatch):
    """Fail the test when ONNX Runtime loads a graph."""
    monkeypatch.setattr(
        "onnxruntime.InferenceSession", lambda *_, **__: pytest.fail("a library saw the graph")
    )


@pytest.mark.usefixtures("no_library")
@pytest.mark.parametrize("load", [load_in_python, pytest.param(load_in_c, marks=needs_library)])
@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_a_hostile_bundle_is_refused_in_one_line_in_bounded_time_and_memory(case, load, tmp_path):
    folder = tmp_path / "bundle"
    case.make(folder)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    with limited_cpu_time(MAX_SECONDS):
        line = load(folder)
    assert (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) / 1024 < MAX_MEGABYTES
    assert case.refusal in line
    assert line.startswith(str(folder))
    assert line.isprintable()
    assert len(line) < 900


def test_the_names_of_the_cases_differ():
    assert len({case.name for case in CASES}) == len(CASES)


@pytest.mark.parametrize("backend", ["onnxruntime", "openvino"])
def test_the_bundle_that_the_cases_are_made_from_fuses(backend, tmp_path):
    import numpy as np

    write_bundle(tmp_path / "bundle")
    x = np.arange(32 * 48 * 3, dtype=np.uint8).reshape(32, 48, 3)
    with Fuser.load(tmp_path / "bundle", backend=backend) as fuser:
        assert (fuser(x, x[::-1]) == x).all()
    if LIBRARY.exists():
        with CFuser(tmp_path / "bundle") as fuser:
            assert (fuser(x, np.ascontiguousarray(x[::-1])) == x).all()


@pytest.mark.parametrize("command", ["fuse", "inspect", "doctor"])
def test_the_command_line_refuses_a_hostile_bundle_as_the_users_input(command, tcmoa, sources, tmp_path):
    case = next(case for case in CASES if case.name == "escape sequence in a name")
    case.make(tmp_path / "bundle")
    extra = [*sources, "-o", tmp_path / "fused.png"] if command == "fuse" else []
    done = tcmoa(command, tmp_path / "bundle", *extra)
    text = done.out + done.err
    assert done.code == 2
    assert case.refusal in text
    assert "\x1b" not in text
    assert not (tmp_path / "fused.png").exists()
