"""Opening bundles: properties of a valid bundle, and faults that are refused before a graph is loaded."""

import dataclasses
import json
import shutil

import pytest

from tcmoa_runtime import Bundle, BundleError, Fuser
from tcmoa_runtime.bundle import GRAPH, GRAPH_DATA, MANIFEST, FileEntry
from tcmoa_runtime.manifest import SELF_HASH, contract_to_json, file_sha256, manifest_sha256

REMEDY = "`tcmoa export`"


@pytest.fixture
def no_session(monkeypatch):
    """Fail the test when ONNX Runtime loads a graph."""

    def fail(*_, **__):
        pytest.fail("ONNX Runtime loaded a graph that should have been refused")

    monkeypatch.setattr("onnxruntime.InferenceSession", fail)


def refusal(folder):
    """Return the message of the error that refuses the bundle: one line with a remedy."""
    with pytest.raises(BundleError, match=REMEDY) as caught:
        Fuser.load(folder)
    assert "\n" not in str(caught.value)
    assert str(folder) in str(caught.value)
    return str(caught.value)


def test_properties_of_a_valid_bundle(vif):
    bundle = Bundle.open(vif)
    assert (bundle.task, bundle.preset, bundle.precision) == ("vif", "custom", "fp32")
    assert (bundle.channel_order, bundle.fit, bundle.token_pixels) == ("rgb", "pad", 8)
    assert bundle.default_prompt == (1.0, 0.0)
    assert bundle.roles == {"x": "visible", "y": "infrared"}
    assert bundle.graph_name.startswith("tcmoa_vif_custom_130x100_")
    assert (bundle.contract.height, bundle.contract.width, bundle.contract.grid) == (100, 130, (13, 17))
    assert bundle.contract.with_prompt


def test_size_is_height_and_width(vif):
    assert Bundle.open(vif).size == (100, 130)


@pytest.mark.parametrize(("name", "pixels"), [("vif", 8), ("resize", None)])
def test_tokens_of_a_bundle_that_resizes_have_no_fixed_side(name, pixels, exported):
    bundle = Bundle.open(exported(name))
    assert bundle.map_token == pixels
    assert (bundle.fit == "resize") == (pixels is None)


def test_a_section_is_read_with_its_types(vif):
    parity = Bundle.open(vif).section("parity")
    assert parity.get("max_difference", int) <= 1
    with pytest.raises(BundleError, match=r"'parity.max_difference' is \d; expected a value of type str"):
        parity.get("max_difference", str)


def test_a_missing_section_is_refused_in_one_line(vif):
    with pytest.raises(BundleError, match="'quantization' is None; expected a value of type dict") as caught:
        Bundle.open(vif).section("quantization")
    assert caught.value.subject == str(vif / MANIFEST)
    assert "\n" not in str(caught.value)


def test_a_file_is_listed_with_its_hash_and_size(external_data_bundle):
    files = Bundle.open(external_data_bundle).files
    assert files.keys() == {GRAPH, GRAPH_DATA}
    for name, entry in files.items():
        path = external_data_bundle / name
        assert entry == FileEntry(file_sha256(path), path.stat().st_size)


def test_a_bundle_holds_its_manifest_and_the_listed_files(vif):
    bundle = Bundle.open(str(vif))
    assert {p.name for p in vif.iterdir()} == {MANIFEST, *bundle.files}
    bundle.check()
    assert bundle.read_graph() == (vif / GRAPH).read_bytes()
    assert bundle.files[GRAPH].sha256 == file_sha256(vif / GRAPH)
    assert bundle.manifest["contract"] == contract_to_json(bundle.contract)
    assert bundle.manifest[SELF_HASH] == manifest_sha256(bundle.manifest)


def test_a_bundle_is_immutable(vif):
    bundle = Bundle.open(vif)
    with pytest.raises(dataclasses.FrozenInstanceError):
        bundle.path = vif
    bundle.files.clear()
    assert bundle.files


def test_opening_does_not_read_the_graph(vif, broken):
    """So that listing many bundles is fast; a damaged graph is found when it is read."""
    (broken / GRAPH).write_bytes(b"x" * (vif / GRAPH).stat().st_size)
    bundle = Bundle.open(broken)
    with pytest.raises(BundleError, match="SHA-256"):
        bundle.check()
    with pytest.raises(BundleError, match="SHA-256"):
        bundle.read_graph()


def flip_bit(path, index):
    data = bytearray(path.read_bytes())
    data[index] ^= 1
    path.write_bytes(data)


def edit_task(folder):
    text = (folder / MANIFEST).read_text()
    assert text.count('"task": "vif"') == 1
    (folder / MANIFEST).write_text(text.replace('"task": "vif"', '"task": "mef"'))


def write_manifest(text):
    def write(folder):
        (folder / MANIFEST).write_bytes(text)

    return write


def replace_by_file(folder):
    shutil.rmtree(folder)
    folder.write_bytes(b"x")


def make_manifest_a_folder(folder):
    (folder / MANIFEST).unlink()
    (folder / MANIFEST).mkdir()


def truncate_to(name, share):
    def truncate(folder):
        data = (folder / name).read_bytes()
        (folder / name).write_bytes(data[: int(len(data) * share)])

    return truncate


DEEP = b'{"format": "tcmoa-bundle", "format_version": 1, "a": ' + b"[" * 100_000 + b"]" * 100_000 + b"}"

FAULTS = {
    "missing folder": (shutil.rmtree, "no such bundle"),
    "a file": (replace_by_file, "a file; expected the folder of a bundle"),
    "missing manifest": (lambda f: (f / MANIFEST).unlink(), "not a bundle; expected a bundle.json in it"),
    "manifest is a folder": (make_manifest_a_folder, "not a bundle; expected a bundle.json in it"),
    "empty manifest": (write_manifest(b""), "not valid JSON"),
    "half a manifest": (truncate_to(MANIFEST, 0.5), "not valid JSON"),
    "flipped bit in the manifest": (lambda f: flip_bit(f / MANIFEST, -2), "not valid JSON"),
    "binary manifest": (write_manifest(bytes(range(256))), "not valid JSON"),
    "NaN in the manifest": (write_manifest(b'{"format": "tcmoa-bundle", "a": NaN}'), "not valid JSON"),
    "deeply nested manifest": (write_manifest(DEEP), "not valid JSON"),
    "object of another format": (write_manifest(b'{"name": "something"}'), "not a TC-MoA bundle"),
    "list": (write_manifest(b"[1, 2]"), "not a TC-MoA bundle"),
    "huge manifest": (write_manifest(b" " * ((1 << 20) + 1)), "1048577 bytes; expected at most 1048576"),
    "edited manifest": (edit_task, "edited or damaged since it was written"),
    "missing graph": (lambda f: (f / GRAPH).unlink(), "the file 'fusion.onnx' is missing"),
    "empty graph": (truncate_to(GRAPH, 0), "0 bytes, truncated or another file; expected"),
    "half a graph": (truncate_to(GRAPH, 0.5), "truncated or another file"),
    "first bit of the graph": (lambda f: flip_bit(f / GRAPH, 0), "SHA-256"),
    "middle bit of the graph": (lambda f: flip_bit(f / GRAPH, 1_000_000), "SHA-256"),
    "last bit of the graph": (lambda f: flip_bit(f / GRAPH, -1), "SHA-256"),
}


@pytest.mark.usefixtures("no_session")
@pytest.mark.parametrize("fault", FAULTS)
def test_a_damaged_bundle_is_refused_before_a_graph_is_loaded(fault, broken):
    damage, words = FAULTS[fault]
    damage(broken)
    assert words in refusal(broken)


@pytest.mark.usefixtures("no_session")
def test_nesting_too_deep_for_hashing_is_refused(broken):
    """`json.loads` accepts a slightly deeper nesting than `json.dumps`, which the hash needs."""
    for depth in range(900, 1000):
        nested = "[" * depth + "]" * depth
        (broken / MANIFEST).write_text(f'{{"format": "tcmoa-bundle", "format_version": 1, "a": {nested}}}')
        refusal(broken)


def setting(*keys, to):
    """Return a function that sets the value at `keys` of a manifest."""

    def change(manifest):
        for key in keys[:-1]:
            manifest = manifest[key]
        manifest[keys[-1]] = to

    return change


FORGERIES = {
    "newer format": (
        setting("format_version", to=3),
        "format version 3 is newer than this runtime; expected at most 2",
    ),
    "format zero": (setting("format_version", to=0), "'format_version' is 0; expected 1 to 2"),
    "format of another type": (setting("format_version", to="1"), "'format_version' is '1'"),
    "unknown task": (setting("task", to="xyz"), "'task' is 'xyz'; expected 'vif', 'mef', 'mff'"),
    "unknown channel order": (setting("channel_order", to="grb"), "'channel_order'"),
    "unknown fit": (setting("fit", to="stretch"), "'fit'"),
    "missing graph name": (setting("graph", to={}), "'graph.name' is None"),
    "prompt as text": (setting("prompt_default", "scale", to="1"), "'prompt_default.scale'"),
    "prompt out of range": (
        setting("prompt_default", "shift", to=16.5),
        "'prompt_default.shift' is 16.5; expected a number from -16 to 16",
    ),
    "huge prompt": (
        setting("prompt_default", "scale", to=1e6),
        "'prompt_default.scale' is 1000000.0; expected",
    ),
    "huge integer": (
        setting("prompt_default", "shift", to=10**400),
        "not valid JSON (an integer of more than 64 bits)",
    ),
    "negative count of prompts": (
        setting("frame", "prompts", to=-1),
        "'frame.prompts' is -1; expected an integer from 0 to 1048576",
    ),
    "negative size": (setting("files", GRAPH, "bytes", to=-1), "'files.fusion.onnx.bytes' is -1"),
    "unknown file": (
        setting("files", "payload.so", to={"sha256": "0", "bytes": 1}),
        "unknown file 'payload.so'",
    ),
    "file outside of the bundle": (
        setting("files", "../x", to={"sha256": "0", "bytes": 1}),
        "unknown file '../x'",
    ),
    "graph not listed": (setting("files", to={}), "'files.fusion.onnx' is None"),
    "data listed but absent": (
        setting("files", GRAPH_DATA, to={"sha256": "0", "bytes": 1}),
        "the file 'fusion.data' is missing",
    ),
    "size as text": (setting("files", GRAPH, "bytes", to="1"), "'files.fusion.onnx.bytes'"),
    "height zero": (setting("frame", "height", to=0), "expected positive sizes"),
    "height out of range": (setting("frame", "height", to=1 << 21), "expected positive sizes"),
    "height as a bool": (setting("frame", "height", to=True), "'frame.height' is True"),
    "another height": (setting("frame", "height", to=104), "expected the graph contract of this frame"),
    "another width": (setting("frame", "width", to=1000), "expected it to cover the frame"),
    "another batch": (setting("frame", "batch", to=2), "expected the graph contract of this frame"),
    "another grid": (setting("frame", "grid", to=[17, 13]), "expected it to cover the frame"),
    "grid of one number": (setting("frame", "grid", to=[13]), "expected positive sizes"),
    "another token size": (setting("token_pixels", to=16), "expected it to cover the frame"),
    "one channel": (setting("frame", "y_channels", to=1), "expected the graph contract of this frame"),
    "missing prompt output": (
        setting("frame", "with_prompt", to=False),
        "expected the graph contract of this frame",
    ),
    "another type": (
        setting("contract", "inputs", "x", "dtype", to="float32"),
        "expected the graph contract of this frame",
    ),
    "another name": (setting("contract", "outputs", to={}), "expected the graph contract of this frame"),
}


@pytest.mark.usefixtures("no_session")
@pytest.mark.parametrize("forgery", FORGERIES)
def test_a_forged_manifest_with_a_correct_hash_is_refused(forgery, broken, rehash):
    change, words = FORGERIES[forgery]
    rehash(broken, change)
    assert words in refusal(broken)


def test_a_newer_format_suggests_an_upgrade(broken, rehash):
    rehash(broken, setting("format_version", to=3))
    assert "pip install -U tcmoa" in refusal(broken)


def use_graph(folder, rehash, data):
    """Replace the bytes of the graph and update all hashes."""
    (folder / GRAPH).write_bytes(data)
    entry = {"sha256": file_sha256(folder / GRAPH), "bytes": len(data)}
    rehash(folder, setting("files", GRAPH, to=entry))


def test_the_graph_of_another_bundle_with_correct_hashes_is_refused(broken, exported, rehash):
    use_graph(broken, rehash, (exported("mef") / GRAPH).read_bytes())
    words = refusal(broken)
    assert "the graph of another bundle, named" in words
    assert "expected 'tcmoa_vif_" in words


def test_a_graph_with_other_outputs_is_refused(broken, exported, rehash):
    use_graph(broken, rehash, (exported("plain") / GRAPH).read_bytes())
    assert "output 'prompt' is absent; expected float32 [1, 2, 2, 13, 17] as in bundle.json" in refusal(
        broken
    )


def test_a_graph_with_other_inputs_is_refused(broken, exported, rehash):
    use_graph(broken, rehash, (exported("batch") / GRAPH).read_bytes())
    assert "input 'x' is uint8 [2, 100, 130, 3]; expected uint8 [1, 100, 130, 3]" in refusal(broken)


def test_a_manifest_for_another_frame_size_than_the_graph_is_refused(broken, rehash):
    def grow(manifest):
        manifest["frame"]["height"] = 101
        for tensor in (*manifest["contract"]["inputs"].values(), manifest["contract"]["outputs"]["fused"]):
            if tensor["dtype"] == "uint8":
                tensor["shape"][1] = 101

    rehash(broken, grow)
    assert "input 'x' is uint8 [1, 100, 130, 3]; expected uint8 [1, 101, 130, 3]" in refusal(broken)


@pytest.mark.usefixtures("no_session")
@pytest.mark.parametrize("data", [b"\0", b"no graph at all", bytes(range(256)) * 40], ids=len)
def test_random_bytes_with_correct_hashes_are_refused_in_one_line(data, broken, rehash):
    use_graph(broken, rehash, data)
    assert "not a valid ONNX file" in refusal(broken)


@pytest.mark.usefixtures("no_session")
def test_half_a_graph_with_correct_hashes_is_refused_in_one_line(broken, rehash):
    data = (broken / GRAPH).read_bytes()
    use_graph(broken, rehash, data[: len(data) // 2])
    assert "not a valid ONNX file (a length beyond its message, at byte" in refusal(broken)


def test_external_weights_give_the_same_frames(external_data_bundle, fuser, pair):
    assert Bundle.open(external_data_bundle).has_external_data
    with Fuser.load(external_data_bundle) as loaded:
        assert (loaded(*pair) == fuser(*pair)).all()


@pytest.mark.usefixtures("no_session")
@pytest.mark.parametrize("name", [GRAPH, GRAPH_DATA])
@pytest.mark.parametrize(
    ("damage", "words"),
    [
        (lambda path: path.unlink(), "is missing"),
        (lambda path: path.write_bytes(path.read_bytes()[:-1]), "truncated"),
        (lambda path: flip_bit(path, 5000), "SHA-256"),
    ],
    ids=["missing", "truncated", "flipped"],
)
def test_graph_and_external_weights_are_checked(name, damage, words, external_data_bundle, tmp_path):
    folder = shutil.copytree(external_data_bundle, tmp_path / "broken")
    damage(folder / name)
    assert words in refusal(folder)


def test_a_path_that_is_too_long_is_refused(tmp_path):
    assert "File name too long" in refusal(tmp_path / ("x" * 300))


def test_the_folder_of_a_bundle_may_have_any_name(vif, tmp_path):
    moved = shutil.copytree(vif, tmp_path / "a name with spaces, ünïcode & 100 %")
    assert Bundle.open(moved).manifest == json.loads((vif / MANIFEST).read_bytes())
