"""`tcmoa doctor` with a simulated GPU, an unsupported one, or none, and with broken libraries."""

import importlib.util
import json
import re
import shlex
import shutil
import sys
import tomllib
import types
from pathlib import Path

import pytest

from simulated import cuda_runtime
from simulated.cases import add_engine, cut, flip
from simulated.cuda_runtime import cudaError_t
from simulated.tensorrt_module import Library
from tcmoa_runtime import Bundle
from tcmoa_runtime.cli.doctor import examine
from tcmoa_runtime.cli.doctor_packages import ALTERNATIVES, list_packages, parse_requirements
from tcmoa_runtime.engine import BuilderGpu
from tcmoa_runtime.engine_folders import ENGINES_FOLDER
from tcmoa_runtime.install import install_command

pytest_plugins = ["simulated.fixtures"]

NAME = "Simulated GPU (no GPU)"
RTX = "tensorrt (rtx 1.7.1.116, Simulated GPU (no GPU), fp32)"
ONNX = "onnxruntime (CPU)"
pytestmark = pytest.mark.usefixtures("no_openvino")


class NoDriver(cuda_runtime.Device):
    """A machine with the CUDA runtime and without a driver."""

    def __init__(self):
        super().__init__()
        self.driver = 0

    def cudaGetDeviceCount(self):  # noqa: N802
        return cudaError_t.cudaErrorInsufficientDriver, None


@pytest.fixture
def no_driver(monkeypatch):
    cuda_runtime.install(monkeypatch, NoDriver())
    monkeypatch.setitem(sys.modules, "tensorrt", None)
    return Library(NoDriver(), "rtx").install(monkeypatch)


@pytest.fixture
def report_on(tcmoa):
    """Run `tcmoa doctor` on a bundle and return its report; the exit code must match the verdict."""

    def call(bundle):
        outcome = tcmoa("doctor", bundle.path, "--json")
        assert outcome.err == ""
        report = outcome.json
        assert outcome.code == (0 if report["bundle"]["verdict"] == "load" else 2)
        texts = [
            report["bundle"]["why"],
            *(e["why"] for e in report["bundle"]["engines"]),
            *report["problems"],
        ]
        texts += [
            r["remedy"] for r in (report["bundle"], *report["bundle"]["engines"]) if r["remedy"] is not None
        ]
        assert all(text and "\n" not in text for text in texts)
        return report

    return call


def verdicts(report):
    found = report["bundle"]
    return found["verdict"], [(e["file"], e["verdict"]) for e in found["engines"]]


def command(text):
    """The command in a remedy."""
    (found,) = re.findall(r"Build it again with `([^`]*)`", text)
    return found


# --- the machine ----------------------------------------------------------------------------------------------


def test_a_gpu_is_described(library, tcmoa):
    report = tcmoa("doctor", "--json").json
    assert report["driver"] == "13.0"
    assert report["devices"][1:] == [
        {"kind": "cuda", "index": n, "name": NAME, "compute_capability": "8.9", "memory_bytes": 8 << 30}
        for n in range(2)
    ]
    assert report["flavors"] == {
        "tensorrt": {
            "version": None,
            "builds": False,
            "runs": False,
            "why": f"tensorrt is not installed. Run `{install_command('tensorrt')}`.",
        },
        "rtx": {"version": "1.7.1.116", "builds": True, "runs": True, "why": None},
    }
    assert report["problems"] == []
    lines = tcmoa("doctor").out.splitlines()
    assert f"gpu 1: {NAME}, compute capability 8.9, 8.0 GiB, driver for CUDA 13.0" in lines
    assert "rtx 1.7.1.116: builds and runs engines" in lines


def test_without_a_driver_rtx_builds_and_tensorrt_does_not(no_driver, tcmoa, monkeypatch):
    Library(NoDriver(), "tensorrt").install(monkeypatch)
    report = tcmoa("doctor", "--json").json
    assert [device["kind"] for device in report["devices"]] == ["cpu"]
    assert report["driver"] is None
    flavors = report["flavors"]
    assert [(f["builds"], f["runs"]) for f in flavors.values()] == [(False, False), (True, False)]
    assert all("no NVIDIA driver" in f["why"] for f in flavors.values())
    assert flavors["tensorrt"]["why"].endswith("Building an engine needs a GPU too.")
    assert report["problems"] == []


def test_a_gpu_that_rtx_does_not_support(monkeypatch, tcmoa):
    device = cuda_runtime.Device(capability=(9, 0))
    cuda_runtime.install(monkeypatch, device)
    for flavor in ("rtx", "tensorrt"):
        Library(device, flavor).install(monkeypatch)
    kinds = types.SimpleNamespace(__members__={"NONE": 0, "SM89": 1, "SM120": 2})
    monkeypatch.setattr(sys.modules["tensorrt_rtx_bindings"], "ComputeCapability", kinds, raising=False)
    flavors = tcmoa("doctor", "--json").json["flavors"]
    assert (flavors["rtx"]["builds"], flavors["rtx"]["runs"]) == (True, False)
    assert "supports sm89, sm120, but this GPU is sm90" in flavors["rtx"]["why"]
    assert (flavors["tensorrt"]["builds"], flavors["tensorrt"]["runs"]) == (True, True)


def test_without_onnx_no_flavor_builds(library, tcmoa, monkeypatch):
    monkeypatch.setitem(sys.modules, "onnx", None)
    flavor = tcmoa("doctor", "--json").json["flavors"]["rtx"]
    assert (flavor["builds"], flavor["runs"]) == (False, True)
    assert flavor["why"] == f"Building an engine needs onnx. Run `{install_command('rtx')}`."


def test_without_cuda_bindings_the_report_says_what_to_install(library, tcmoa, monkeypatch):
    monkeypatch.setitem(sys.modules, cuda_runtime.MODULE, None)
    report = tcmoa("doctor", "--json").json
    assert report["driver"] is None
    assert "the package cuda-bindings cannot be imported" in report["flavors"]["rtx"]["why"]
    assert install_command("rtx") in report["flavors"]["rtx"]["why"]


def test_packages_are_those_of_the_project_and_of_every_extra():
    project = tomllib.loads((Path(__file__).resolve().parents[2] / "pyproject.toml").read_text())["project"]
    extras = project["optional-dependencies"]
    listed = {package.name: package.extras for package in list_packages()}
    for extra, requirements in {"": project["dependencies"], **extras}.items():
        for requirement in requirements:
            name = re.match(r"[A-Za-z0-9._-]+", requirement)[0]
            if extra not in ("dev", "docs") and name != "tcmoa":
                assert name in listed
                assert not extra or extra in listed[name] or name == "onnxruntime"  # of the base install
    assert set(ALTERNATIVES) <= listed.keys()
    assert "pytest" not in listed


def test_requirements_are_read_from_metadata():
    found = parse_requirements(
        [
            "onnx>=1.17; extra == 'export'",
            "numpy>=1.26",
            'onnx>=1.17 ; python_version > "3.10" and extra == "rtx"',
            "ml_dtypes ; extra == 'rtx'",
            "tcmoa[export]; extra == 'train'",
            "mypy; extra == 'dev'",
        ]
    )
    assert list(found.items()) == [("numpy", ()), ("onnx", ("export", "rtx")), ("ml_dtypes", ("rtx",))]


# --- what is broken -------------------------------------------------------------------------------------------


@pytest.fixture
def broken_library(tmp_path, monkeypatch):
    """Replace a module by code, in this process and in child processes."""

    def make(name, code):
        (tmp_path / f"{name}.py").write_text(code)
        monkeypatch.delitem(sys.modules, name, raising=False)
        monkeypatch.syspath_prepend(tmp_path)
        monkeypatch.setenv("PYTHONPATH", str(tmp_path))

    return make


@pytest.mark.parametrize(
    ("code", "words"),
    [
        ("import os\nos.abort()", "importing tensorrt ends Python by signal 6"),
        ("import time\ntime.sleep(60)", "importing tensorrt took more than 0 seconds"),
        ("raise OSError('libnvinfer.so: no\\nsuch')", "tensorrt cannot be imported (such)"),
        ("import sys\nsys.exit(3)", "tensorrt cannot be imported (exit code 3)"),
        (
            "",
            "tensorrt cannot be imported (AttributeError: module 'tensorrt' has no attribute '__version__')",
        ),
        (
            "__version__ = '11.0'\nimport atexit, sys\natexit.register(print, 'bye')",
            "cannot be imported (exit",
        ),
    ],
)
def test_a_broken_library_is_a_problem_in_one_line(
    code, words, broken_library, no_driver, tcmoa, monkeypatch
):
    broken_library("tensorrt", code)
    if "sleep" in code:
        # Through `sys.modules`, because the attribute `tcmoa_runtime.cli.doctor` may be the command.
        monkeypatch.setattr(sys.modules[examine.__module__], "_PROBE_SECONDS", 0.4)
    outcome = tcmoa("doctor", "--json")
    assert (outcome.code, outcome.err) == (0, "")
    (problem,) = outcome.json["problems"]
    assert words in problem
    assert outcome.json["flavors"]["tensorrt"]["why"] == problem
    assert "tensorrt" not in sys.modules
    assert f"problem: {problem}" in tcmoa("doctor").out.splitlines()


def test_a_library_that_prints_is_no_problem(broken_library, no_driver, tcmoa):
    broken_library("tensorrt", "print('hello')\n__version__ = '11.0'")
    assert tcmoa("doctor", "--json").json["flavors"]["tensorrt"]["version"] == "11.0"


def test_a_library_that_crashes_is_not_loaded_for_a_bundle(own, broken_library, library, report_on):
    add_engine(own, flavor="tensorrt")
    broken_library("tensorrt", "import os\nos.abort()")
    report = report_on(own)
    assert verdicts(report) == ("refuse", [("tensorrt-11.0.0.12-local-fp32.engine", "refuse")])
    assert "backend auto fails: importing tensorrt ends Python by signal 6" in report["bundle"]["why"]
    assert f"`--backend onnxruntime` ({ONNX}) runs the bundle" in report["bundle"]["why"]
    assert "tensorrt" not in sys.modules


def test_onnx_runtime_is_used_when_tensorrt_cannot_be_imported(own, broken_library, library, report_on):
    add_engine(own, flavor="tensorrt")
    broken_library("tensorrt", "raise OSError('libnvinfer.so')")
    report = report_on(own)
    assert verdicts(report) == ("load", [("tensorrt-11.0.0.12-local-fp32.engine", "refuse")])
    assert f"{ONNX} runs it" in report["bundle"]["why"]
    assert len(report["problems"]) == 1


@pytest.mark.parametrize("module", [types.SimpleNamespace(), 7])
def test_broken_cuda_bindings_are_a_problem(module, no_driver, vif, report_on, monkeypatch):
    monkeypatch.setitem(sys.modules, cuda_runtime.MODULE, module)
    report = report_on(Bundle.open(vif))
    (problem,) = report["problems"]
    assert "cuda.bindings does not work" in problem
    assert report["bundle"]["verdict"] == "load"


def test_a_gpu_that_does_not_answer_is_a_problem(library, device, tcmoa):
    device.fail(1, cudaError_t.cudaErrorUnknown, "cudaGetDeviceProperties")
    report = tcmoa("doctor", "--json").json
    (problem,) = report["problems"]
    assert "CUDA failed in cudaGetDeviceProperties" in problem
    assert problem in report["flavors"]["rtx"]["why"]


def test_a_broken_onnxruntime_is_a_problem(broken_library, vif, tcmoa, monkeypatch):
    broken_library("onnxruntime", "raise OSError('libonnxruntime.so')")
    monkeypatch.delitem(sys.modules, "tcmoa_runtime.backends.onnxruntime", raising=False)
    outcome = tcmoa("doctor", vif, "--json")
    assert (outcome.code, outcome.err) == (2, "")
    assert "onnxruntime cannot be imported (libonnxruntime.so)" in outcome.json["problems"][0]
    assert (
        "no backend runs the bundle here: backend onnxruntime: the package onnxruntime cannot be imported"
        in outcome.json["bundle"]["why"]
    )


def test_a_library_without_an_expected_class_is_a_problem(own, library, report_on, monkeypatch):
    add_engine(own)
    monkeypatch.delattr(sys.modules["tensorrt_rtx_bindings"], "Logger")
    report = report_on(own)
    assert report["bundle"]["verdict"] == "refuse"
    assert f"`--backend onnxruntime` ({ONNX}) runs the bundle" in report["bundle"]["why"]
    (problem,) = report["problems"]
    assert "AttributeError" in problem


# --- a bundle's engines ---------------------------------------------------------------------------------------


def test_an_engine_that_runs_here_is_loaded(own, library, report_on, tcmoa):
    add_engine(own)
    report = report_on(own)
    assert verdicts(report) == ("load", [("rtx-1.7.1.116-local-fp32.engine", "load")])
    assert report["bundle"]["why"] == f"hashes and contract are correct, {RTX} runs it"
    assert report["bundle"]["engines"][0]["why"] == f"runs on {NAME}"
    lines = tcmoa("doctor", own.path).out.splitlines()
    assert lines[-2] == f"engine rtx-1.7.1.116-local-fp32.engine: load: runs on {NAME}"
    assert lines[-1].startswith("bundle: load: ")


def test_an_engine_that_this_user_did_not_build_is_not_loaded(own, library, report_on, tmp_path, monkeypatch):
    add_engine(own)
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path / "data"))
    report = report_on(own)
    assert verdicts(report) == ("rebuild", [("rtx-1.7.1.116-local-fp32.engine", "rebuild")])
    (engine,) = report["bundle"]["engines"]
    assert engine["why"] == f"runs on {NAME}, but this user did not build it, and an engine is native code"
    assert engine["remedy"] == (
        f"Build it again with `tcmoa build {own.path} --flavor rtx --precision fp32`, or load it with --trust-engines "
        "if you trust whoever built it."
    )
    assert report["bundle"]["why"].endswith(f"until then {ONNX} runs the bundle")


def test_an_engine_for_another_gpu_must_be_built_for_this_one_too(own, library, report_on):
    add_engine(own, targets=("sm120",), gpu=None)
    report = report_on(own)
    assert verdicts(report) == ("rebuild", [("rtx-1.7.1.116-sm120-fp32.engine", "rebuild")])
    why = report["bundle"]["why"]
    assert "built for SM120; expected compute capability 8.9, that of this GPU" in why
    expected = ["--flavor", "rtx", "--precision", "fp32", "--targets", "sm89,sm120"]
    assert shlex.split(command(report["bundle"]["remedy"])) == ["tcmoa", "build", str(own.path), *expected]
    assert why.endswith(f"until then {ONNX} runs the bundle")


def test_the_remedy_for_a_tensorrt_engine_keeps_its_options(own, device, report_on, monkeypatch):
    Library(device, "tensorrt").install(monkeypatch)
    monkeypatch.setitem(sys.modules, "tensorrt_rtx_bindings", None)
    options = {"workspace_mb": 512, "allow_unfused": True}
    gpu = BuilderGpu("Simulated GPU", "8.6")
    add_engine(
        own,
        flavor="tensorrt",
        gpu=gpu,
        hardware_compatibility="same_compute_capability",
        stripped=True,
        options=options,
    )
    words = shlex.split(command(report_on(own)["bundle"]["remedy"]))
    assert words[3:] == [
        *("--flavor", "tensorrt", "--precision", "fp32"),
        *("--hardware-compatibility", "same_compute_capability", "--strip"),
        *("--workspace-mb", "512", "--allow-unfused"),
    ]


@pytest.mark.parametrize("machine", ["library", "no_driver"])
def test_an_engine_of_another_version_must_be_built_again(machine, own, report_on, request):
    request.getfixturevalue(machine)
    add_engine(own, version="1.6.0.1", targets=("sm86", "sm89"))
    report = report_on(own)
    assert verdicts(report) == ("rebuild", [("rtx-1.6.0.1-sm86+sm89-fp32.engine", "rebuild")])
    why = report["bundle"]["why"]
    assert "built by rtx 1.6.0.1; expected 1.7.1.116, the installed version" in why
    assert command(report["bundle"]["remedy"]).endswith("--targets sm86,sm89")
    assert why.endswith(f"until then {ONNX} runs the bundle")


def test_without_a_driver_onnx_runtime_runs_a_bundle_with_engines(own, no_driver, report_on):
    add_engine(own)
    report = report_on(own)
    assert verdicts(report) == ("load", [("rtx-1.7.1.116-local-fp32.engine", "refuse")])
    assert "no NVIDIA driver" in report["bundle"]["engines"][0]["why"]
    assert f"{ONNX} runs it" in report["bundle"]["why"]


def test_an_engine_whose_library_is_not_installed_is_refused(own, library, report_on):
    add_engine(own, flavor="tensorrt")
    report = report_on(own)
    assert verdicts(report) == ("load", [("tensorrt-11.0.0.12-local-fp32.engine", "refuse")])
    assert install_command("tensorrt") in report["bundle"]["engines"][0]["why"]


def test_engines_that_another_one_replaces_need_no_rebuild(own, library, report_on):
    add_engine(own)
    add_engine(own, version="1.6.0.1")
    add_engine(own, targets=("sm120",), gpu=None)
    report = report_on(own)
    assert report["bundle"]["verdict"] == "load"
    by_name = {e["file"]: e for e in report["bundle"]["engines"]}
    assert {name: e["verdict"] for name, e in by_name.items()} == {
        "rtx-1.6.0.1-local-fp32.engine": "refuse",
        "rtx-1.7.1.116-local-fp32.engine": "load",
        "rtx-1.7.1.116-sm120-fp32.engine": "refuse",
    }
    assert by_name["rtx-1.6.0.1-local-fp32.engine"]["why"] == (
        "built by rtx 1.6.0.1; expected 1.7.1.116, the installed version; "
        "rtx-1.7.1.116-local-fp32.engine is used instead"
    )


def test_an_engine_of_another_precision_is_no_replacement(own, library, report_on):
    add_engine(own)
    add_engine(own, version="1.6.0.1", precision="fp16")
    report = report_on(own)
    assert report["bundle"]["verdict"] == "rebuild"
    assert report["bundle"]["why"].endswith(f"until then {RTX} runs the bundle")


@pytest.mark.parametrize("suffix", [".engine", ".json"])
@pytest.mark.parametrize("damage", [cut, flip])
@pytest.mark.parametrize("machine", ["library", "no_driver"])
def test_a_damaged_engine_must_be_built_again(machine, damage, suffix, own, report_on, request):
    request.getfixturevalue(machine)
    add_engine(own, targets=("sm89",))
    damage(own.path / ENGINES_FOLDER / f"rtx-1.7.1.116-sm89-fp32{suffix}")
    report = report_on(own)
    assert verdicts(report) == ("rebuild", [("rtx-1.7.1.116-sm89-fp32.engine", "rebuild")])
    why = report["bundle"]["why"]
    expected = ["--flavor", "rtx", "--precision", "fp32", "--targets", "sm89"]
    assert shlex.split(command(report["bundle"]["remedy"])) == ["tcmoa", "build", str(own.path), *expected]
    assert ONNX in why.rpartition("; ")[2]


def test_a_file_that_a_new_engine_does_not_overwrite_is_removed_first(own, library, report_on):
    path = add_engine(own, version="1.6.0.1", targets=("sm89",)).path
    flip(path.with_suffix(".json"))
    words = shlex.split(command(report_on(own)["bundle"]["remedy"]))
    assert words[:4] == ["rm", str(path), "&&", "tcmoa"]
    for suffix in (".engine", ".json"):
        path.with_suffix(suffix).rename(path.with_name("my engine" + suffix))
    path = path.with_name("my engine.engine")
    remedy = report_on(own)["bundle"]["remedy"]
    assert f"Remove it with `{shlex.join(['rm', str(path)])}`" in remedy
    assert f"`tcmoa build {own.path}`" in remedy


def test_engines_of_another_graph_must_be_built_again(own, library, exported, tmp_path, report_on):
    other = Bundle.open(shutil.copytree(exported("plain"), tmp_path / "other"))
    add_engine(other)
    shutil.copytree(other.path / ENGINES_FOLDER, own.path / ENGINES_FOLDER)
    report = report_on(own)
    assert verdicts(report) == ("rebuild", [("rtx-1.7.1.116-local-fp32.engine", "rebuild")])
    assert f"was built from the graph '{other.graph_name}'" in report["bundle"]["why"]
    assert command(report["bundle"]["remedy"]).startswith(f"tcmoa build {own.path} ")
    assert report["bundle"]["why"].endswith(f"until then `--backend onnxruntime` ({ONNX}) runs the bundle")


def test_an_engine_that_tensorrt_refuses_must_be_built_again(own, library, report_on):
    add_engine(own)
    library.refuse = {"deserialize"}
    report = report_on(own)
    assert verdicts(report) == ("rebuild", [("rtx-1.7.1.116-local-fp32.engine", "rebuild")])
    assert "simulated failure of deserialize" in report["bundle"]["why"]


def test_a_bf16_bundle_has_no_other_backend(own, library, report_on, rehash):
    rehash(own.path, lambda manifest: manifest.update(precision="bf16"))
    bundle = Bundle.open(own.path)
    report = report_on(bundle)
    assert verdicts(report) == ("refuse", [])
    assert "cannot run on the CPU" in report["bundle"]["why"]
    add_engine(bundle, precision="bf16", version="1.6.0.1")
    report = report_on(bundle)
    assert report["bundle"]["verdict"] == "rebuild"
    assert "until then no backend runs the bundle" in report["bundle"]["why"]


def test_a_damaged_bundle_is_refused_and_its_engines_listed(own, library, report_on):
    add_engine(own)
    cut(own.graph_path)
    report = report_on(own)
    assert verdicts(report) == ("refuse", [("rtx-1.7.1.116-local-fp32.engine", "load")])
    assert "truncated or another file" in report["bundle"]["why"]


@pytest.mark.parametrize("content", [b"", b"{", b"[]", json.dumps({"format": "tcmoa-engine"}).encode()])
def test_any_json_beside_an_engine_gets_a_verdict(content, own, library, report_on):
    path = add_engine(own).path.with_suffix(".json")
    path.write_bytes(content)
    assert report_on(own)["bundle"]["verdict"] == "rebuild"


@pytest.mark.skipif(
    importlib.util.find_spec("tensorrt_rtx_bindings") is None, reason="tensorrt_rtx_bindings is not installed"
)
def test_the_remedy_works_with_the_real_library(own, tcmoa, monkeypatch, tmp_path):
    """The real TensorRT-RTX builds without a GPU."""
    from tcmoa_export.engines.build import build_engine
    from tcmoa_runtime.options.build import BuildOptions

    cuda_runtime.install(monkeypatch, NoDriver())
    renamed = tmp_path / "with space"
    bundle = Bundle.open(own.path.rename(renamed))
    engine = build_engine(bundle, BuildOptions(targets=("sm89",)))
    assert examine(bundle.path).bundle.verdict == "load"
    flip(engine.path)
    flip(engine.path.with_suffix(".json"))
    found = examine(bundle.path).bundle
    assert found.verdict == "rebuild"
    assert tcmoa(*shlex.split(command(found.remedy))[1:]).code == 0
    assert examine(bundle.path).bundle.verdict == "load"
