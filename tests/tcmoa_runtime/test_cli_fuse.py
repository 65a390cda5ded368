"""`tcmoa fuse` with valid input: files, folders, prompts, sizes and formats."""

import cv2
import numpy as np
import pytest

from tcmoa_runtime import Fuser
from tcmoa_runtime.images import read_image, write_image


@pytest.fixture
def fuse(tcmoa):
    """Function that runs `tcmoa fuse` on ONNX Runtime, which loads a small graph in half of the time of OpenVINO."""
    return lambda *arguments: tcmoa("fuse", *arguments, "--backend", "onnxruntime")


@pytest.fixture(scope="module")
def onnxruntime_fuser(vif):
    """Fuser of the bundle `vif` on ONNX Runtime."""
    with Fuser.load(vif, "onnxruntime") as loaded:
        yield loaded


def test_two_images_are_fused_into_one(tcmoa, vif, sources, tmp_path, fuser, pair):
    outcome = tcmoa("fuse", vif, *sources, "-o", tmp_path / "out.png")
    assert (outcome.code, outcome.err) == (0, "")
    assert outcome.out.startswith(f"{tmp_path / 'out.png'} (")
    np.testing.assert_array_equal(read_image(tmp_path / "out.png"), fuser(*pair))


def test_json_is_exactly_one_object(tcmoa, vif, sources, tmp_path):
    outcome = tcmoa("fuse", vif, *sources, "-o", tmp_path / "out.png", "--json")
    assert (outcome.code, outcome.err) == (0, "")
    report = outcome.json
    assert report.keys() == {"backend", "images", "ms", "outputs"}
    assert report["backend"] in ("onnxruntime (CPU)", "onnxruntime (CUDA)", "openvino (CPU)")
    assert (report["images"], report["outputs"]) == (1, [str(tmp_path / "out.png")])
    assert 0 < report["ms"]["p50"] <= report["ms"]["p95"]


def test_the_installed_command_gives_the_same_image(tcmoa_process, vif, sources, tmp_path, fuser, pair):
    outcome = tcmoa_process("fuse", vif, *sources, "--out", tmp_path / "out.png", "--json")
    assert (outcome.code, outcome.err) == (0, "")
    assert outcome.json["images"] == 1
    assert np.abs(read_image(tmp_path / "out.png").astype(int) - fuser(*pair)).max() <= 1


def test_an_existing_image_is_replaced(fuse, vif, sources, tmp_path, onnxruntime_fuser, pair):
    (tmp_path / "out.png").write_bytes(b"old")
    assert fuse(vif, *sources, "-o", tmp_path / "out.png").code == 0
    np.testing.assert_array_equal(read_image(tmp_path / "out.png"), onnxruntime_fuser(*pair))


def test_two_folders_with_equal_names_are_fused(fuse, vif, folders, tmp_path, onnxruntime_fuser, four_pairs):
    outcome = fuse(vif, *folders, "-o", tmp_path / "out", "--json")
    assert (outcome.code, outcome.err) == (0, "")
    assert outcome.json["images"] == 3
    assert outcome.json["outputs"] == [str(tmp_path / "out" / f"{n}.png") for n in "abc"]
    names = sorted(p.name for p in (tmp_path / "out").iterdir())
    assert names == [".tcmoa-fuse.json", "a.png", "b.png", "c.png"]
    for name, x, y in zip("abc", *(frames[:3] for frames in four_pairs), strict=True):
        np.testing.assert_array_equal(read_image(tmp_path / "out" / f"{name}.png"), onnxruntime_fuser(x, y))


def test_the_summary_of_a_folder_is_one_line(fuse, vif, folders, tmp_path):
    outcome = fuse(vif, *folders, "-o", tmp_path / "out")
    assert (outcome.code, outcome.err) == (0, "")
    assert outcome.out.startswith(f"3 images in {tmp_path / 'out'} (")
    assert len(outcome.out.splitlines()) == 1


def test_one_folder_with_both_sources_is_given_twice(fuse, vif, pair, tmp_path, onnxruntime_fuser):
    both = tmp_path / "both"
    both.mkdir()
    for name, frame in zip("xy", pair, strict=True):
        write_image(both / f"scene_{name}.png", frame)
    assert fuse(vif, both, both, "-o", tmp_path / "new" / "out").code == 0
    np.testing.assert_array_equal(
        read_image(tmp_path / "new" / "out" / "scene.png"), onnxruntime_fuser(*pair)
    )


def test_a_bundle_of_batch_2_fuses_a_folder_of_three_pairs(
    fuse, exported, folders, tmp_path, onnxruntime_fuser, four_pairs
):
    outcome = fuse(exported("batch"), *folders, "-o", tmp_path / "out", "--json")
    assert (outcome.code, outcome.json["images"]) == (0, 3)
    for name, x, y in zip("abc", *(frames[:3] for frames in four_pairs), strict=True):
        result = read_image(tmp_path / "out" / f"{name}.png").astype(int)
        assert np.abs(result - onnxruntime_fuser(x, y)).max() <= 1


def test_files_are_rgb_with_a_bgr_bundle_too(fuse, exported, sources, tmp_path, onnxruntime_fuser, pair):
    assert fuse(exported("bgr"), *sources, "-o", tmp_path / "out.png").code == 0
    result = read_image(tmp_path / "out.png").astype(int)
    assert np.abs(result - onnxruntime_fuser(*pair)).max() <= 1


def test_a_gray_file_is_accepted_for_a_one_channel_source(fuse, exported, sources, tmp_path, pair):
    write_image(sources[1], pair[1][..., 0])
    assert fuse(exported("gray"), *sources, "-o", tmp_path / "out.png").code == 0
    with Fuser.load(exported("gray"), "onnxruntime") as gray:
        np.testing.assert_array_equal(read_image(tmp_path / "out.png"), gray(pair[0], pair[1][..., 0]))


@pytest.mark.parametrize(("scale", "shift"), [("0", "0.25"), ("0.5", "-0.25"), ("1.5", "-.5")])
def test_prompts_are_given_as_numbers(scale, shift, fuse, vif, sources, tmp_path, onnxruntime_fuser, pair):
    prompts = ("--prompt-scale", scale, "--prompt-shift", shift)
    assert fuse(vif, *sources, "-o", tmp_path / "out.png", *prompts).code == 0
    expected = onnxruntime_fuser(*pair, scale=float(scale), shift=float(shift))
    np.testing.assert_array_equal(read_image(tmp_path / "out.png"), expected)
    assert (expected != onnxruntime_fuser(*pair)).any()


@pytest.mark.parametrize("shape", [(100, 130), (13, 17)], ids=["frame", "grid"])
@pytest.mark.parametrize("level", [0, 128, 255])
def test_a_mask_of_one_gray_level_equals_that_number(
    level, shape, fuse, vif, sources, tmp_path, onnxruntime_fuser, pair
):
    write_image(tmp_path / "mask.png", np.full(shape, level, np.uint8))
    mask = ("--prompt-shift", tmp_path / "mask.png")
    assert fuse(vif, *sources, "-o", tmp_path / "out.png", *mask).code == 0
    expected = onnxruntime_fuser(*pair, shift=(level - 128) / 256)
    np.testing.assert_array_equal(read_image(tmp_path / "out.png"), expected)


def test_a_painted_mask_shifts_the_prompt_by_region(fuse, vif, sources, tmp_path, onnxruntime_fuser, pair):
    mask = np.full((100, 130), 128, np.uint8)
    mask[:40, :64] = 255
    mask[64:, 80:] = 0
    write_image(tmp_path / "mask.png", np.dstack([mask] * 3))  # three channels, as image editors write them
    command = (vif, *sources, "-o", tmp_path / "out.png", "--prompt-shift", tmp_path / "mask.png")
    assert fuse(*command).code == 0
    shift = onnxruntime_fuser.region(mask == 255, 127 / 256, 0) + onnxruntime_fuser.region(mask == 0, -0.5, 0)
    np.testing.assert_array_equal(read_image(tmp_path / "out.png"), onnxruntime_fuser(*pair, shift=shift))


def test_a_mask_is_divided_evenly_for_a_bundle_that_resizes(fuse, exported, sources, tmp_path, pair):
    mask = np.where(np.random.default_rng(0).random((100, 130)) < 0.5, 0, 255).astype(np.uint8)
    write_image(tmp_path / "mask.png", mask)
    command = (*sources, "-o", tmp_path / "out.png", "--prompt-shift", tmp_path / "mask.png")
    assert fuse(exported("resize"), *command).code == 0
    with Fuser.load(exported("resize"), "onnxruntime") as resizing:
        expected = resizing(*pair, shift=resizing.region(mask == 255, 127 / 256, -0.5))
    assert np.abs(read_image(tmp_path / "out.png").astype(int) - expected).max() <= 1


def test_resize_gives_the_size_of_x(fuse, vif, tmp_path):
    for name in "xy":
        write_image(tmp_path / f"{name}.png", np.full((60, 50, 3), 90, np.uint8))
    command = (
        vif,
        tmp_path / "x.png",
        tmp_path / "y.png",
        "-o",
        tmp_path / "out.png",
        "--fit",
        "resize",
    )
    assert fuse(*command).code == 0
    assert read_image(tmp_path / "out.png").shape == (60, 50, 3)


def test_stretch_sets_the_percentiles_of_16_bit_images(fuse, vif, sources, tmp_path, pair):
    deep = pair[1][..., 0].astype(np.uint16) * 31 + 500
    cv2.imwrite(str(sources[1]), deep)
    results = []
    for percentiles in ((1, 99), (10, 60.5)):
        text = ",".join(map(str, percentiles))
        assert fuse(vif, *sources, "-o", tmp_path / "out.png", "--stretch", text).code == 0
        with Fuser.load(vif, "onnxruntime", percentiles=percentiles) as expected:
            results.append(read_image(tmp_path / "out.png"))
            np.testing.assert_array_equal(results[-1], expected(pair[0], deep))
    assert (results[0] != results[1]).any()


@pytest.mark.parametrize("format_name", ["jpg", "JPEG", ".tif", "webp", "bmp"])
def test_format_sets_the_suffix_of_the_files_in_a_folder(format_name, fuse, vif, folders, tmp_path):
    assert fuse(vif, *folders, "-o", tmp_path / "out", "--format", format_name).code == 0
    suffix = "." + format_name.lower().removeprefix(".")
    names = sorted(p.name for p in (tmp_path / "out").iterdir())
    assert names == [".tcmoa-fuse.json", *(f"{n}{suffix}" for n in "abc")]
    assert read_image(tmp_path / "out" / f"a{suffix}").shape == (100, 130, 3)


@pytest.mark.parametrize("backend", ["auto", "onnxruntime"])
def test_threads_and_backend_do_not_change_the_image(backend, tcmoa, vif, sources, tmp_path, fuser, pair):
    options = ("--threads", 1, "--backend", backend)
    assert tcmoa("fuse", vif, *sources, "-o", tmp_path / "out.png", *options).code == 0
    assert np.abs(read_image(tmp_path / "out.png").astype(int) - fuser(*pair)).max() <= 1


def damage_one_pair(folder):
    data = (folder / "b.png").read_bytes()
    (folder / "b.png").write_bytes(data[: len(data) // 2])


@pytest.mark.parametrize("bundle", ["vif", "batch"])
def test_one_unreadable_pair_of_a_folder_does_not_stop_the_others(
    bundle, tcmoa_process, exported, folders, tmp_path
):
    damage_one_pair(folders[1])
    outcome = tcmoa_process("fuse", exported(bundle), *folders, "-o", tmp_path / "out", "--json")
    assert outcome.code == 2
    assert sorted(p.name for p in (tmp_path / "out").glob("[!.]*")) == ["a.png", "c.png"]
    assert outcome.json["images"] == 2
    (failure,) = outcome.json["failed"]
    assert failure["name"] == "b"
    assert "b.png: not a readable image" in failure["error"]
    first, last = outcome.err.splitlines()
    assert first == f"tcmoa: error: {failure['error']}"
    assert last.startswith("tcmoa: error: 1 of 3 pairs were not fused")


def test_each_failed_pair_of_a_batch_is_named(fuse, exported, folders, tmp_path):
    for folder in folders:
        for name in "ab":
            write_image(folder / f"{name}.png", np.zeros((50, 60, 3), np.uint8))
    outcome = fuse(exported("batch"), *folders, "-o", tmp_path / "out", "--json", "--fit", "exact")
    assert outcome.code == 2
    assert [f["name"] for f in outcome.json["failed"]] == ["a", "b"]
    assert all("60x50; expected 130x100" in f["error"] for f in outcome.json["failed"])
    assert outcome.err.splitlines()[-1].startswith("tcmoa: error: 2 of 3 pairs were not fused")
    assert [p.name for p in (tmp_path / "out").glob("[!.]*")] == ["c.png"]


def test_new_folders_that_stay_empty_are_removed(fuse, vif, folders, tmp_path):
    for name in "abc":
        write_image(folders[0] / f"{name}.png", np.zeros((50, 60, 3), np.uint8))
    outcome = fuse(vif, *folders, "-o", tmp_path / "new" / "out", "--json")
    assert outcome.code == 2
    report = outcome.json
    assert (report["images"], len(report["failed"]), report["ms"]["p50"]) == (0, 3, None)
    assert not (tmp_path / "new").exists()


def test_other_files_of_the_output_folder_are_kept(fuse, vif, folders, tmp_path):
    out = tmp_path / "out"
    out.mkdir()
    (out / "notes.txt").write_text("text")
    assert fuse(vif, *folders, "-o", out).code == 0
    assert (out / "notes.txt").read_text() == "text"
