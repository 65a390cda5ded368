"""`tcmoa inspect`, `tcmoa doctor`, `tcmoa --version`, and help."""

import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from typer.main import get_command

from tcmoa_runtime import __version__
from tcmoa_runtime.cli import make_app
from tcmoa_runtime.cli.doctor_packages import list_packages


def test_inspect_describes_a_bundle(tcmoa, vif):
    outcome = tcmoa("inspect", vif)
    assert (outcome.code, outcome.err) == (0, "")
    shown = dict(line.split(maxsplit=1) for line in outcome.out.splitlines())
    assert shown["task"] == "vif: x is visible, y is infrared"
    assert shown["frame"] == "130x100 rgb, batch 1"
    assert shown["fit"] == "pad, 17x13 tokens of 8 pixels"
    assert shown["prompt"] == "alpha 1, beta 0 by default"
    assert shown["parity"].startswith("largest difference")
    assert "fusion.onnx" in shown["file"]
    assert "torch" in outcome.out.splitlines()[-1]
    assert outcome.out.count("\ninput ") == 4
    assert outcome.out.count("\noutput ") == 2


def test_inspect_json_has_the_keys_that_programs_read(tcmoa, vif):
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
def test_inspect_accepts_missing_entries_except_the_weights(key, tcmoa, broken, rehash):
    rehash(broken, lambda manifest: manifest.pop(key))
    outcome = tcmoa("inspect", broken)
    if key == "weights":
        outcome.assert_error(2, "incomplete", "Export it again")
    else:
        assert (outcome.code, outcome.err) == (0, "")


def test_inspect_names_what_a_bundle_was_compared_with(tcmoa, broken, rehash):
    assert "from the PyTorch model" in tcmoa("inspect", broken).out
    rehash(broken, lambda manifest: manifest.update(quantization={"linears": 8}))
    assert "from the float32 bundle" in tcmoa("inspect", broken).out


def test_inspect_reports_a_missing_bundle_in_one_line(tcmoa, tmp_path):
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


def test_doctor_prints_text(tcmoa, vif, no_openvino):
    outcome = tcmoa("doctor", vif)
    assert (outcome.code, outcome.err) == (0, "")
    lines = outcome.out.splitlines()
    assert lines[0].startswith("python 3.")
    assert any(line.startswith("base install: numpy") and "onnxruntime 1." in line for line in lines)
    assert lines[-1] == "bundle: load: hashes and contract are correct, onnxruntime (CPU) runs it"


def test_doctor_reports_that_a_valid_bundle_loads(tcmoa, vif):
    outcome = tcmoa("doctor", vif, "--json")
    assert outcome.code == 0
    assert outcome.json["bundle"]["verdict"] == "load"
    assert outcome.json["bundle"]["why"]


def test_doctor_reports_why_a_damaged_bundle_is_refused(tcmoa, broken):
    (broken / "fusion.onnx").unlink()
    outcome = tcmoa("doctor", broken, "--json")
    assert (outcome.code, outcome.err) == (2, "")
    assert outcome.json["bundle"]["verdict"] == "refuse"
    assert "'fusion.onnx' is missing" in outcome.json["bundle"]["why"]
    assert "bundle: refuse: " in tcmoa("doctor", broken).out


def test_doctor_refuses_a_missing_bundle(tcmoa, tmp_path):
    outcome = tcmoa("doctor", tmp_path / "none", "--json")
    assert (outcome.code, outcome.json["bundle"]["verdict"]) == (2, "refuse")


def test_doctor_reports_a_missing_onnxruntime(tcmoa, vif, monkeypatch, no_openvino):
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    monkeypatch.delitem(sys.modules, "tcmoa_runtime.backends.onnxruntime", raising=False)
    report = tcmoa("doctor", vif, "--json").json
    assert report["bundle"]["verdict"] == "refuse"
    assert "no backend runs the bundle here" in report["bundle"]["why"]
    assert "onnxruntime cannot be imported" in report["problems"][0]


def test_doctor_reports_two_installed_onnxruntimes(tcmoa, monkeypatch):
    monkeypatch.setattr("importlib.metadata.version", lambda _: "1.20")
    outcome = tcmoa("doctor")
    assert "problem: onnxruntime and onnxruntime-gpu are both installed" in outcome.out
    assert "pip uninstall onnxruntime onnxruntime-gpu" in outcome.out


def test_version_is_printed(tcmoa):
    outcome = tcmoa("--version")
    assert (outcome.code, outcome.out, outcome.err) == (0, f"tcmoa {__version__}\n", "")


COMMANDS = (
    *(
        "demo",
        "fuse",
        "stream",
        "export",
        "wrap",
        "build",
        "train",
        "models",
        "inspect",
        "doctor",
        "bench",
        "gpu-check",
        "evaluate",
        "bulk",
        "serve",
        "fleet",
        "repository",
    ),
    *("calibrate int8", "calibrate fp8", "calibrate prompt", "calibrate align"),
)
GROUPS = ("", "calibrate")


def words_of(text):
    """Return the text of a help page without boxes, line breaks and Markdown."""
    return " ".join(text.translate({ord(c): " " for c in "│╭╮╰╯─"} | {ord("`"): None}).split())


def commands_of(group, prefix=""):
    """Yield the full name of every command, and its help."""
    for name, command in group.commands.items():
        yield prefix + name, command.help
        yield from commands_of(command, f"{prefix}{name} ") if hasattr(command, "commands") else ()


@pytest.fixture
def all_help(monkeypatch):
    """Help of every command, in Markdown, by name; help pages are 80 columns wide."""
    monkeypatch.setenv("COLUMNS", "80")
    return dict(commands_of(get_command(make_app(["--help"]))))


def test_the_list_of_commands_is_complete(all_help):
    assert set(all_help) == {*COMMANDS, "calibrate"}


@pytest.mark.parametrize("arguments", [[], ["-h"], ["--help"]])
def test_help_lists_the_commands(arguments, tcmoa):
    outcome = tcmoa(*arguments)
    assert (outcome.code, outcome.err) == (0, "")
    assert words_of(outcome.out).startswith("Usage: tcmoa ")
    for command in COMMANDS:
        assert f" {command.split()[0]} " in outcome.out


@pytest.mark.parametrize("group", GROUPS)
def test_descriptions_in_a_list_of_commands_are_complete(group, all_help, tcmoa):
    page = tcmoa(*group.split(), "--help").out
    assert "…" not in page
    assert "..." not in page.replace("[ARGS]...", "")
    listed = [name for name in all_help if name.rpartition(" ")[0] == group]
    assert listed
    for name in listed:
        description = words_of(all_help[name].split("\n\n")[0])
        assert f"{name.split()[-1]} {description}" in words_of(page)


@pytest.mark.parametrize("flag", ["-h", "--help"])
@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_has_help_with_an_example(command, flag, tcmoa):
    outcome = tcmoa(*command.split(), flag)
    assert (outcome.code, outcome.err) == (0, "")
    page = words_of(outcome.out)
    assert page.startswith(f"Usage: tcmoa {command} ")
    assert f"Examples: tcmoa {command} " in page


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        ("tcmoa ins", ["inspect"]),
        ("tcmoa calibrate al", ["align"]),
        ("tcmoa export --prec", ["--precision"]),
        ("tcmoa export --precision f", ["fp32", "fp16"]),
    ],
)
def test_the_shell_completes_commands_options_and_choices(line, expected, tcmoa_process, monkeypatch):
    monkeypatch.setenv("_TCMOA_COMPLETE", "complete_bash")
    monkeypatch.setenv("COMP_WORDS", line)
    monkeypatch.setenv("COMP_CWORD", str(len(line.split()) - 1))
    outcome = tcmoa_process()
    assert (outcome.code, outcome.out.split()) == (0, expected)


@pytest.mark.skipif(shutil.which("bash") is None, reason="needs bash")
def test_show_completion_prints_the_script_of_the_shell():
    command = Path(sys.executable).with_name("tcmoa")
    script = f"'{command}' --show-completion; exit $?"  # a second command, so that bash stays the parent
    done = subprocess.run(["bash", "-c", script], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")
    assert "_TCMOA_COMPLETE=complete_bash" in done.stdout


@pytest.mark.parametrize(
    ("arguments", "word"),
    [
        (["fusee"], "fusee"),
        (["--fast"], "--fast"),
        (["inspect"], "Missing argument"),
        (["doctor", "--jsonn"], "--jsonn"),
    ],
)
def test_unknown_and_missing_arguments_are_reported_in_one_line(arguments, word, tcmoa):
    tcmoa(*arguments).assert_error(2, word, "--help")


def test_the_installed_command_has_the_same_exit_codes(tcmoa_process, vif):
    assert tcmoa_process("inspect", vif, "--json").json["task"] == "vif"
    tcmoa_process("fusee").assert_error(2, "fusee")
    assert tcmoa_process().code == 0


def test_stderr_may_be_closed(vif):
    command = Path(sys.executable).with_name("tcmoa")
    done = subprocess.run(
        ["sh", "-c", f"exec '{command}' inspect '{vif}' 2>&-"], capture_output=True, check=False
    )
    assert done.returncode == 0
    assert done.stdout.startswith(b"task ")


def test_a_closed_pipe_ends_the_command_without_a_traceback(vif):
    command = [Path(sys.executable).with_name("tcmoa"), "inspect", str(vif), "--json"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        process.stdout.close()
        assert process.stderr.read() == ""
        assert process.wait(60) == 141
