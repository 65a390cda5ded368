"""OpenVINO: the same frames and errors as with ONNX Runtime, and a cache whose files are checked."""

import json
import shutil
import types
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest

from tcmoa_runtime import Bundle, BundleError, Fuser, InputError, MissingError, TcmoaError
from tcmoa_runtime.backends import pick as backends
from tcmoa_runtime.backends.pick import load_backend
from tcmoa_runtime.bundle import GRAPH
from tcmoa_runtime.cli import run
from tcmoa_runtime.install import install_command
from tcmoa_runtime.manifest import file_sha256

ov = pytest.importorskip(
    "openvino", reason="openvino is not installed; `pip install 'tcmoa[openvino]'` enables these tests"
)
from tcmoa_runtime.backends.openvino import _process_core  # noqa: E402  # one core in a process, see there

HAS_BF16 = "BF16" in _process_core().get_property("CPU", "OPTIMIZATION_CAPABILITIES")


@pytest.fixture(scope="module")
def own(exported, tmp_path_factory):
    """Copies of bundles by name."""
    folder = tmp_path_factory.mktemp("openvino")

    def copy_of(name):
        out = folder / name
        return out if out.exists() else Path(shutil.copytree(exported(name), out))

    return copy_of


@pytest.fixture(scope="module")
def openvino_fuser(own):
    with Fuser.load(own("vif"), "openvino", threads=1) as loaded:
        yield loaded


@pytest.fixture
def fresh(exported, tmp_path):
    """A copy to be damaged."""
    return Path(shutil.copytree(exported("vif"), tmp_path / "fresh"))


@pytest.fixture
def user_cache(tmp_path, monkeypatch):
    """The user's cache folder, empty."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return tmp_path / "cache" / "tcmoa"


def test_frames_are_close_to_those_of_onnx_runtime(openvino_fuser, vif, four_pairs, max_gray_difference):
    x, y = four_pairs
    shifts = np.linspace(-0.4, 0.4, 4 * 221).reshape(4, 13, 17)
    got, prompts = openvino_fuser.with_prompt(x, y, shift=shifts)
    with Fuser.load(vif, "onnxruntime") as other:
        expected, expected_prompts = other.with_prompt(x, y, shift=shifts)
    assert max_gray_difference(got, expected) <= 1
    np.testing.assert_allclose(prompts, expected_prompts, atol=1e-3)


def test_auto_takes_openvino_and_writes_nothing(fresh, user_cache):
    with Fuser.load(fresh) as chosen:
        assert chosen.backend.name == "openvino (CPU)"
    assert not (fresh / "engines").exists()
    assert not user_cache.exists()  # if openvino is named, its cache is kept there


def test_auto_falls_back_to_onnx_runtime_where_openvino_cannot_load(fresh, monkeypatch):
    def refuse(*_, **__):
        raise RuntimeError("no such operation")

    monkeypatch.setattr(ov.Core, "compile_model", refuse)
    with pytest.raises(BundleError, match="no such operation"):
        load_backend(Bundle.open(fresh), "openvino")
    assert load_backend(Bundle.open(fresh)).name == "onnxruntime (CPU)"


@pytest.mark.parametrize(
    ("message", "reason"),
    [
        (
            "Exception from src/inference/src/cpp/core.cpp:105:\nException from src/model_reader.cpp:188:\n"
            "Unable to read the model. Please check if the model format is supported.\n\n",
            "Unable to read the model. Please check if the model format is supported.",
        ),
        (
            "Exception from src/core.cpp:105:\nCheck 'false' failed at src/report.cpp:151:\nFrontEnd API failed with "
            "OpConversionFailure:\nModel wasn't fully converted.\nSummary:\n"
            "-- No conversion rule found for operations: "
            "NoSuchOp-28\nTo facilitate the conversion of unsupported operations, refer to the documentation\n\n",
            "No conversion rule found for operations: NoSuchOp-28",
        ),
        ("Exception from src/core.cpp:105:\n", "Exception from src/core.cpp:105:"),
    ],
)
def test_an_error_of_openvino_is_reported_with_its_reason(fresh, monkeypatch, message, reason):
    def refuse(*_, **__):
        raise RuntimeError(message)

    monkeypatch.setattr(ov.Core, "read_model", refuse)
    with pytest.raises(BundleError) as caught:
        load_backend(Bundle.open(fresh), "openvino")
    version = str(ov.__version__).split("-", maxsplit=1)[0]
    assert str(caught.value) == (
        f"{fresh / GRAPH}: OpenVINO {version} cannot load the graph ({reason}). Use backend='onnxruntime', or upgrade "
        f"openvino."
    )


def test_auto_prefers_onnx_runtime_with_cuda(fresh, tmp_path, monkeypatch):
    package = tmp_path / "onnxruntime"
    (package / "capi").mkdir(parents=True)
    (package / "capi" / "libonnxruntime_providers_cuda.so").touch()
    find = backends.find_spec
    gpu = types.SimpleNamespace(submodule_search_locations=[str(package)])
    monkeypatch.setattr(backends, "find_spec", lambda name: gpu if name == "onnxruntime" else find(name))
    assert load_backend(Bundle.open(fresh)).name.startswith("onnxruntime (")


@pytest.mark.parametrize("name", ["mef", "batch", "bgr gray", "resize", "plain"])
def test_every_kind_of_bundle_runs(name, own, pair, max_gray_difference):
    with Fuser.load(own(name), "openvino") as got, Fuser.load(own(name), "onnxruntime") as expected:
        assert max_gray_difference(got(*pair), expected(*pair)) <= 1


def test_weights_in_a_file_of_their_own(external_data_bundle, tmp_path, pair, fuser, max_gray_difference):
    with Fuser.load(shutil.copytree(external_data_bundle, tmp_path / "two"), "openvino") as got:
        assert max_gray_difference(got(*pair), fuser(*pair)) <= 1


def test_results_are_not_overwritten(openvino_fuser, pair):
    first = openvino_fuser(*pair)
    copy = first.copy()
    openvino_fuser(pair[1], pair[0])
    np.testing.assert_array_equal(first, copy)


def test_threads_may_share_it(openvino_fuser, four_pairs):
    x, y = four_pairs
    expected = [openvino_fuser(a, b) for a, b in zip(x, y, strict=True)]
    with ThreadPoolExecutor(4) as pool:
        got = list(pool.map(lambda i: openvino_fuser(x[i % 4], y[i % 4]), range(24)))
    for i, frame in enumerate(got):
        np.testing.assert_array_equal(frame, expected[i % 4])


def test_threads_may_begin_at_once(vif, fresh_python):
    """The first call of a function of OpenVINO stopped the process, if threads made it at once."""
    outcome = fresh_python(f"""
import faulthandler, sys, threading
import numpy
from tcmoa_runtime import Fuser
faulthandler.dump_traceback_later(50, exit=True)
fuser = Fuser.load({str(vif)!r}, "openvino", threads=1)
frame = numpy.zeros((*fuser.size, 3), numpy.uint8)
barrier = threading.Barrier(8)
def fuse():
    barrier.wait()
    fuser(frame, frame)
sys.setswitchinterval(1e-6)
threads = [threading.Thread(target=fuse) for _ in range(8)]
for thread in threads:
    thread.start()
for thread in threads:
    thread.join()
""")
    assert (outcome.code, outcome.out, outcome.err) == (0, "", "")


@pytest.mark.skipif(not HAS_BF16, reason="this CPU does not support bfloat16")
def test_bf16_is_close_to_float32(own, pair, fuser):
    with Fuser.load(own("vif"), "openvino-bf16") as low:
        assert low.backend.name == "openvino-bf16 (CPU)"
        error = low(*pair).astype(float) - fuser(*pair)
    assert 10 * np.log10(255**2 / np.mean(error**2)) > 25


def test_bf16_needs_a_cpu_that_supports_it(vif, monkeypatch):
    monkeypatch.setattr(ov.Core, "get_property", lambda *_: ["FP32", "INT8"])
    with pytest.raises(
        MissingError, match=r"openvino-bf16: this CPU does not support bfloat16.* Use backend='openvino'"
    ):
        load_backend(Bundle.open(vif), "openvino-bf16")


def test_wrong_tensors_are_refused_by_name(openvino_fuser, vif):
    inputs = {s.name: np.zeros(s.shape, s.dtype) for s in Bundle.open(vif).contract.inputs}
    with pytest.raises(InputError, match="y: float32"):
        openvino_fuser.backend.infer({**inputs, "y": inputs["y"].astype(np.float32)})


def test_a_closed_backend_raises(own, pair):
    fuser = Fuser.load(own("vif"), "openvino")
    fuser.close()
    fuser.close()
    with pytest.raises(TcmoaError, match=r"closed\. Load the bundle again"):
        fuser(*pair)


@pytest.mark.parametrize("threads", [1, 2])
def test_threads_reach_openvino(threads, own):
    backend = load_backend(Bundle.open(own("vif")), "openvino", threads=threads)
    assert backend._compiled.get_property("INFERENCE_NUM_THREADS") == threads
    assert backend._compiled.get_property("INFERENCE_PRECISION_HINT").to_string() == "f32"
    backend.close()


def test_another_bundles_graph_with_right_hashes_is_refused(fresh, exported, rehash):
    (fresh / GRAPH).write_bytes((exported("mef") / GRAPH).read_bytes())
    rehash(
        fresh,
        lambda m: m["files"].update({GRAPH: {"sha256": file_sha256(fresh / GRAPH), "bytes": size(fresh)}}),
    )
    with pytest.raises(BundleError, match="the graph of another bundle"):
        Fuser.load(fresh, "openvino")


def test_a_graph_of_other_outputs_is_refused(fresh, exported, rehash):
    (fresh / GRAPH).write_bytes((exported("plain") / GRAPH).read_bytes())
    rehash(
        fresh,
        lambda m: m["files"].update({GRAPH: {"sha256": file_sha256(fresh / GRAPH), "bytes": size(fresh)}}),
    )
    with pytest.raises(BundleError, match="output 'prompt' is absent"):
        Fuser.load(fresh, "openvino")


def size(folder):
    return (folder / GRAPH).stat().st_size


def test_a_damaged_graph_is_refused_before_it_is_loaded(fresh):
    graph = fresh / GRAPH
    graph.write_bytes(graph.read_bytes()[:-100])
    with pytest.raises(BundleError, match=GRAPH):
        Fuser.load(fresh, "openvino")


def test_the_cache_is_used_again_and_damaged_files_are_deleted(fresh, pair, user_cache):
    with Fuser.load(fresh, "openvino") as fuser:
        expected = fuser(*pair)
    assert not (fresh / "engines").exists()
    (folder,) = (user_cache / "compiled").iterdir()
    blobs = [p for p in folder.iterdir() if p.suffix == ".blob"]
    assert blobs
    before = {p: p.stat().st_mtime_ns for p in blobs}
    with Fuser.load(fresh, "openvino") as fuser:
        np.testing.assert_array_equal(fuser(*pair), expected)
    assert {p: p.stat().st_mtime_ns for p in blobs} == before
    blobs[0].write_bytes(blobs[0].read_bytes()[:1000])
    with pytest.warns(RuntimeWarning, match="damaged or left by an interrupted run"):
        fuser = Fuser.load(fresh, "openvino")
    with fuser:
        np.testing.assert_array_equal(fuser(*pair), expected)
    assert Bundle.open(fresh)


def test_a_compiled_model_in_the_bundle_is_not_used(fresh, own, exported, pair, user_cache):
    """Issue: a compiled model of another graph, put into a bundle with right hashes, ran in place of its graph."""
    with Fuser.load(fresh, "openvino") as fuser:
        expected = fuser(*pair)
    (folder,) = (user_cache / "compiled").iterdir()
    (blob,) = folder.glob("*.blob")
    shutil.rmtree(user_cache)
    with Fuser.load(own("mef"), "openvino") as fuser:
        assert not np.array_equal(fuser(*pair), expected)
    (other,) = (user_cache / "compiled").rglob("*.blob")
    sealed = {"files": {blob.name: file_sha256(other)}}
    bundle = Bundle.open(fresh)
    digest = bundle.files[GRAPH].sha256[:12]
    for name in (folder.name, f"openvino-{ov.__version__.split('-')[0]}-{bundle.graph_name}-{digest}"):
        (fresh / "engines" / name).mkdir(parents=True)
        shutil.copy(other, fresh / "engines" / name / blob.name)
        (fresh / "engines" / name / "cache.json").write_text(json.dumps(sealed))
    shutil.rmtree(user_cache)
    with Fuser.load(fresh, "openvino") as fuser:
        np.testing.assert_array_equal(fuser(*pair), expected)


def test_without_a_private_folder_it_runs_without_a_cache(fresh, pair, user_cache):
    user_cache.mkdir(parents=True)
    user_cache.chmod(0o777)
    with pytest.warns(RuntimeWarning, match="compiles at each start"):
        fuser = Fuser.load(fresh, "openvino")
    with fuser:
        assert fuser(*pair).shape == (100, 130, 3)


def test_without_the_package_the_error_says_what_to_install(vif, fresh_python):
    code = f"from tcmoa_runtime import Fuser\nFuser.load({str(vif)!r}, 'openvino')"
    outcome = fresh_python(code, blocked={"openvino"})
    assert outcome.code == 1
    assert install_command("openvino") in outcome.err


def test_openvino_does_not_need_onnx_runtime(own, fresh_python):
    code = f"from tcmoa_runtime import Fuser\nprint(Fuser.load({str(own('vif'))!r}, 'openvino').backend.name)"
    outcome = fresh_python(code, blocked={"onnxruntime"})
    assert (outcome.code, outcome.out) == (0, "openvino (CPU)\n"), outcome.err


def test_on_the_command_line(own, sources, tmp_path, capsys):
    command = [
        "fuse",
        str(own("vif")),
        *map(str, sources),
        "-o",
        str(tmp_path / "f.png"),
        "--backend",
        "openvino",
    ]
    assert run(command) == 0
    assert "openvino (CPU)" in capsys.readouterr().out


CLOSED_IN_ANY_ORDER = """
import faulthandler, gc, signal, sys, threading
sys.path.insert(0, {tests!r})
from raised_signals import has_signal_stack
from tcmoa_runtime import Fuser

def load(name):
    return Fuser.load(name, "openvino", threads=1)

def close(*fusers):
    for fuser in fusers:
        fuser.close()
    gc.collect()

if {enable}:
    faulthandler.enable()  # it gives handlers a stack of their own, as pytest does
signal.signal(signal.SIGINT, lambda *_: print("handled"))
close(load({bundle!r}), load({bundle!r}))  # the one that was loaded first is closed first
made = load({bundle!r})
thread = threading.Thread(target=lambda: close(made))
thread.start()
thread.join()
del made
gc.collect()
assert has_signal_stack()
signal.raise_signal(signal.SIGINT)
"""


@pytest.mark.parametrize("enable", [False, True], ids=["", "with faulthandler"])
def test_ctrl_c_is_handled_after_fusers_have_closed_in_any_order(exported, fresh_python, enable):
    """OpenVINO gives signal handlers a stack on CPUs with AMX; on others this cannot fail."""
    code = CLOSED_IN_ANY_ORDER.format(
        tests=str(Path(__file__).parents[1]), bundle=str(exported("vif")), enable=enable
    )
    outcome = fresh_python(code)
    assert (outcome.code, outcome.out, outcome.err) == (0, "handled\n", "")
