"""`tcmoa evaluate`: output, files, exit codes, and processes that end with it."""

import json
import os
import signal
import subprocess
import sys
import time
import uuid
from pathlib import Path

import numpy as np
import pytest
import torch

from evaluation_pieces import scene, write, write_fused, write_pairs
from micro_model import scrambled
from tcmoa import Sizes, load_weights, save_weights
from tcmoa.reference import fuse_frames
from tcmoa.weights import to_published
from tcmoa_calibration import metrics
from tcmoa_runtime import Fuser
from tcmoa_runtime.cli.evaluate import parse_baselines, split_label
from tcmoa_runtime.errors import InputError
from tcmoa_runtime.images import to_frame
from tcmoa_runtime.install import install_command
from tcmoa_runtime.options.evaluate import BASELINE_NAMES

FEW = ("--metrics", "Qabf,MI")
SIZE = (100, 130)
"""Size of the bundles."""


@pytest.fixture
def pairs(tmp_path):
    return write_pairs(tmp_path / "pairs", "abc")


@pytest.fixture
def fused(tmp_path):
    return write_fused(tmp_path / "fused", "abc")


@pytest.fixture
def evaluate(tcmoa, pairs):
    """Return a function that runs the command on three pairs in one process."""
    return lambda *arguments: tcmoa("evaluate", "--pairs", pairs, "--jobs", 1, *FEW, *arguments)


def test_json_is_one_object_with_the_documented_keys(evaluate, fused):
    outcome = evaluate("--fused", fused, "--json")
    assert (outcome.code, outcome.err) == (0, "")
    report = outcome.json
    assert report["profile"] == "correct"
    assert list(report["images"]) == ["a", "b", "c"]
    assert all(list(values) == ["Qabf", "MI"] for values in report["images"].values())
    assert report["mean"]["MI"] == pytest.approx(np.mean([v["MI"] for v in report["images"].values()]))
    assert list(report["methods"]) == ["fused", "average", "maximum", "laplacian", "mertens"]
    for method in report["methods"].values():
        assert {"images", "mean", "confidence", "resized", "skipped", "versus_first"} <= method.keys()
    assert report["methods"]["fused"]["images"] == report["images"]
    assert report["failed"] == []


def test_tables_mark_the_best_mean_and_significant_differences(evaluate, fused):
    outcome = evaluate("--fused", f"mine={fused}", "--baselines", "average")
    assert (outcome.code, outcome.err) == (0, "")
    lines = outcome.out.splitlines()
    assert lines[0].split() == ["mean", "mine", "average"]
    assert [line.split()[0] for line in lines[1:3]] == ["Qabf", "MI"]
    assert all(line.count("*") == 1 for line in lines[1:3])
    assert lines[3].split() == ["difference", "to", "the", "first", "average"]
    assert all(line.split()[-1] in "+-=" for line in lines[4:6])
    assert lines[6].startswith(
        "profile correct; ± 95 % confidence interval by Student's t over images; n 3 of 3 pairs"
    )


def test_a_bundle_fuses_every_size_and_reports_what_it_resized(tcmoa, tmp_path, exported):
    folder = tmp_path / "pairs"
    write_pairs(folder, "b")
    sources = scene(0, SIZE)
    for which, image in zip("xy", sources, strict=True):
        write(folder / f"a_{which}.png", image)
    outcome = tcmoa(
        *("evaluate", "--pairs", folder, "--jobs", 1, *FEW, "--baselines", "none", "--json"),
        *(
            "--bundle",
            f"mine={exported('vif')}",
            "--bundle",
            f"bgr={exported('bgr')}",
            "--bundle",
            f"published={exported('resize')}",
            "--out",
            tmp_path / "out",
        ),
    )
    assert (outcome.code, outcome.err) == (0, "")
    methods = outcome.json["methods"]
    assert methods["mine"]["resized"] == methods["bgr"]["resized"] == []
    assert methods["published"]["resized"] == ["b"]  # its graph resizes frames itself, and cannot be tiled
    assert "vif, 130x100, fp32, with onnxruntime" in methods["mine"]["description"]
    with Fuser.load(exported("vif")) as fuser:
        for name, (x, y) in {"a": sources, "b": scene(0)}.items():
            expected = metrics.evaluate(x, y, fuser(x, y), names=["Qabf", "MI"])
            assert methods["mine"]["images"][name] == pytest.approx(expected, abs=0.02)
            assert methods["bgr"]["images"][name] == pytest.approx(expected, abs=0.02)
    page = (tmp_path / "out" / "report.html").read_text("utf-8")
    assert "1 of 2 pairs were resized" in page
    assert len(list((tmp_path / "out" / "report_images").glob("*-prompt.jpg"))) == 2  # `bgr` has no prompt
    table = tcmoa("evaluate", "--pairs", folder, "--jobs", 1, *FEW, "--bundle", exported("resize"))
    assert "resize: 1 of 2 pairs were resized" in table.out


@pytest.fixture
def one_thread():
    """Use one thread: for a small model, more threads cost more than they gain."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.mark.usefixtures("one_thread")
def test_weights_fuse_with_the_model_itself(evaluate, tmp_path):
    weights = tmp_path / "micro.safetensors"
    save_weights(scrambled(Sizes(64, 4, 2, 64, 4, 2)), weights)
    outcome = evaluate(
        "--weights", weights, "--task", "mef", "--baselines", "none", "--json", "--out", tmp_path / "o"
    )
    assert (outcome.code, outcome.err) == (0, "")
    model = load_weights(weights)
    for number, name in enumerate("abc"):
        x, y = scene(number)
        frames = [torch.from_numpy(to_frame(image, "image"))[None] for image in (x, y)]
        image = fuse_frames(model, *frames, "mef").fused[0].round().byte().numpy()
        expected = metrics.evaluate(x, y, image, names=["Qabf", "MI"])
        assert outcome.json["methods"]["micro"]["images"][name] == pytest.approx(expected, abs=0.02)
    assert len(list((tmp_path / "o" / "report_images").glob("*-prompt.jpg"))) == 3


@pytest.mark.usefixtures("one_thread")
def test_weights_of_one_task_are_measured_for_the_task_of_the_command(evaluate, tmp_path):
    state = to_published(scrambled(Sizes(32, 2, 1, 32, 2, 1)))
    for name in [name for name in state if name.endswith(("w_gate", "w_noise"))]:
        state[name] = state[name][:1].clone()
    for name in [
        name for name in state if name.endswith(tuple(f"modal_shifts.{row}" for row in range(2, 6)))
    ]:
        del state[name]
    torch.save(state, tmp_path / "single.pth")
    outcome = evaluate("--weights", tmp_path / "single.pth", "--task", "mef", "--baselines", "none", "--json")
    assert (outcome.code, outcome.err) == (0, "")
    assert outcome.json["methods"].keys() == {"single"}


def test_results_are_written_and_kept(evaluate, fused, tmp_path):
    arguments = ("--fused", fused, "--out", tmp_path / "new" / "out")
    first = evaluate(*arguments)
    assert first.code == 0
    assert first.out.splitlines()[-1].endswith("report.html (15 results measured, 0 reused)")
    second = evaluate(*arguments, "--json").json
    assert (second["measured"], second["reused"]) == (0, 15)
    assert json.loads((tmp_path / "new" / "out" / "results.json").read_text()) == second
    assert len((tmp_path / "new" / "out" / "results.csv").read_text().splitlines()) == 1 + 15 * 2
    assert evaluate(*arguments, "--fresh", "--json").json["measured"] == 15


def test_two_folders_of_equal_names(tcmoa, tmp_path, fused):
    for number, name in enumerate("abc"):
        for which, image in zip("xy", scene(number), strict=True):
            write(tmp_path / which / f"{name}.png", image)
    command = ("evaluate", "--x", tmp_path / "x", "--y", tmp_path / "y", "--fused", fused, *FEW, "--jobs", 1)
    assert list(tcmoa(*command, "--json").json["images"]) == ["a", "b", "c"]


@pytest.mark.parametrize("as_json", [True, False])
def test_missing_results_end_in_exit_code_2_with_the_others_printed(
    as_json, evaluate, pairs, fused, tmp_path
):
    (pairs / "a_x.png").write_bytes(b"no image")
    (fused / "b.png").unlink()
    arguments = ("--fused", fused, "--baselines", "average", "--out", tmp_path / "out")
    outcome = evaluate(*arguments, *(["--json"] if as_json else []))
    assert outcome.code == 2
    first, second, last = outcome.err.splitlines()
    assert first.startswith("tcmoa: error: a: ")
    assert "a_x.png: not a readable image" in first
    assert second.startswith("tcmoa: error: b, fused: ")
    assert last == f"tcmoa: error: 2 results are missing, see above; the others are in {tmp_path / 'out'}"
    report = json.loads((tmp_path / "out" / "results.json").read_text())
    assert [(f["name"], f["method"]) for f in report["failed"]] == [("a", None), ("b", "fused")]
    assert list(report["methods"]["average"]["images"]) == ["b", "c"]
    if as_json:
        assert outcome.json == report
    else:
        assert "methods were measured on different pairs" in outcome.out


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--metrics", "Qabf,Qxyz"], ["--metrics: 'Qxyz'", "expected one of SD"]),
        (["--profile", "wrong"], ["wrong", "as-published"]),
        (["--baselines", "mean"], ["mean", "laplacian"]),
        (["--baselines", "none"], ["no methods to evaluate", "--baselines average"]),
        (["--baselines", ""], ["--baselines: no names", "average, maximum"]),
        (["--fused", "nowhere"], ["nowhere", "no such folder"]),
        (["--bundle", "nowhere"], ["nowhere", "no such bundle"]),
        (["--fused", "=nowhere"], ["--fused", "LABEL=PATH"]),
        (["--weights", "tiny"], ["--weights tiny", "vif, mef, mff", "--task"]),
        (["--weights", "tiny", "--task", "fusion"], ["--task", "fusion", "'vif', 'mef', 'mff'"]),
        (["--task", "vif"], ["--weights"]),
        (["--x", "."], ["Set --pairs, or --x and --y"]),
        (["--jobs", "0"], ["--jobs: 0; expected at least 1"]),
    ],
)
def test_wrong_options_end_in_one_line(arguments, words, evaluate):
    evaluate(*arguments).assert_error(2, *words)


def test_labels_precede_the_path(tmp_path):
    (tmp_path / "a=b").mkdir()
    assert split_label(str(tmp_path / "a=b")) == (None, str(tmp_path / "a=b"))
    assert split_label("mine=out/fused") == ("mine", "out/fused")
    for text in ("=x", "x="):
        with pytest.raises(InputError, match="LABEL=PATH"):
            split_label(text)


def test_baselines_are_names_all_or_none():
    assert parse_baselines("average, mertens") == ("average", "mertens")
    assert parse_baselines("all") == BASELINE_NAMES
    assert parse_baselines("none") == ()
    with pytest.raises(InputError, match="average, maximum"):
        parse_baselines("")


def test_two_methods_with_one_label_end_in_one_line(evaluate, fused):
    evaluate("--fused", fused, "--fused", fused).assert_error(2, "fused", "expected different labels")


def test_sources_are_required(tcmoa, tmp_path):
    tcmoa("evaluate").assert_error(2, "none given", "Set --pairs, or --x and --y")
    tcmoa("evaluate", "--pairs", tmp_path / "nowhere").assert_error(2, "nowhere: no such folder")


def test_a_damaged_bundle_ends_in_one_line(evaluate, broken):
    with (broken / "fusion.onnx").open("r+b") as file:
        file.seek(100)
        file.write(b"damage")
    evaluate("--bundle", broken).assert_error(2, "fusion.onnx", "SHA-256")


RUN = "from tcmoa_runtime.cli import run\nsys.exit(run({arguments!r}))"


@pytest.mark.parametrize(
    ("package", "options", "extra"),
    [("scipy", [], "calibration"), ("torch", ["--weights", "tiny", "--task", "vif"], "export")],
)
def test_a_missing_package_is_named_with_its_extra(package, options, extra, fresh_python, pairs):
    arguments = ["evaluate", "--pairs", str(pairs), "--jobs", "1", *FEW, *options]
    outcome = fresh_python(RUN.format(arguments=arguments), blocked={package})
    outcome.assert_error(3, package, install_command(extra))


def test_without_weights_torch_is_not_needed(fresh_python, pairs):
    arguments = ["evaluate", "--pairs", str(pairs), "--jobs", "1", *FEW, "--json"]
    outcome = fresh_python(RUN.format(arguments=arguments), blocked={"torch", "onnx", "tcmoa", "skimage"})
    assert (outcome.code, outcome.err) == (0, "")
    assert list(outcome.json["methods"]) == ["average", "maximum", "laplacian", "mertens"]


def running(mark):
    """Return the processes with this text in their environment."""
    found = []
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            if mark.encode() in (folder / "environ").read_bytes():
                found.append(int(folder.name))
        except OSError:
            continue  # it has ended, or belongs to another user
    return found


def wait_for(condition, seconds):
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.05)


@pytest.fixture
def long_run(tmp_path):
    """Start a run with processes of its own, and wait until it measures: the process, its mark, its folder."""
    names = [f"scene{i:02}" for i in range(40)]
    write_pairs(tmp_path / "many", names)
    for name in names:
        write(tmp_path / "many" / f"{name}_x.png", np.tile(scene(1)[0], (3, 3, 1)))
        write(tmp_path / "many" / f"{name}_y.png", np.tile(scene(1)[1], (3, 3)))
    mark, out = f"evaluate-{uuid.uuid4().hex}", tmp_path / "out"
    command = ["evaluate", "--pairs", tmp_path / "many", "--metrics", "Qp", "--jobs", "2", "--out", out]
    process = subprocess.Popen(
        [Path(sys.executable).with_name("tcmoa"), *command],
        env={**os.environ, "MARK": mark},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
        # A shell that runs the tests in the background makes them and their children ignore SIGINT.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    )
    cache = out / "cache.jsonl"
    wait_for(lambda: process.poll() is not None or (cache.is_file() and cache.stat().st_size), 120)
    yield process, mark, out
    process.kill()
    process.communicate()


@pytest.mark.skipif(not Path("/proc/self/environ").is_file(), reason="looks for processes in /proc")
@pytest.mark.parametrize("how", [signal.SIGINT, signal.SIGKILL])
def test_an_interrupted_run_keeps_its_results_and_ends_its_processes(how, long_run):
    process, mark, out = long_run
    wait_for(lambda: len(running(mark)) == 3, 60)
    os.killpg(process.pid, how)  # as a terminal's Ctrl-C does
    stdout, stderr = process.communicate(timeout=90)
    kept = (out / "cache.jsonl").read_text().splitlines()
    assert kept
    assert all(json.loads(line)["values"] for line in kept[:-1])
    wait_for(lambda: not running(mark), 90)
    if how == signal.SIGINT:
        assert (process.returncode, stdout) == (130, "")
        assert stderr.splitlines() == [
            f"tcmoa: finished measurements are kept in {out}; run the same command to continue",
            "tcmoa: interrupted",
        ]
    assert not (out / "results.json").exists()
