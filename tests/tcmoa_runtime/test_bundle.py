"""Opening bundles: what a good one tells, and that every damage is refused before anything is loaded."""

import dataclasses
import json
import shutil

import pytest

from tcmoa_runtime import Bundle, BundleError, Fuser
from tcmoa_runtime.bundle import GRAPH, GRAPH_DATA, MANIFEST
from tcmoa_runtime.manifest import SELF_HASH, contract_to_json, file_sha256, manifest_sha256

REMEDY = "`tcmoa export`"


@pytest.fixture
def no_session(monkeypatch):
    """Fail the test when a graph is given to ONNX Runtime."""

    def loaded(*_, **__):
        pytest.fail("ONNX Runtime was given a graph that should have been refused")

    monkeypatch.setattr("onnxruntime.InferenceSession", loaded)


def refusal(folder):
    """The message with which the bundle is refused: one line with a remedy."""
    with pytest.raises(BundleError, match=REMEDY) as caught:
        Fuser.load(folder)
    assert "\n" not in str(caught.value)
    assert str(folder) in str(caught.value)
    return str(caught.value)


def test_a_good_bundle_tells_what_it_is(vif):
    bundle = Bundle.open(vif)
    assert (bundle.task, bundle.preset, bundle.precision) == ("vif", "custom", "fp32")
    assert (bundle.channel_order, bundle.fit, bundle.token_pixels) == ("rgb", "pad", 8)
    assert bundle.default_prompt == (1.0, 0.0)
    assert bundle.roles == {"x": "visible", "y": "infrared"}
    assert bundle.graph_name.startswith("tcmoa_vif_custom_130x100_")
    assert (bundle.contract.height, bundle.contract.width, bundle.contract.grid) == (100, 130, (13, 17))
    assert bundle.contract.with_prompt


def test_a_good_bundle_is_its_manifest_and_its_files(vif):
    bundle = Bundle.open(str(vif))
    assert {p.name for p in vif.iterdir()} == {MANIFEST, *bundle.files}
    bundle.check()
    assert bundle.read_graph() == (vif / GRAPH).read_bytes()
    assert bundle.files[GRAPH].sha256 == file_sha256(vif / GRAPH)
    assert bundle.manifest["contract"] == contract_to_json(bundle.contract)
    assert bundle.manifest[SELF_HASH] == manifest_sha256(bundle.manifest)


def test_a_bundle_is_not_changed_by_accident(vif):
    bundle = Bundle.open(vif)
    with pytest.raises(dataclasses.FrozenInstanceError):
        bundle.path = vif
    bundle.files.clear()
    assert bundle.files


def test_opening_reads_no_graph(vif, broken):
    """Listing many bundles stays cheap; a damaged graph is found when it is read."""
    (broken / GRAPH).write_bytes(b"x" * (vif / GRAPH).stat().st_size)
    bundle = Bundle.open(broken)
    with pytest.raises(BundleError, match="SHA-256"):
        bundle.check()
    with pytest.raises(BundleError, match="SHA-256"):
        bundle.read_graph()


def flip_bit(path, place):
    data = bytearray(path.read_bytes())
    data[place] ^= 1
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


def cut(name, share):
    def truncate(folder):
        data = (folder / name).read_bytes()
        (folder / name).write_bytes(data[: int(len(data) * share)])

    return truncate


DEEP = b'{"format": "tcmoa-bundle", "format_version": 1, "a": ' + b"[" * 100_000 + b"]" * 100_000 + b"}"

DAMAGES = {
    "no folder": (shutil.rmtree, "no such bundle"),
    "a file": (replace_by_file, "a file; expected the folder of a bundle"),
    "no manifest": (lambda f: (f / MANIFEST).unlink(), "not a bundle; expected a bundle.json in it"),
    "a folder for a manifest": (make_manifest_a_folder, "not a bundle; expected a bundle.json in it"),
    "empty manifest": (write_manifest(b""), "not valid JSON"),
    "half a manifest": (cut(MANIFEST, 0.5), "not valid JSON"),
    "last byte but one of the manifest": (lambda f: flip_bit(f / MANIFEST, -2), "not valid JSON"),
    "binary manifest": (write_manifest(bytes(range(256))), "not valid JSON"),
    "manifest of NaN": (write_manifest(b'{"format": "tcmoa-bundle", "a": NaN}'), "not valid JSON"),
    "manifest too deep": (write_manifest(DEEP), "not valid JSON"),
    "foreign object": (write_manifest(b'{"name": "something"}'), "not a TC-MoA bundle"),
    "foreign list": (write_manifest(b"[1, 2]"), "not a TC-MoA bundle"),
    "huge manifest": (write_manifest(b" " * ((1 << 20) + 1)), "1048577 bytes; expected at most 1048576"),
    "edited manifest": (edit_task, "edited or damaged since it was written"),
    "no graph": (lambda f: (f / GRAPH).unlink(), "the file 'fusion.onnx' is missing"),
    "empty graph": (cut(GRAPH, 0), "0 bytes, truncated or another file; expected"),
    "half a graph": (cut(GRAPH, 0.5), "truncated or another file"),
    "first bit of the graph": (lambda f: flip_bit(f / GRAPH, 0), "SHA-256"),
    "middle bit of the graph": (lambda f: flip_bit(f / GRAPH, 1_000_000), "SHA-256"),
    "last bit of the graph": (lambda f: flip_bit(f / GRAPH, -1), "SHA-256"),
}


@pytest.mark.usefixtures("no_session")
@pytest.mark.parametrize("damage", DAMAGES)
def test_damage_is_refused_before_anything_is_loaded(damage, broken):
    do, words = DAMAGES[damage]
    do(broken)
    assert words in refusal(broken)


@pytest.mark.usefixtures("no_session")
def test_nesting_that_only_hashing_cannot_follow_is_refused(broken):
    """Reading JSON recurses a little less deep than writing it."""
    for depth in range(900, 1000):
        nested = "[" * depth + "]" * depth
        (broken / MANIFEST).write_text(f'{{"format": "tcmoa-bundle", "format_version": 1, "a": {nested}}}')
        refusal(broken)


def setting(*keys, to):
    """A change of a manifest: the value at `keys`."""

    def change(manifest):
        for key in keys[:-1]:
            manifest = manifest[key]
        manifest[keys[-1]] = to

    return change


FORGERIES = {
    "newer format": (setting("format_version", to=2), "format version 2 is newer than this runtime; expected at most 1"),
    "format zero": (setting("format_version", to=0), "'format_version' is 0"),
    "format of another type": (setting("format_version", to="1"), "'format_version' is '1'"),
    "unknown task": (setting("task", to="xyz"), "'task' is 'xyz'; expected 'vif', 'mef', 'mff'"),
    "unknown channel order": (setting("channel_order", to="grb"), "'channel_order'"),
    "unknown fit": (setting("fit", to="stretch"), "'fit'"),
    "no graph name": (setting("graph", to={}), "'graph.name' is None"),
    "prompt as text": (setting("prompt_default", "scale", to="1"), "'prompt_default.scale'"),
    "prompt beyond measure": (setting("prompt_default", "shift", to=10**400), "'prompt_default.shift'"),
    "unknown file": (
        setting("files", "payload.so", to={"sha256": "0", "bytes": 1}),
        "unknown file 'payload.so'",
    ),
    "file outside": (setting("files", "../x", to={"sha256": "0", "bytes": 1}), "unknown file '../x'"),
    "graph not listed": (setting("files", to={}), "'files.fusion.onnx' is None"),
    "data listed but absent": (
        setting("files", GRAPH_DATA, to={"sha256": "0", "bytes": 1}),
        "the file 'fusion.data' is missing",
    ),
    "size as text": (setting("files", GRAPH, "bytes", to="1"), "'files.fusion.onnx.bytes'"),
    "height zero": (setting("frame", "height", to=0), "expected positive sizes"),
    "height beyond measure": (setting("frame", "height", to=10**400), "expected positive sizes"),
    "height as a bool": (setting("frame", "height", to=True), "'frame.height' is True"),
    "another height": (setting("frame", "height", to=104), "expected the graph contract of this frame"),
    "another width": (setting("frame", "width", to=1000), "expected it to cover the frame"),
    "another batch": (setting("frame", "batch", to=2), "expected the graph contract of this frame"),
    "another grid": (setting("frame", "grid", to=[17, 13]), "expected it to cover the frame"),
    "half a grid": (setting("frame", "grid", to=[13]), "expected positive sizes"),
    "another token": (setting("token_pixels", to=16), "expected it to cover the frame"),
    "one channel": (setting("frame", "y_channels", to=1), "expected the graph contract of this frame"),
    "no prompt": (setting("frame", "with_prompt", to=False), "expected the graph contract of this frame"),
    "another type": (setting("contract", "inputs", "x", "dtype", to="float32"), "expected the graph contract of this frame"),
    "another name": (setting("contract", "outputs", to={}), "expected the graph contract of this frame"),
}


@pytest.mark.usefixtures("no_session")
@pytest.mark.parametrize("forgery", FORGERIES)
def test_a_manifest_with_the_right_hash_and_a_wrong_description_is_refused(forgery, broken, rehash):
    change, words = FORGERIES[forgery]
    rehash(broken, change)
    assert words in refusal(broken)


def test_a_newer_format_advises_an_upgrade(broken, rehash):
    rehash(broken, setting("format_version", to=2))
    assert "pip install -U tcmoa" in refusal(broken)


def use_graph(folder, rehash, data):
    """Put other bytes in the graph's place, with right hashes everywhere."""
    (folder / GRAPH).write_bytes(data)
    entry = {"sha256": file_sha256(folder / GRAPH), "bytes": len(data)}
    rehash(folder, setting("files", GRAPH, to=entry))


def test_another_bundles_graph_with_right_hashes_is_refused_by_its_name(broken, exported, rehash):
    use_graph(broken, rehash, (exported("mef") / GRAPH).read_bytes())
    words = refusal(broken)
    assert "the graph of another bundle, named" in words
    assert "expected 'tcmoa_vif_" in words


def test_a_graph_of_other_outputs_is_refused_by_its_shapes(broken, exported, rehash):
    use_graph(broken, rehash, (exported("plain") / GRAPH).read_bytes())
    assert "output 'prompt' is absent; expected float32 [1, 2, 2, 13, 17] as in bundle.json" in refusal(broken)


def test_a_graph_of_other_inputs_is_refused_by_its_shapes(broken, exported, rehash):
    use_graph(broken, rehash, (exported("batch") / GRAPH).read_bytes())
    assert "input 'x' is uint8 [2, 100, 130, 3]; expected uint8 [1, 100, 130, 3]" in refusal(broken)


def test_a_description_of_another_frame_size_is_refused_by_the_graphs_shapes(broken, rehash):
    def grow(manifest):
        manifest["frame"]["height"] = 101
        for tensor in (*manifest["contract"]["inputs"].values(), manifest["contract"]["outputs"]["fused"]):
            if tensor["dtype"] == "uint8":
                tensor["shape"][1] = 101

    rehash(broken, grow)
    assert "input 'x' is uint8 [1, 100, 130, 3]; expected uint8 [1, 101, 130, 3]" in refusal(broken)


@pytest.mark.parametrize("data", [b"", b"\0", b"no graph at all", bytes(range(256)) * 40], ids=len)
def test_garbage_with_right_hashes_is_refused_by_onnx_runtime_in_one_line(data, broken, rehash):
    use_graph(broken, rehash, data)
    assert "ONNX Runtime" in refusal(broken)


def test_half_a_graph_with_right_hashes_is_refused_in_one_line(broken, rehash):
    data = (broken / GRAPH).read_bytes()
    use_graph(broken, rehash, data[: len(data) // 2])
    assert "ONNX Runtime" in refusal(broken)


def test_weights_in_a_file_of_their_own_give_the_same_frames(in_two_files, fuser, pair):
    assert Bundle.open(in_two_files).has_external_data
    with Fuser.load(in_two_files) as loaded:
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
def test_both_files_of_a_large_bundle_are_checked(name, damage, words, in_two_files, tmp_path):
    folder = shutil.copytree(in_two_files, tmp_path / "broken")
    damage(folder / name)
    assert words in refusal(folder)


def test_a_path_that_no_file_can_have_is_refused(tmp_path):
    assert "File name too long" in refusal(tmp_path / ("x" * 300))


def test_a_bundle_is_found_by_what_it_holds_not_by_its_name(vif, tmp_path):
    moved = shutil.copytree(vif, tmp_path / "a name with spaces, ünïcode & 100 %")
    assert Bundle.open(moved).manifest == json.loads((vif / MANIFEST).read_bytes())
