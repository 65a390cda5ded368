"""`tcmoa wrap --try`: the list, the commands, which run, the contact sheet, and wrong input."""

import shlex

import pytest

from fusion_networks import luma_network, maximum_network
from tcmoa_export.wrap.tryout import candidates
from tcmoa_runtime import Bundle
from tcmoa_runtime.images import read_image


@pytest.fixture(autouse=True)
def small_pictures(monkeypatch, tmp_path):
    """Try at a quarter of the size, in an own folder."""
    monkeypatch.setattr(candidates, "WORK_SIZE", (96, 128))
    monkeypatch.chdir(tmp_path)


def test_the_best_command_wraps_the_network(tcmoa, tmp_path):
    luma_network(tmp_path / "net.onnx")
    arguments = (
        "wrap",
        "net.onnx",
        "--task",
        "vif",
        "--license",
        "MIT",
        "--size",
        "64x48",
        "--range-in",
        "0..1",
    )
    done = tcmoa(*arguments, "--try")
    assert (done.code, done.err) == (0, "")
    lines = done.out.splitlines()
    assert lines[0] == "read: its inputs are NCHW"
    start = next(i for i, line in enumerate(lines) if line.startswith("1  score "))
    assert lines[start + 1] == (
        "   tcmoa wrap net.onnx --task vif --size 64x48 --license MIT --order xy --range-in 0..1 --range-out 0..1 "
        "--color-out chroma-x --out net-vif"
    )
    assert lines[-1].startswith("net-try.png: the first ")
    assert lines[-1].endswith(" pictures, on astronaut, rocket")
    assert read_image(tmp_path / "net-try.png").ndim == 3
    assert not (tmp_path / "net-vif").exists()
    wrapped = tcmoa(*shlex.split(lines[start + 1])[1:])
    assert wrapped.code == 0, wrapped.err
    assert Bundle.open(tmp_path / "net-vif").size == (48, 64)


def test_equal_pictures_are_said_to_be_equal(tcmoa, tmp_path):
    maximum_network(tmp_path / "max.onnx")
    done = tcmoa("wrap", "max.onnx", "--task", "vif", "--range-in", "0..1", "--range-out", "0..1", "--try")
    lines = [line for line in done.out.splitlines() if "equal picture" in line]
    assert lines == [
        "   equal picture: tcmoa wrap max.onnx --task vif --size 640x480 --order yx --range-in 0..1 --range-out 0..1 "
        "--color-out chroma-x --out max-vif"
    ]
    assert "No size was given: the commands are for 640x480." in done.out
    given = ("--range-in", "0..1", "--range-out", "0..1", "--sheet", "s.jpg", "--out", "mine")
    report = tcmoa("wrap", "max.onnx", "--task", "vif", *given, "--try", "--json").json
    assert report["sheet"] == "s.jpg"
    (candidate,) = report["candidates"]
    assert candidate["command"].endswith(
        "--order xy --range-in 0..1 --range-out 0..1 --color-out chroma-x --out mine"
    )
    assert len(candidate["equal"]) == 1
    assert candidate["conventions"]["order"] == "xy"
    assert (tmp_path / "s.jpg").is_file()


def test_open_conventions_hint_at_try(tcmoa, tmp_path):
    maximum_network(tmp_path / "net.onnx")
    done = tcmoa("wrap", "net.onnx", "--task", "vif", "--size", "64x48", "--out", "b")
    assert done.code == 2
    (line,) = (line for line in done.err.splitlines() if "error" in line)
    assert line == (
        "tcmoa: error: net.onnx: the network does not say order (xy|yx), range_in (0..1|0..255|-1..1|mean-std), "
        "range_out (0..1|0..255|-1..1|mean-std), color_out (gray|chroma-x|chroma-weighted|chroma-nearest); expected "
        "one of each. Set --order, --range-in, --range-out, --color-out, or put a TOML file of the same name beside "
        "the network, or see what likely ones give with --try."
    )


def test_wrong_input_is_one_line(tcmoa, tmp_path):
    maximum_network(tmp_path / "net.onnx")
    net = ("wrap", "net.onnx", "--task", "vif")
    for arguments, line in {
        ("--try", "--sheet", "none/s.png"): "none/s.png: the folder none does not exist. Create it first.",
        ("--sheet", "s.png", "--out", "b"): "--sheet: given without --try; expected both",
        ("--json", "--out", "b"): "--json: given without --try; expected both",
        (): "--out: none given; expected the folder of the new bundle",
    }.items():
        done = tcmoa(*net, *arguments)
        assert (done.code, done.out) == (2, "")
        assert line in done.err
        assert done.err.count("\n") == 1
    tcmoa("wrap", "no.onnx", "--task", "vif", "--try").assert_error(2, "no.onnx: cannot be read")
    assert [path.name for path in tmp_path.iterdir()] == ["net.onnx"]
