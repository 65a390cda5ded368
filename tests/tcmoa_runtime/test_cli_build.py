"""`tcmoa build`: output, exit codes and messages."""

import json
import shutil
import sys
from pathlib import Path

import pytest

import engine_pieces
from tcmoa_export import BuildError, parity
from tcmoa_export.engines import build
from tcmoa_runtime import Bundle, MissingError
from tcmoa_runtime.engine import Engine
from tcmoa_runtime.engine_folders import ENGINES_FOLDER, find_engines
from tcmoa_runtime.gpu.cuda import CudaDevice
from tcmoa_runtime.install import install_command
from tcmoa_runtime.options.build import BuildOptions

rtx = pytest.importorskip("tensorrt_rtx_bindings", reason=engine_pieces.NO_RTX, exc_type=ImportError)

NAME = f"rtx-{rtx.__version__}-sm86-fp16.engine"


@pytest.fixture
def bundle(vif, tmp_path):
    """Return a float32 bundle without engines."""
    return shutil.copytree(vif, tmp_path / "bundle")


@pytest.fixture(scope="module")
def built_once(vif, tmp_path_factory, fresh_python):
    """Build an engine with the packages of a machine that builds; return the bundle, and the outcome of the command."""
    bundle = shutil.copytree(vif, tmp_path_factory.mktemp("built") / "bundle")
    arguments = ["build", str(bundle), "--target", "sm86", "--json"]
    code = f"import sys; from tcmoa_runtime.cli import run; sys.exit(run({arguments!r}))"
    blocked = ["torch", "skimage", "safetensors", "scipy", "av", "aiohttp"]
    return bundle, fresh_python(code, blocked=blocked)


@pytest.fixture
def built(built_once, tmp_path):
    """Return a float32 bundle with an fp16 engine for sm86."""
    return shutil.copytree(built_once[0], tmp_path / "built")


def split_stderr(outcome):
    """Return the lines of progress, and all other lines of stderr."""
    lines = outcome.err.splitlines()
    return [x for x in lines if x.startswith("build: ")], [x for x in lines if not x.startswith("build: ")]


def names_in(bundle):
    folder = bundle / ENGINES_FOLDER
    return sorted(p.name for p in folder.iterdir()) if folder.exists() else []


def assert_failed(outcome, code, *words):
    """Assert that stdout is empty, and stderr has one line besides those of progress."""
    _, (line,) = split_stderr(outcome)
    assert (outcome.code, outcome.out) == (code, "")
    assert line.startswith("tcmoa: error: ")
    for word in words:
        assert str(word) in line


def test_a_build_prints_bounds_for_its_targets_and_the_next_step(tcmoa, bundle):
    outcome = tcmoa("build", bundle, "--target", "sm86")
    assert outcome.code == 0
    assert split_stderr(outcome) == (
        [
            "build: lowering the graph to fp16",
            "build: checking fp16 against float32",
            "build: building the engine",
        ],
        [],
    )
    (path,) = find_engines(Bundle.open(bundle))
    manifest = Engine.open(Bundle.open(bundle), path).manifest
    assert path.name == NAME
    engine, kernels, moves, bound, following = outcome.out.splitlines()
    assert engine == f"engine      {NAME}, {path.stat().st_size:,} bytes"
    assert kernels.startswith(f"kernels     {manifest['kernels']} ({manifest['precisions']['fp16']} fp16, ")
    assert kernels.endswith("; 8 of 8 attentions fused")
    excess = manifest["bytes_moved"] / manifest["minimum_bytes"] - 1
    assert moves == (
        f"moves       {manifest['bytes_moved'] / 1e9:.3f} GB per frame, {excess:.1%} above the counted minimum; "
        f"{manifest['flops'] / 1e9:.1f} GFLOP"
    )
    assert bound.startswith("bound       RTX A6000 0.")
    assert "RTX 4090" not in bound
    assert following == (
        f"next        copy {bundle} to a machine with an SM86 GPU and TensorRT-RTX {rtx.__version__} (the extra rtx "
        f"of tcmoa), and run `tcmoa bench {bundle} --backend onnxruntime,tensorrt --pick --trust-engines` there"
    )
    assert bound.endswith(" ms (at best, from datasheets and the kernel list; not measured)")


def test_a_gpu_may_be_given_by_name(tcmoa, built):
    outcome = tcmoa("build", built, "--gpu", "NVIDIA RTX A6000", "--json")
    assert (outcome.code, split_stderr(outcome)) == (0, (["build: up to date"], [])), outcome.err
    assert outcome.json["targets"] == ["sm86"]
    tcmoa("build", built, "--gpu", "rtx 9090").assert_error(
        2,
        "--gpu: 'rtx 9090' is unknown; expected the name of an NVIDIA GPU, e.g. RTX 5090, RTX 4090, RTX 3090",
        "Give its compute capability with --targets, e.g. sm89",
    )
    tcmoa("build", built, "--gpu", "RTX 4090", "--target", "sm86").assert_error(
        2, "--gpu: 'RTX 4090' is sm89, but the targets are sm86; expected the same GPUs"
    )


def test_json_is_one_object_on_stdout(tcmoa, built):
    outcome = tcmoa("build", built, "--target", "sm86", "--json")
    assert outcome.code == 0
    report = outcome.json
    assert split_stderr(outcome) == (["build: up to date"], [])
    manifest = json.loads((built / ENGINES_FOLDER / NAME).with_suffix(".json").read_bytes())
    assert report.pop("path") == str(built / ENGINES_FOLDER / NAME)
    assert len(manifest.pop("list")) == manifest["kernels"] == report["kernels"]
    assert report == manifest
    assert report["attentions"] == report["fused_attentions"] == 8
    assert report["precisions"].keys() == {"fp16", "fp32"}
    assert report["bytes_moved"] > report["minimum_bytes"] > 0
    assert report["targets"] == ["sm86"]


def test_options_reach_the_builder(tcmoa, bundle, monkeypatch):
    calls = []

    def stop(path, options, *, on_message, on_progress):
        calls.append((path, options))
        raise BuildError("far enough")

    monkeypatch.setattr(build, "build_engine", stop)
    assert_failed(tcmoa("build", bundle), 1, "far enough")
    assert calls.pop() == (bundle, BuildOptions())
    options = (
        "--flavour rtx --precision bf16 --target SM89,sm86 --workspace-mb 7 --strip --rebuild --allow-unfused"
    )
    assert_failed(tcmoa("build", bundle, *options.split(), "--pairs", "there"), 1, "far enough")
    assert calls.pop() == (
        bundle,
        BuildOptions(
            flavor="rtx",
            precision="bf16",
            targets=("sm86", "sm89"),
            workspace_mb=7,
            strip=True,
            rebuild=True,
            allow_unfused=True,
            pairs=Path("there"),
        ),
    )
    options = "--flavor tensorrt --no-timing-cache --hardware-compatibility ampere_plus"
    assert_failed(tcmoa("build", bundle, *options.split()), 1, "far enough")
    assert calls.pop() == (
        bundle,
        BuildOptions(flavor="tensorrt", timing_cache=False, hardware_compatibility="ampere_plus"),
    )
    tcmoa("build", bundle, "--target", " sm86 , sm120")
    assert calls.pop()[1].targets == ("sm86", "sm120")


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--target", "sm99"], ["--target: 'sm99'; expected targets of", "sm86, sm89"]),
        (["--target", "sm75"], ["--target: 'sm75'", "Turing"]),
        (["--target", "sm86,,"], ["--target: ''; expected a compute capability"]),
        (
            ["--flavor", "trt"],
            ["'--flavor' / '--flavour'", "'trt' is not one of 'tensorrt', 'rtx'", "See `tcmoa build --help`"],
        ),
        (
            ["--precision", "int4"],
            ["'--precision'", "'int4' is not one of 'fp32', 'fp16', 'bf16'", "See `tcmoa build --help`"],
        ),
        (["--workspace-mb", "0"], ["--workspace-mb: 0; expected 1 or more"]),
        (["--workspace-mb", "much"], ["'--workspace-mb'", "See `tcmoa build --help`"]),
        (
            ["--hardware-compatibility", "ampere_plus"],
            ["--hardware-compatibility: 'ampere_plus'", "--flavor tensorrt"],
        ),
        (
            ["--flavor", "tensorrt", "--target", "sm86"],
            ["--target: sm86", "--flavor rtx", "--hardware-compatibility"],
        ),
        (["--what"], ["--what", "See `tcmoa build --help`"]),
    ],
    ids=str,
)
def test_wrong_options_end_in_one_line_and_exit_code_2(tcmoa, bundle, arguments, words):
    tcmoa("build", bundle, *arguments).assert_error(2, *words)
    assert names_in(bundle) == []


def test_wrong_bundles_end_in_one_line_and_exit_code_2(tcmoa, bundle, tmp_path):
    tcmoa("build", tmp_path / "nowhere").assert_error(2, "no such bundle")
    data = (bundle / "fusion.onnx").read_bytes()
    (bundle / "fusion.onnx").write_bytes(data[:-1])
    tcmoa("build", bundle).assert_error(2, "fusion.onnx", "truncated")
    assert names_in(bundle) == []


def test_wrong_pairs_end_in_one_line_and_exit_code_2(tcmoa, bundle, tmp_path):
    assert_failed(tcmoa("build", bundle, "--pairs", tmp_path / "nowhere"), 2, "nowhere")
    assert names_in(bundle) == []


def test_missing_packages_and_gpus_end_in_one_line_and_exit_code_3(tcmoa, bundle, monkeypatch):
    def refuse():
        raise MissingError("no CUDA driver is installed")

    monkeypatch.setattr(CudaDevice, "current", staticmethod(refuse))
    tcmoa("build", bundle, "--strip").assert_error(3, "needs a GPU", "build without --strip")
    for name, flavor in (("tensorrt_rtx_bindings", "rtx"), ("tensorrt", "tensorrt")):
        monkeypatch.setitem(sys.modules, name, None)
        tcmoa("build", bundle, "--flavor", flavor).assert_error(3, install_command(flavor))
    assert names_in(bundle) == []


@pytest.mark.parametrize("flavor", ["rtx", "tensorrt"])
def test_without_onnx_the_extra_is_named(fresh_python, bundle, flavor):
    code = (
        "import sys; from tcmoa_runtime.cli import run; "
        f"sys.exit(run(['build', {str(bundle)!r}, '--flavor', {flavor!r}]))"
    )
    outcome = fresh_python(code, blocked=["onnx"])
    outcome.assert_error(3, "tcmoa build: the package onnx is not installed", install_command(flavor))


def test_neither_torch_nor_scikit_image_is_needed(built_once):
    """A machine that builds has the runtime and the extra `rtx` only."""
    bundle, outcome = built_once
    assert outcome.code == 0, outcome.err
    assert outcome.json["fused_attentions"] == 8
    assert names_in(bundle) == [NAME, NAME.replace(".engine", ".json")]


def test_engines_and_graphs_that_do_not_pass_end_in_one_line_and_exit_code_1(tcmoa, bundle, monkeypatch):
    assert_failed(
        tcmoa("build", bundle, "--precision", "fp32", "--target", "sm86"),
        1,
        "8 of 8 attentions are not fused",
        "--allow-unfused",
    )
    monkeypatch.setitem(parity.MIN_PSNR_DB, "fp16", 200.0)
    assert_failed(tcmoa("build", bundle), 1, "PSNR to the model is")
    assert names_in(bundle) == []


def test_unfused_engines_are_written_when_allowed(tcmoa, bundle):
    outcome = tcmoa("build", bundle, "--precision", "fp32", "--target", "sm86", "--allow-unfused", "--json")
    assert (outcome.code, outcome.json["fused_attentions"], outcome.json["attentions"]) == (0, 0, 8)
    assert split_stderr(outcome) == (["build: building the engine"], [])


INTERRUPTED_BUILD = """
import os, signal, sys
from tcmoa_export.engines import build
from tcmoa_runtime.cli import run
build_engine = build.build_engine
def interrupted(path, options, *, on_message, on_progress):
    press = lambda *_: os.kill(os.getpid(), signal.SIGINT)
    return build_engine(path, options, on_message=on_message, on_progress=press)
build.build_engine = interrupted
sys.exit(run(["build", {path!r}, "--target", "sm86"]))
"""


def test_ctrl_c_ends_in_exit_code_130_and_leaves_nothing(fresh_python, bundle):
    """In a process of its own, so that a crash of TensorRT-RTX is a failure here and not the end of the test run."""
    outcome = fresh_python(INTERRUPTED_BUILD.format(path=str(bundle)))
    messages, others = split_stderr(outcome)
    assert (outcome.code, outcome.out, others) == (130, "", ["tcmoa: interrupted"]), outcome
    assert messages[-1] == "build: building the engine"
    assert names_in(bundle) == []


def test_a_rebuild_shows_its_phases_by_a_bar_on_a_terminal(built, monkeypatch, capsys):
    """The bar is drawn on stderr; stdout has the JSON only."""
    from rich.console import Console

    from tcmoa_runtime.cli import printing, progress, run

    drawn = Console(stderr=True, force_terminal=True, width=100)
    for module in (progress, printing):
        monkeypatch.setattr(module, "console", drawn)
    before = (built / ENGINES_FOLDER / NAME).stat().st_ino
    assert run(["build", str(built), "--target", "sm86", "--json", "--rebuild"]) == 0
    out, err = capsys.readouterr()
    assert json.loads(out)["fused_attentions"] == 8
    assert "build: " in err
    assert "\x1b[" in err
    assert (built / ENGINES_FOLDER / NAME).stat().st_ino != before
