"""`tcmoa build`: what it prints, and how it ends."""

import json
import shutil
import signal
import sys

import pytest

import engine_pieces
from tcmoa_export import engine_build, parity
from tcmoa_runtime import Bundle, MissingError
from tcmoa_runtime.engine import ENGINES_FOLDER, Engine, find_engines
from tcmoa_runtime.gpu.cuda import CudaDevice

rtx = pytest.importorskip("tensorrt_rtx_bindings", reason=engine_pieces.NO_RTX, exc_type=ImportError)

NAME = f"rtx-{rtx.__version__}-sm86-fp16.engine"


@pytest.fixture
def bundle(vif, tmp_path):
    """A float32 bundle without engines."""
    return shutil.copytree(vif, tmp_path / "bundle")


@pytest.fixture(scope="module")
def built_once(vif, tmp_path_factory):
    copy = shutil.copytree(vif, tmp_path_factory.mktemp("built") / "bundle")
    engine_build.build_engine(copy, targets=["sm86"])
    return copy


@pytest.fixture
def built(built_once, tmp_path):
    """A float32 bundle with an fp16 engine for sm86."""
    return shutil.copytree(built_once, tmp_path / "built")


def said(outcome):
    """Lines of progress, and all other lines of stderr."""
    lines = outcome.err.splitlines()
    return [x for x in lines if x.startswith("build: ")], [x for x in lines if not x.startswith("build: ")]


def left(bundle):
    folder = bundle / ENGINES_FOLDER
    return sorted(p.name for p in folder.iterdir()) if folder.exists() else []


def assert_failed(outcome, code, *words):
    """Nothing on stdout, and one line on stderr besides what was being done."""
    _, (line,) = said(outcome)
    assert (outcome.code, outcome.out) == (code, "")
    assert line.startswith("tcmoa: error: ")
    for word in words:
        assert str(word) in line


def test_a_build_prints_four_rows(tcmoa, bundle):
    outcome = tcmoa("build", bundle, "--target", "sm86")
    assert outcome.code == 0
    assert said(outcome) == (
        [
            "build: lowering the graph to fp16",
            "build: checking fp16 against float32",
            "build: building the engine",
        ],
        [],
    )
    (path,) = find_engines(Bundle.open(bundle))
    figures = Engine.open(Bundle.open(bundle), path).manifest
    assert path.name == NAME
    engine, kernels, moves, bound = outcome.out.splitlines()
    assert engine == f"engine      {NAME}, {path.stat().st_size:,} bytes"
    assert kernels.startswith(f"kernels     {figures['kernels']} ({figures['precisions']['fp16']} fp16, ")
    assert kernels.endswith("; 8 of 8 attentions fused")
    over = figures["bytes_moved"] / figures["minimum_bytes"] - 1
    assert moves == (
        f"moves       {figures['bytes_moved'] / 1e9:.3f} GB a frame, {over:.1%} over the counted minimum; "
        f"{figures['flops'] / 1e9:.1f} GFLOP"
    )
    assert bound.startswith("bound       RTX 4090 0.")
    assert bound.endswith(" ms (from datasheets and the kernel list; not measured)")


def test_json_is_one_object_on_stdout(tcmoa, built):
    outcome = tcmoa("build", built, "--target", "sm86", "--json")
    assert outcome.code == 0
    report = outcome.json
    assert said(outcome) == (["build: up to date"], [])
    manifest = json.loads((built / ENGINES_FOLDER / NAME).with_suffix(".json").read_bytes())
    assert report.pop("path") == str(built / ENGINES_FOLDER / NAME)
    assert len(manifest.pop("list")) == manifest["kernels"] == report["kernels"]
    assert report == manifest
    assert report["attentions"] == report["fused_attentions"] == 8
    assert report["precisions"].keys() == {"fp16", "fp32"}
    assert report["bytes_moved"] > report["minimum_bytes"] > 0
    assert report["targets"] == ["sm86"]


def test_options_reach_the_builder(tcmoa, bundle, monkeypatch):
    seen = {}

    def build_engine(path, *, say, progress, **options):
        seen.update(options, path=path)
        raise engine_build.BuildError("far enough")

    monkeypatch.setattr(engine_build, "build_engine", build_engine)
    default = {
        "path": bundle,
        "flavor": "rtx",
        "precision": None,
        "targets": (),
        "workspace_mb": None,
        "hardware_compatibility": "none",
        "strip": False,
        "timing_cache": True,
        "allow_unfused": False,
        "rebuild": False,
        "pairs": None,
    }
    assert_failed(tcmoa("build", bundle), 1, "far enough")
    assert seen == default
    options = (
        "--flavor tensorrt --precision bf16 --target SM86, --workspace 7 --strip --no-timing-cache --rebuild"
    )
    more = "--allow-unfused --pairs there --hardware-compatibility ampere_plus"
    assert_failed(tcmoa("build", bundle, *options.split(), *more.split()), 1, "far enough")
    changed = {**seen, "pairs": str(seen["pairs"]), "targets": list(seen["targets"])}
    assert changed == {
        "path": bundle,
        "flavor": "tensorrt",
        "precision": "bf16",
        "targets": ["sm86", ""],
        "workspace_mb": 7,
        "hardware_compatibility": "ampere_plus",
        "strip": True,
        "timing_cache": False,
        "allow_unfused": True,
        "rebuild": True,
        "pairs": "there",
    }
    tcmoa("build", bundle, "--target", " sm86 , sm120")
    assert seen["targets"] == ["sm86", "sm120"]


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--target", "sm99"], ["target is 'sm99'", "sm86, sm89"]),
        (["--target", "sm75"], ["Turing"]),
        (["--target", "sm86,,"], ["target is ''"]),
        (["--flavor", "trt"], ["flavor is 'trt'", "tensorrt, rtx"]),
        (["--precision", "int4"], ["precision is 'int4'", "fp32, fp16, bf16"]),
        (["--workspace", "0"], ["workspace is 0 MB"]),
        (["--workspace", "much"], ["'--workspace'", "see `tcmoa build --help`"]),
        (["--hardware-compatibility", "ampere_plus"], ["hardware compatibility is for --flavor tensorrt"]),
        (["--flavor", "tensorrt", "--target", "sm86"], ["targets are for --flavor rtx"]),
        (["--what"], ["--what", "see `tcmoa build --help`"]),
    ],
    ids=str,
)
def test_wrong_options_end_in_one_line_and_2(tcmoa, bundle, arguments, words):
    tcmoa("build", bundle, *arguments).assert_error(2, *words)
    assert left(bundle) == []


def test_wrong_bundles_end_in_one_line_and_2(tcmoa, bundle, tmp_path):
    tcmoa("build", tmp_path / "nowhere").assert_error(2, "no such bundle")
    data = (bundle / "fusion.onnx").read_bytes()
    (bundle / "fusion.onnx").write_bytes(data[:-1])
    tcmoa("build", bundle).assert_error(2, "fusion.onnx", "truncated")
    assert left(bundle) == []


def test_wrong_pairs_end_in_one_line_and_2(tcmoa, bundle, tmp_path):
    assert_failed(tcmoa("build", bundle, "--pairs", tmp_path / "nowhere"), 2, "nowhere")
    assert left(bundle) == []


def test_missing_packages_and_gpus_end_in_one_line_and_3(tcmoa, bundle, monkeypatch):
    def refuse():
        raise MissingError("no CUDA driver is installed")

    monkeypatch.setattr(CudaDevice, "current", staticmethod(refuse))
    tcmoa("build", bundle, "--strip").assert_error(3, "needs a GPU", "leave --strip out")
    for name, flavor in (("tensorrt_rtx_bindings", "rtx"), ("tensorrt", "tensorrt")):
        monkeypatch.setitem(sys.modules, name, None)
        tcmoa("build", bundle, "--flavor", flavor).assert_error(3, f"pip install 'tcmoa[{flavor}]'")
    assert left(bundle) == []


@pytest.mark.parametrize(("flavor", "extra"), [("rtx", "rtx"), ("tensorrt", "tensorrt"), ("junk", "rtx")])
def test_without_onnx_the_extra_is_named(fresh_python, bundle, flavor, extra):
    code = (
        "import sys; from tcmoa_runtime.cli import run; "
        f"sys.exit(run(['build', {str(bundle)!r}, '--flavor', {flavor!r}]))"
    )
    outcome = fresh_python(code, blocked=["onnx"])
    outcome.assert_error(3, "`tcmoa build` needs onnx", f"pip install 'tcmoa[{extra}]'")


def test_neither_torch_nor_scikit_image_is_needed_with_pairs(fresh_python, bundle, folders, tmp_path):
    """A machine that builds has the runtime and the extra `rtx`."""
    pairs = tmp_path / "pairs"
    pairs.mkdir()
    for side in "xy":
        shutil.copy(tmp_path / side / "a.png", pairs / f"a_{side}.png")
    arguments = ["build", str(bundle), "--target", "sm86", "--pairs", str(pairs), "--json"]
    code = f"import sys; from tcmoa_runtime.cli import run; sys.exit(run({arguments!r}))"
    outcome = fresh_python(code, blocked=["torch", "skimage", "safetensors"])
    assert outcome.code == 0, outcome.err
    assert outcome.json["fused_attentions"] == 8
    assert left(bundle) == [NAME, NAME.replace(".engine", ".json")]


def test_what_does_not_pass_ends_in_one_line_and_1(tcmoa, bundle, monkeypatch):
    assert_failed(
        tcmoa("build", bundle, "--precision", "fp32", "--target", "sm86"),
        1,
        "8 of 8 attentions are not fused",
        "--allow-unfused",
    )
    monkeypatch.setitem(parity.LEAST_PSNR, "fp16", 200.0)
    assert_failed(tcmoa("build", bundle), 1, "too far from the model")
    assert left(bundle) == []


def test_unfused_engines_are_written_on_demand(tcmoa, bundle):
    outcome = tcmoa("build", bundle, "--precision", "fp32", "--target", "sm86", "--allow-unfused", "--json")
    assert (outcome.code, outcome.json["fused_attentions"], outcome.json["attentions"]) == (0, 0, 8)
    assert said(outcome) == (["build: building the engine"], [])


def test_rebuild(tcmoa, built):
    before = (built / ENGINES_FOLDER / NAME).stat().st_ino
    assert tcmoa("build", built, "--target", "sm86", "--rebuild").code == 0
    assert (built / ENGINES_FOLDER / NAME).stat().st_ino != before


def test_ctrl_c_ends_in_130_and_leaves_nothing(tcmoa, bundle, monkeypatch):
    build = engine_build.build_engine

    def interrupted(path, *, progress, **options):
        return build(path, progress=lambda *_: signal.raise_signal(signal.SIGINT), **options)

    monkeypatch.setattr(engine_build, "build_engine", interrupted)
    outcome = tcmoa("build", bundle)
    assert (outcome.code, outcome.out, said(outcome)[1]) == (130, "", ["tcmoa: interrupted"])
    assert left(bundle) == []


def test_on_a_terminal_a_bar_shows_the_phases(bundle, monkeypatch, capsys):
    """What rich draws takes no part in what is printed."""
    from rich.console import Console

    from tcmoa_runtime.cli import progress, run

    drawn = Console(stderr=True, force_terminal=True, width=100)
    monkeypatch.setattr(progress, "console", drawn)
    assert run(["build", str(bundle), "--target", "sm86", "--json"]) == 0
    out, err = capsys.readouterr()
    assert json.loads(out)["fused_attentions"] == 8
    assert "build: " in err
    assert "\x1b[" in err
