"""`tcmoa inspect`, `doctor`, `--version` and help."""

import subprocess
import sys
from pathlib import Path

import pytest

from tcmoa_runtime import __version__
from tcmoa_runtime.cli.doctor_packages import list_packages


def test_inspect_shows_what_a_bundle_is(tcmoa, vif):
    outcome = tcmoa("inspect", vif)
    assert (outcome.code, outcome.err) == (0, "")
    shown = dict(line.split(maxsplit=1) for line in outcome.out.splitlines())
    assert shown["task"] == "vif: x is visible, y is infrared"
    assert shown["frame"] == "130x100 rgb, batch 1"
    assert shown["fit"] == "pad, 17x13 tokens of 8 pixels"
    assert shown["prompt"] == "alpha 1, beta 0 unless told otherwise"
    assert shown["parity"].startswith("largest difference")
    assert "fusion.onnx" in shown["file"]
    assert "torch" in outcome.out.splitlines()[-1]
    assert outcome.out.count("\ninput ") == 4
    assert outcome.out.count("\noutput ") == 2


def test_inspect_json_has_the_keys_that_others_read(tcmoa, vif):
    report = tcmoa("inspect", vif, "--json").json
    assert report["task"] == "vif"
    assert (report["frame"]["height"], report["frame"]["width"], report["frame"]["grid"]) == (
        100,
        130,
        [13, 17],
    )
    assert report["attentions"] == 8  # four blocks of each stage
    assert report["precisions"].keys() == {"fp32"}
    assert report["parity"]["max_difference"] <= 1
    assert report["weights"]["sha256"]
    for engine_only in ("kernels", "fused_attentions", "bytes_moved"):
        assert report[engine_only] is None


@pytest.mark.parametrize("options", [[], ["--json"]])
def test_inspect_refuses_a_damaged_bundle(options, tcmoa, broken):
    graph = broken / "fusion.onnx"
    graph.write_bytes(graph.read_bytes()[:-1])
    tcmoa("inspect", broken, *options).assert_error(2, "truncated or another file")


@pytest.mark.parametrize("key", ["weights", "parity", "tools", "routers", "color", "model"])
def test_inspect_shows_or_refuses_a_bundle_with_less_to_tell(key, tcmoa, broken, rehash):
    rehash(broken, lambda manifest: manifest.pop(key))
    outcome = tcmoa("inspect", broken)
    if key == "weights":
        outcome.assert_error(2, "incomplete", "export it again")
    else:
        assert (outcome.code, outcome.err) == (0, "")


def test_inspect_of_a_missing_bundle_is_one_line(tcmoa, tmp_path):
    tcmoa("inspect", tmp_path / "none").assert_error(2, "no such bundle")


def test_doctor_lists_packages_and_devices(tcmoa):
    outcome = tcmoa("doctor", "--json")
    assert (outcome.code, outcome.err) == (0, "")
    report = outcome.json
    assert report["packages"].keys() == {package.name for package in list_packages()}
    assert report["packages"]["numpy"]
    assert report["packages"]["onnxruntime"]
    cpu, *gpus = report["devices"]
    assert cpu["kind"] == "cpu"
    assert all(gpu["kind"] == "cuda" for gpu in gpus)
    assert (report["driver"] is None) == (not gpus)
    assert report["flavors"].keys() == {"tensorrt", "rtx"}
    assert cpu["cores"] >= 1
    assert "CPUExecutionProvider" in cpu["providers"]
    assert report["bundle"] is None


def test_doctor_in_words(tcmoa, vif, no_openvino):
    outcome = tcmoa("doctor", vif)
    assert (outcome.code, outcome.err) == (0, "")
    lines = outcome.out.splitlines()
    assert lines[0].startswith("python 3.")
    assert any(line.startswith("onnxruntime 1.") for line in lines)
    assert lines[-1] == "bundle: load: hashes and contract are correct, onnxruntime (CPU) runs it"


def test_doctor_says_that_a_good_bundle_loads(tcmoa, vif):
    outcome = tcmoa("doctor", vif, "--json")
    assert outcome.code == 0
    assert outcome.json["bundle"]["verdict"] == "load"
    assert outcome.json["bundle"]["why"]


def test_doctor_says_why_a_bad_bundle_is_refused(tcmoa, broken):
    (broken / "fusion.onnx").unlink()
    outcome = tcmoa("doctor", broken, "--json")
    assert (outcome.code, outcome.err) == (2, "")
    assert outcome.json["bundle"]["verdict"] == "refuse"
    assert "'fusion.onnx' is missing" in outcome.json["bundle"]["why"]
    assert "bundle: refuse: " in tcmoa("doctor", broken).out


def test_doctor_of_a_missing_bundle_refuses(tcmoa, tmp_path):
    outcome = tcmoa("doctor", tmp_path / "none", "--json")
    assert (outcome.code, outcome.json["bundle"]["verdict"]) == (2, "refuse")


def test_doctor_finds_a_missing_onnxruntime(tcmoa, vif, monkeypatch, no_openvino):
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    monkeypatch.delitem(sys.modules, "tcmoa_runtime.backends.onnxruntime", raising=False)
    report = tcmoa("doctor", vif, "--json").json
    assert report["bundle"]["verdict"] == "refuse"
    assert "no backend runs the bundle here" in report["bundle"]["why"]
    assert "onnxruntime cannot be imported" in report["problems"][0]


def test_doctor_finds_two_onnxruntimes_in_one_place(tcmoa, monkeypatch):
    monkeypatch.setattr("importlib.metadata.version", lambda _: "1.20")
    outcome = tcmoa("doctor")
    assert "problem: onnxruntime and onnxruntime-gpu are both installed" in outcome.out
    assert "pip uninstall onnxruntime onnxruntime-gpu" in outcome.out


def test_version(tcmoa):
    outcome = tcmoa("--version")
    assert (outcome.code, outcome.out, outcome.err) == (0, f"tcmoa {__version__}\n", "")


@pytest.mark.parametrize("arguments", [[], ["--help"]])
def test_no_arguments_print_help(arguments, tcmoa):
    outcome = tcmoa(*arguments)
    assert (outcome.code, outcome.err) == (0, "")
    assert outcome.out.startswith("Usage: tcmoa ")
    for command in ("demo", "export", "build", "fuse", "evaluate", "inspect", "doctor", "train"):
        assert f"\n  {command} " in outcome.out


@pytest.mark.parametrize(
    "command", ["demo", "export", "build", "fuse", "evaluate", "inspect", "doctor", "train"]
)
def test_every_command_has_help(command, tcmoa):
    outcome = tcmoa(command, "--help")
    assert (outcome.code, outcome.err) == (0, "")
    assert outcome.out.startswith(f"Usage: tcmoa {command} ")


@pytest.mark.parametrize(
    ("arguments", "word"),
    [
        (["fusee"], "fusee"),
        (["--fast"], "--fast"),
        (["inspect"], "Missing argument"),
        (["doctor", "--jsonn"], "--jsonn"),
    ],
)
def test_what_is_unknown_or_missing_is_one_line(arguments, word, tcmoa):
    tcmoa(*arguments).assert_error(2, word, "--help")


def test_the_installed_command_ends_with_the_same_codes(tcmoa_process, vif):
    assert tcmoa_process("inspect", vif, "--json").json["task"] == "vif"
    tcmoa_process("fusee").assert_error(2, "fusee")
    assert tcmoa_process().code == 0


def test_a_closed_stderr_is_no_fault(vif):
    command = Path(sys.executable).with_name("tcmoa")
    done = subprocess.run(
        ["sh", "-c", f"exec '{command}' inspect '{vif}' 2>&-"], capture_output=True, check=False
    )
    assert done.returncode == 0
    assert done.stdout.startswith(b"task ")


def test_a_reader_that_has_gone_is_no_fault(vif):
    command = [Path(sys.executable).with_name("tcmoa"), "inspect", str(vif), "--json"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        process.stdout.close()
        assert process.stderr.read() == ""
        assert process.wait(60) == 1
