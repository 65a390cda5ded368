"""The bundles that the package ships: found by name, described by `tcmoa models`, never written to."""

import hashlib
import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

import tcmoa
from tcmoa_runtime import Bundle, BundleError, Fuser
from tcmoa_runtime.contract import TASKS
from tcmoa_runtime.images import write_image
from tcmoa_runtime.pairs import read_frame_pair
from tcmoa_runtime.ready_bundles import READY_FOLDER, READY_NAMES, ready_name, resolve_bundle
from tcmoa_runtime.shipped_pairs import shipped_pairs

WEIGHTS = Path(tcmoa.__file__).parent / "weights_data"
NAMES = "nano-vif, nano-mef, nano-mff"
MAX_BYTES = 5_000_000


@pytest.fixture(autouse=True)
def _elsewhere(tmp_path, monkeypatch):
    """Names are resolved in an empty folder."""
    monkeypatch.chdir(tmp_path)


def fingerprint():
    return {
        path: (path.stat().st_mtime_ns, hashlib.sha256(path.read_bytes()).hexdigest())
        for path in sorted(READY_FOLDER.rglob("*"))
        if path.is_file()
    }


@pytest.fixture
def unchanged():
    """The installed bundles are the same after the test."""
    before = fingerprint()
    yield
    assert fingerprint() == before


@pytest.mark.parametrize("name", READY_NAMES)
def test_a_ready_bundle_is_complete_licensed_and_small(name):
    bundle = Bundle.open(name)
    bundle.check()
    assert bundle.task == READY_NAMES[name]
    assert (bundle.size, bundle.precision, bundle.weight_storage) == ((480, 640), "fp32", "fp16")
    assert bundle.contract.with_prompt
    assert bundle.manifest["license"] == "CC-BY-NC-4.0"
    assert bundle.manifest["parity"]["psnr_db"] >= 55
    assert bundle.manifest["parity"]["pictures"] == [pair.name for pair in shipped_pairs(bundle.task)]
    assert 0 < bundle.manifest["quality"]["Qabf"] < 1


def test_together_they_are_small_and_cover_the_tasks():
    assert set(READY_NAMES.values()) == set(TASKS)
    size = sum(p.stat().st_size for name in READY_NAMES for p in (READY_FOLDER / name).iterdir())
    assert size < MAX_BYTES


def test_a_path_that_exists_wins(vif, tmp_path):
    (tmp_path / "nano-vif").symlink_to(vif)
    bundle = Bundle.open("nano-vif")
    assert bundle.size == (100, 130)
    assert bundle.spelling == "nano-vif"


def test_a_folder_that_hides_a_ready_bundle_is_named(tmp_path):
    (tmp_path / "nano-mef").mkdir()
    with pytest.raises(BundleError) as caught:
        Bundle.open("nano-mef")
    assert str(caught.value) == (
        "nano-mef: not a bundle; expected a bundle.json in it. "
        "Rename it, as a path that exists hides the ready bundle nano-mef."
    )


def test_spelling_is_what_a_command_takes(vif, tmp_path):
    assert Bundle.open("nano-mff").spelling == "nano-mff"
    assert Bundle.open(vif).spelling == str(vif)
    ready = Bundle.open("nano-vif")
    (tmp_path / "nano-vif").mkdir()
    assert ready.spelling == str(READY_FOLDER / "nano-vif")


def test_other_folders_are_not_ready_bundles(tmp_path):
    assert ready_name(READY_FOLDER / "nano-vif") == "nano-vif"
    assert ready_name(tmp_path / "nano-vif") is None
    assert ready_name(READY_FOLDER / "pairs") is None


@pytest.mark.parametrize(
    ("given", "remedy"),
    [
        ("nano-vig", "Use nano-vif, or make a bundle with `tcmoa export`"),
        ("NANO-MEF", "Use nano-mef, or make a bundle with `tcmoa export`"),
        ("nano_mff", "Use nano-mff, or make a bundle with `tcmoa export`"),
        ("night-640x480", "Make a bundle with `tcmoa export`"),
        ("some/where/nano-vif", "Use nano-vif, or make a bundle with `tcmoa export`"),
    ],
)
def test_an_unknown_name_lists_the_ready_ones(given, remedy):
    with pytest.raises(BundleError) as caught:
        resolve_bundle(given)
    expected = f"{given}: no such bundle; expected a folder or one of {NAMES}. {remedy}"
    assert str(caught.value).rstrip(".") == expected


COMMANDS = {
    "fuse": "fuse {bundle} x.png y.png -o out.png",
    "stream": "stream {bundle} x.mp4 y.mp4 -o out.mp4",
    "build": "build {bundle}",
    "inspect": "inspect {bundle}",
    "bench": "bench {bundle}",
    "int8": "calibrate int8 {bundle} --pairs pairs -o new",
    "prompt": "calibrate prompt {bundle} --pairs pairs -o new",
    "align": "calibrate align {bundle} --pairs pairs -o new",
    "evaluate": "evaluate --pairs pairs --bundle {bundle} -o out",
    "repository": "repository {bundle} -o new",
}


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_lists_the_ready_bundles(command, tcmoa, tmp_path):
    (tmp_path / "pairs").mkdir()
    for name in ("x.png", "y.png", "pairs/a_x.png", "pairs/a_y.png"):
        write_image(tmp_path / name, np.zeros((20, 30, 3), np.uint8))
    outcome = tcmoa(*COMMANDS[command].format(bundle="nano-vig").split())
    outcome.assert_error(
        2, f"nano-vig: no such bundle; expected a folder or one of {NAMES}. Use nano-vif, or"
    )


def test_doctor_lists_the_ready_bundles(tcmoa):
    outcome = tcmoa("doctor", "nano-vig")
    assert outcome.code == 2
    assert f"refuse: nano-vig: no such bundle; expected a folder or one of {NAMES}" in outcome.out


def test_models_lists_what_the_package_ships(tcmoa):
    outcome = tcmoa("models")
    assert outcome.code == 0
    for name, task in READY_NAMES.items():
        assert f"{name}  {task} (" in outcome.out
        assert str(READY_FOLDER / name) in outcome.out
    assert outcome.out.count("640x480, 1.4 MB, CC-BY-NC-4.0") == 3
    assert outcome.out.splitlines()[-1] == "weights for `tcmoa export --weights` and training: nano, tiny"


def test_models_as_json(tcmoa):
    listed = json.loads(tcmoa("models", "--json").out)
    assert {weights["name"]: weights["bytes"] for weights in listed["weights"]} == {
        path.stem: path.stat().st_size for path in WEIGHTS.glob("*.safetensors")
    }
    found = listed["models"]
    assert [model["name"] for model in found] == list(READY_NAMES)
    for model in found:
        assert Path(model["path"]) == READY_FOLDER / model["name"]
        assert model["bytes"] == (Path(model["path"]) / "fusion.onnx").stat().st_size
        assert (model["task"], model["size"], model["license"]) == (
            READY_NAMES[model["name"]],
            "640x480",
            "CC-BY-NC-4.0",
        )
        assert model["quality"]["Qabf"] > 0.5
        assert model["parity"]["psnr_db"] > 55


def test_a_name_is_enough_to_fuse(tmp_path, tcmoa, unchanged):
    pair = shipped_pairs("mff")[0]
    outcome = tcmoa("fuse", "nano-mff", pair.x, pair.y, "-o", "fused.png")
    assert outcome.code == 0, outcome.err
    with Fuser.load("nano-mff") as fuser:
        assert fuser(*read_frame_pair(pair)).shape == (300, 451, 3)


@pytest.mark.parametrize("name", ["nano-vif", "mine", "pairs"])
@pytest.mark.parametrize(
    "command",
    [
        "export --weights nano --task vif --size 80x80 --out {target} --overwrite",
        "calibrate int8 nano-vif --pairs {pairs} -o {target} --overwrite",
        "calibrate prompt nano-vif --pairs {pairs} -o {target} --overwrite",
        "calibrate align nano-vif --pairs {pairs} -o {target} --overwrite",
    ],
    ids=["export", "int8", "prompt", "align"],
)
def test_bundles_are_not_written_into_the_package(command, name, tcmoa, unchanged):
    target = READY_FOLDER / name
    outcome = tcmoa(*command.format(target=target, pairs=READY_FOLDER / "pairs" / "vif").split())
    assert (outcome.code, outcome.out) == (2, "")
    assert outcome.err.splitlines()[-1] == (  # the export reads the weights first
        f"tcmoa: error: {target}: in the installed package; expected a folder of your own. Choose another folder."
    )


def test_the_engine_of_a_ready_bundle_goes_to_the_users_folder(unchanged):
    from tcmoa_runtime.engine_folders import engines_folder, find_engines, make_engines_folder

    bundle = Bundle.open("nano-vif")
    folder = make_engines_folder(bundle)
    assert folder == engines_folder(bundle)
    assert folder.is_relative_to(os.environ["XDG_DATA_HOME"])
    (folder / "some.engine").write_bytes(b"")
    try:
        assert find_engines(bundle) == [folder / "some.engine"]
    finally:
        (folder / "some.engine").unlink()


def test_names_are_listed_without_reading_a_bundle():
    """Commands that take no bundle must not pay for them."""
    code = "import sys, tcmoa_runtime.ready_bundles as r; print(len(r.READY_NAMES), 'onnxruntime' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["3", "False"]
