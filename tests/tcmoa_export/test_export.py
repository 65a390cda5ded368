"""Exporting: the contents of a bundle, the check before it is written, and that nothing incomplete is left."""

import json
import os

import numpy as np
import onnxruntime
import pytest

from micro_model import frames, scrambled
from tcmoa import load_weights
from tcmoa.weights import weights_hash
from tcmoa_export import ParityError, bundle_export, bundle_files, export_bundle, network, parity
from tcmoa_export.bundle_export import LICENSES
from tcmoa_runtime import BundleError, Fuser, InputError, __version__
from tcmoa_runtime.options.export import ExportOptions

SIZE = (100, 130)


@pytest.fixture
def model():
    return scrambled()


def names_in(folder):
    return sorted(path.name for path in folder.iterdir())


def test_a_bundle_describes_itself_and_its_parity_with_the_model(model, tmp_path):
    bundle = export_bundle(
        model,
        ExportOptions(task="mef", size=SIZE, with_prompt=True),
        tmp_path / "b",
        weights_source="some.pth",
    )
    assert names_in(tmp_path) == ["b"]
    assert names_in(tmp_path / "b") == ["bundle.json", "fusion.onnx"]
    manifest = json.loads((tmp_path / "b" / "bundle.json").read_text())
    assert manifest == bundle.manifest
    assert manifest["task"] == "mef"
    assert manifest["sources"] == {"x": "over-exposed", "y": "under-exposed"}
    assert manifest["frame"]["grid"] == [13, 17]
    assert manifest["weights"]["source"] == "some.pth"
    assert manifest["graph"]["attentions"] == 10
    found = manifest["parity"]
    assert found["frames"] == 2
    assert found["max_difference"] <= 1
    assert found["differing"] < 0.005
    assert found["prompt_difference"] < 1e-4
    bundle.check()


def test_the_graph_says_what_it_is_without_its_bundle(model, tmp_path):
    """As Netron shows it."""
    options = ExportOptions(
        task="mef", size=SIZE, gray=("y",), channel_order="bgr", precision="fp16", weights_license="CC0-1.0"
    )
    bundle = export_bundle(model, options, tmp_path / "b")
    session = onnxruntime.InferenceSession(bundle.graph_path)
    assert session.get_modelmeta().custom_metadata_map == {
        "tcmoa.format": "tcmoa-bundle 1",
        "tcmoa.tool": f"tcmoa {__version__}",
        "tcmoa.task": "mef",
        "tcmoa.x": "over-exposed, 3 channels",
        "tcmoa.y": "under-exposed, 1 channels",
        "tcmoa.frame": f"{SIZE[1]}x{SIZE[0]}, batch 1",
        "tcmoa.channel_order": "bgr",
        "tcmoa.color": "rgb",
        "tcmoa.precision": "fp16",
        "tcmoa.prompt_default": "prompt_scale 1, prompt_shift 0",
        "tcmoa.weights_sha256": bundle.manifest["weights"]["sha256"],
        "tcmoa.license": "CC0-1.0",
    }
    assert bundle.manifest["license"] == "CC0-1.0"


def test_the_licenses_of_the_weights_in_the_package_are_known():
    assert {weights_hash(load_weights(name)) for name in ("nano", "tiny")} <= set(LICENSES)


def test_the_same_model_and_options_give_the_same_bytes(model, tmp_path):
    for name in ("a", "b"):
        export_bundle(model, ExportOptions(task="vif", size=SIZE), tmp_path / name)
    for file in ("bundle.json", "fusion.onnx"):
        assert (tmp_path / "a" / file).read_bytes() == (tmp_path / "b" / file).read_bytes()


def test_the_model_is_not_changed(model, tmp_path):
    model.train()
    export_bundle(model, ExportOptions(task="vif", size=SIZE, as_published=True), tmp_path / "b")
    assert model.training
    assert not model.as_published


@pytest.mark.parametrize("broken", ["weights", "prompts"])
def test_a_graph_that_differs_from_the_model_leaves_no_bundle(model, tmp_path, monkeypatch, broken):
    """As after a wrong fold: the last layer, or the routers, are those of another model."""
    other = scrambled(seed=7)

    def build_wrong_graph(model, spec, name, version):
        mixed = scrambled()
        if broken == "weights":
            mixed.decoder_pred = other.decoder_pred
        else:
            mixed.encoder.moas[0].prompts.routers = other.encoder.moas[0].prompts.routers
        return network.build_graph(mixed, spec, name, version)

    monkeypatch.setattr(bundle_export, "build_graph", build_wrong_graph)
    with pytest.raises(ParityError, match="Nothing was written"):
        export_bundle(model, ExportOptions(task="vif", size=SIZE, with_prompt=True), tmp_path / "b")
    assert names_in(tmp_path) == []


@pytest.mark.parametrize("name", ["differing", "beyond_one", "prompt_difference"])
def test_every_number_of_the_parity_can_fail_the_check(name):
    good = parity.Parity(1, ["a"], "onnxruntime (CPU)", 1, 0.004, 5e-5, 60.0, 5e-5)
    parity.check_parity(good, "fp32")
    with pytest.raises(ParityError):
        parity.check_parity(parity.Parity(**good.to_dict() | {name: 0.01}), "fp32")
    with pytest.raises(ParityError):
        parity.check_parity(parity.Parity(**good.to_dict() | {name: float("nan")}), "fp32")


def test_a_nan_in_the_weights_is_refused(model, tmp_path):
    model.decoder_pred.bias.data[0] = float("nan")
    with pytest.raises(InputError, match="NaN or infinity"):
        export_bundle(model, ExportOptions(task="vif", size=SIZE), tmp_path / "b")
    assert names_in(tmp_path) == []


def test_an_existing_bundle_is_replaced_only_when_asked(model, tmp_path):
    out = tmp_path / "b"
    first = export_bundle(model, ExportOptions(task="vif", size=SIZE), out)
    with pytest.raises(InputError, match="overwrite=True"):
        export_bundle(model, ExportOptions(task="mff", size=SIZE), out)
    assert (out / "bundle.json").read_text() == json.dumps(first.manifest, indent=2) + "\n"
    assert export_bundle(model, ExportOptions(task="mff", size=SIZE, overwrite=True), out).task == "mff"
    assert names_in(tmp_path) == ["b"]


def test_a_failing_replacement_leaves_the_old_bundle(model, tmp_path, monkeypatch):
    out = tmp_path / "b"
    export_bundle(model, ExportOptions(task="vif", size=SIZE), out)

    def fail(*_):
        raise ParityError("wrong")

    monkeypatch.setattr(bundle_export, "check_export", fail)
    with pytest.raises(ParityError):
        export_bundle(model, ExportOptions(task="mff", size=SIZE, overwrite=True), out)
    monkeypatch.undo()
    assert names_in(tmp_path) == ["b"]
    with Fuser.load(out) as fuser:
        assert fuser.bundle.task == "vif"


def test_foreign_folders_and_files_are_not_replaced(model, tmp_path):
    (tmp_path / "photos").mkdir()
    (tmp_path / "photos" / "holiday.jpg").write_bytes(b"x")
    (tmp_path / "file").write_bytes(b"x")
    for name, words in (("photos", "holds other files"), ("file", "a file")):
        with pytest.raises(InputError, match=words):
            export_bundle(model, ExportOptions(task="vif", size=SIZE, overwrite=True), tmp_path / name)
    assert names_in(tmp_path / "photos") == ["holiday.jpg"]


def test_a_full_disk_leaves_nothing(model, tmp_path, monkeypatch):
    def full(*_):
        raise OSError(28, os.strerror(28))

    monkeypatch.setattr(bundle_export, "write_graph", full)
    with pytest.raises(InputError, match="No space left"):
        export_bundle(model, ExportOptions(task="vif", size=SIZE), tmp_path / "b")
    assert names_in(tmp_path) == []


def test_weights_that_exceed_one_file_are_written_beside_the_graph_and_checked(model, tmp_path, monkeypatch):
    plain = export_bundle(model, ExportOptions(task="vif", size=SIZE), tmp_path / "plain")
    monkeypatch.setattr(bundle_files, "MAX_INLINE_BYTES", 100_000)
    split = export_bundle(model, ExportOptions(task="vif", size=SIZE), tmp_path / "split")
    assert sorted(split.files) == ["fusion.data", "fusion.onnx"]
    assert split.files["fusion.onnx"].bytes < plain.files["fusion.onnx"].bytes / 2
    x, y = frames(*SIZE)[0], frames(*SIZE, seed=1)[0]
    with Fuser.load(tmp_path / "plain") as a, Fuser.load(tmp_path / "split") as b:
        np.testing.assert_array_equal(a(x, y), b(x, y))

    data = bytearray((tmp_path / "split" / "fusion.data").read_bytes())
    data[len(data) // 2] ^= 1
    (tmp_path / "split" / "fusion.data").write_bytes(data)
    with pytest.raises(BundleError, match=r"fusion\.data: SHA-256"):
        Fuser.load(tmp_path / "split")


def test_the_check_uses_real_pairs(model, tmp_path, val_pairs):
    bundle = export_bundle(
        model, ExportOptions(task="vif", size=SIZE, pairs=val_pairs / "vif"), tmp_path / "b"
    )
    assert all(name.startswith("roadscene") for name in bundle.manifest["parity"]["pictures"])


def test_a_folder_without_pairs_is_refused_before_any_work(model, tmp_path):
    (tmp_path / "empty").mkdir()
    with pytest.raises(InputError, match="no pair of images"):
        export_bundle(model, ExportOptions(task="vif", size=SIZE, pairs=tmp_path / "empty"), tmp_path / "b")
    assert names_in(tmp_path) == ["empty"]


def test_an_interrupt_while_replacing_leaves_the_old_bundle(model, tmp_path, monkeypatch):
    out = tmp_path / "b"
    export_bundle(model, ExportOptions(task="vif", size=SIZE), out)
    rename = type(out).rename

    def interrupted(self, target):
        if os.fspath(target) == os.fspath(out) and self.parent == tmp_path:
            raise KeyboardInterrupt
        return rename(self, target)

    monkeypatch.setattr(type(out), "rename", interrupted)
    with pytest.raises(KeyboardInterrupt):
        export_bundle(model, ExportOptions(task="mff", size=SIZE, overwrite=True), out)
    monkeypatch.undo()
    assert names_in(tmp_path) == ["b"]
    with Fuser.load(out) as fuser:
        assert fuser.bundle.task == "vif"


@pytest.mark.parametrize("difference", [0.06, float("nan")])
def test_prompts_are_checked_in_fp16_too(difference):
    good = parity.Parity(1, ["a"], "onnxruntime (CPU)", 9, 0.2, 0.1, 52.0, 0.01)
    parity.check_parity(good, "fp16")
    with pytest.raises(ParityError, match="difference of prompts"):
        parity.check_parity(parity.Parity(**good.to_dict() | {"prompt_difference": difference}), "fp16")
